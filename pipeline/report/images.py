"""The before/after pictures of a run folder as pairs that carry their pixels with them."""

import base64
import io
import re
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from pydantic import TypeAdapter, ValidationError

from ..schema.image_sets import AFTER, BEFORE, GIVEN, NEAREST, TEST_SETS
from ..schema.results import ResemblanceResult
from ..support.errors import Tell, UserError, untold
from ..support.pictures import as_rgb
from ..support.text import number

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


class Beside(NamedTuple):
    """A picture to forget, and the drawn pictures that are nearest to it before and after, each with its words."""

    given: tuple[str, str]
    before: tuple[str, str]
    after: tuple[str, str]
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


def beside(
    folder: Path, before: ResemblanceResult | None, after: ResemblanceResult | None, tell: Tell = untold
) -> list[Beside]:
    """The pictures to forget beside those that were drawn; none where the run had no such pictures.

    Args:
        folder: the run's `images/`.
        before: which pictures were nearest.
        after: the same of the unlearned model.
        tell: told of files that can't be read and are left out.
    """
    if before is None or after is None:
        return []
    found = []
    for place, (first, second) in enumerate(zip(before.nearest, after.nearest, strict=False)):
        name = f"{NEAREST}-{place:03d}.png"
        try:
            (given, small), (x, _), (y, _) = (_data_uri(folder / when / name) for when in (GIVEN, BEFORE, AFTER))
        except UserError as error:
            tell(f"{error} It is left out.")
            continue
        words = [f"{each.prompt} ({number(each.similarity)})" for each in (first, second)]
        found.append(Beside((given, first.picture), (x, words[0]), (y, words[1]), small))
    return found
