"""The before/after pictures of a run folder as pairs that carry their pixels with them."""

import base64
import io
import re
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from pydantic import TypeAdapter, ValidationError

from ..schema.image_sets import AFTER, BEFORE, TEST_SETS
from ..support.errors import Tell, UserError, untold
from ..support.pictures import as_rgb

_PROMPTS = TypeAdapter(dict[str, list[str]])
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
            f"expected a PNG at {path}, got a file that can't be read: {' '.join(str(error).split())}."
        ) from None
    picture.thumbnail((LARGEST, LARGEST))
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=86, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}", False


def read_prompts(folder: Path, tell: Tell = untold) -> dict[str, list[str]]:
    """The prompts of the pictures, by their sets; none where the file is missing, or damaged, with a word.

    Args:
        folder: the run's `images/`.
        tell: told of a damaged file.
    """
    path = folder / "prompts.json"
    try:
        return _PROMPTS.validate_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError):
        tell(f"{path} can't be read: pictures are shown without their prompts.")
        return {}


def pairs(folder: Path, tell: Tell = untold) -> dict[str, list[PicturePair]]:
    """Pictures that exist both before and after, for each of `TEST_SETS`, in the order of their prompts.

    Args:
        folder: the run's `images/`; it may be missing.
        tell: told of files that can't be read and are left out.
    """
    prompts = read_prompts(folder, tell)
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
            try:
                (first, small), (second, _) = _data_uri(before), _data_uri(after)
            except UserError as error:
                tell(f"{error} It is left out.")
                continue
            found[name].append(PicturePair(prompt, first, second, small))
    return found
