"""The before/after pictures of a run folder as pairs that carry their pixels with them."""

import base64
import io
import json
import re
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from ..data.pictures import as_rgb
from ..schema.image_sets import AFTER, BEFORE, TEST_SETS
from ..support.errors import UserError

SMALL = 128
"""Sides below this many pixels are kept as they are and shown pixelated."""
LARGEST = 384
"""Larger pictures are reduced to this side, as JPEG, so that the page stays light."""


class PicturePair(NamedTuple):
    """One prompt's picture before and after, from the same seed."""

    prompt: str
    before: str
    after: str
    pixelated: bool


def _data_uri(path: Path) -> tuple[str, bool]:
    """Read a PNG as a data URI and tell whether it is small."""
    try:
        with Image.open(path) as image:
            image.load()
            small = max(image.size) < SMALL
            if small:
                return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}", True
            picture = as_rgb(image, f"the image {path}")
    except OSError as error:
        raise UserError(
            f"expected a PNG at {path}, got a file that can't be read: {' '.join(str(error).split())}"
        ) from None
    picture.thumbnail((LARGEST, LARGEST))
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=86, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}", False


def _prompts(folder: Path) -> dict[str, list[str]]:
    path = folder / "prompts.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        raise UserError(f"expected the prompts of the pictures as JSON at {path}, got something else.") from None
    if not isinstance(found, dict) or not all(isinstance(value, list) for value in found.values()):
        raise UserError(f'expected {{"forget_test": [prompt, …], "retain_test": [prompt, …]}} in {path}.')
    return found


def pairs(folder: Path) -> dict[str, list[PicturePair]]:
    """Pictures that exist both before and after, for each of `TEST_SETS`, in the order of their prompts.

    Args:
        folder: the run's `images/`; it may be missing.
    """
    prompts = _prompts(folder)
    found: dict[str, list[PicturePair]] = {}
    for name in TEST_SETS:
        found[name] = []
        for before in sorted((folder / BEFORE).glob(f"{name}-*.png")):
            after = folder / AFTER / before.name
            index = re.fullmatch(rf"{name}-(\d+)\.png", before.name)
            if index is None or not after.is_file():
                continue
            listed, place = prompts.get(name, []), int(index.group(1))
            prompt = str(listed[place]) if place < len(listed) else ""
            (first, small), (second, _) = _data_uri(before), _data_uri(after)
            found[name].append(PicturePair(prompt, first, second, small))
    return found
