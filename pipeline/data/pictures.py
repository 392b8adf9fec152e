"""Pictures of what is to be forgotten, where no word names it: one person, a logo, a single artwork.

A folder of pictures, or one file. A caption may lie beside each, as trainers have it: `NAME.txt` beside `NAME.png`.
"""

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..prompts import tables
from ..support.errors import Caution, UserError
from ..support.files import replacing, write_text
from ..support.pictures import SUFFIXES, load_picture
from ..support.places import user_path
from ..support.text import counted

FEW = 5
"""Fewer pictures than this say little of a person or a thing beyond themselves."""


@dataclass(frozen=True)
class Picture:
    """One picture on the disk.

    Attributes:
        path: of the file.
        caption: what `NAME.txt` beside it says, on one line; None without such a file.
    """

    path: Path
    caption: str | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """The picture's file, and its caption's."""
        return (self.path,) if self.caption is None else (self.path, _caption_file(self.path))


def find_pictures(place: str | Path, option: str = "forget_images") -> list[Picture]:
    """List the pictures of a folder by their names, or the one picture that a file is; folders inside are left out.

    Args:
        place: the folder or the file.
        option: that names it, for messages.

    Raises:
        UserError: nothing is there, no picture is, or a caption that can't be read or is empty.
    """
    path = user_path(place)
    if path.is_file():
        return [_picture(path)]
    if not path.is_dir():
        raise UserError(f"expected a folder of pictures ({option}), found none at {path}.")
    found = [file for file in _visible(path) if file.suffix.lower() in SUFFIXES]
    if not found:
        raise UserError(f"expected at least one picture ({', '.join(SUFFIXES)}) in {path}, found none.")
    twice = {file.stem for file in found if _caption_file(file).is_file()}
    shared = next((stem for stem in sorted(twice) if sum(file.stem == stem for file in found) > 1), None)
    if shared is not None:
        raise UserError(f"{path / shared}.txt stands beside several pictures of that name. Rename them.")
    return [_picture(file) for file in found]


def check_pictures(place: str | Path) -> list[str]:
    """Read every picture once, before long work; gives warnings.

    Raises:
        UserError: the first picture that can't be read, and as `find_pictures` does.
    """
    pictures, path = find_pictures(place), user_path(place)
    found = check_readable(pictures)
    if len(pictures) < FEW:
        found.append(
            f"{counted(len(pictures), 'picture')} to forget: enough for a single artwork or logo. Of a person or a "
            "kind of thing give ten or more, or the model forgets just these."
        )
    if path.is_dir():
        known = {file for each in pictures for file in each.files}
        others = [file.name for file in _visible(path) if file not in known and file.is_file()]
        if others:
            found.append(f"{counted(len(others), 'file')} in {path} left out, the first {others[0]}: no picture.")
    return found


def check_readable(pictures: Sequence[Picture]) -> list[str]:
    """Read every picture once; gives what there is to tell of them.

    Raises:
        UserError: the first picture that can't be read.
    """
    with told_of() as found:
        for each in pictures:
            load_picture(each.path)
    return found


def check_rows(place: str | Path, rows: int) -> list[str]:
    """Say how often each picture comes.

    Args:
        place: see `find_pictures`.
        rows: training pairs, of which each has a picture.

    Raises:
        UserError: fewer rows than pictures.
    """
    count = len(find_pictures(place))
    if rows < count:
        raise UserError(
            f"expected a training pair for each of {count} pictures to forget, got {counted(rows, 'pair')}. Give more "
            "pairs, or fewer pictures."
        )
    if rows == count:
        return []
    return [
        f"{counted(count, 'picture')} to forget in {counted(rows, 'pair')}: each comes {rows // count} times or more, "
        "with prompts and noise of its own each time."
    ]


def small_pictures(place: str | Path, side: int) -> list[str]:
    """A warning of pictures that must be enlarged more than twice.

    Args:
        place: see `find_pictures`.
        side: of the model's pictures, in pixels.
    """
    small = []
    for each in find_pictures(place):
        with Image.open(each.path) as image:
            small += [each.path.name] if 2 * min(image.size) < side else []
    if not small:
        return []
    return [
        f"{counted(len(small), 'picture')} to forget, the first {small[0]}, with a side below half of the model's "
        f"{side} pixels: enlarged they are blurred, and the model forgets blurred ones. Give larger ones."
    ]


def read_pictures(paths: Sequence[Path], height: int, width: int) -> Tensor:
    """Read pictures at one size: scaled until they fill it, and cropped around the middle.

    Args:
        paths: of the pictures.
        height: in pixels.
        width: in pixels.

    Returns:
        (N, 3, height, width), float32 in [0, 1].

    Raises:
        UserError: a picture that can't be read.
    """
    with told_of():  # `check_pictures` has told it
        fitted = [ImageOps.fit(load_picture(path), (width, height), Image.Resampling.LANCZOS) for path in paths]
    return (
        torch.from_numpy(np.stack([np.asarray(each) for each in fitted])).permute(0, 3, 1, 2).contiguous().float() / 255
    )


def keep_pictures(images: np.ndarray | Sequence[np.ndarray], root: Path, captions: Sequence[str | None] = ()) -> Path:
    """Write pictures that are on no disk yet, so that a run can name them, be resumed, and be told from others.

    Args:
        images: uint8 RGB, each (H, W, 3).
        root: gets a folder that is named after what is in it; the same pictures give the same one.
        captions: as many as pictures, or none.

    Returns:
        The folder.
    """
    captions = captions or [None] * len(images)
    digest = hashlib.sha256(repr([captions, [image.shape for image in images]]).encode())
    for image in images:
        digest.update(image.tobytes())
    folder = root / f"pictures-{digest.hexdigest()[:12]}"
    for number, (image, caption) in enumerate(zip(images, captions, strict=True)):
        path = folder / f"{number:04d}.png"
        if caption is not None:
            write_text(_caption_file(path), caption + "\n")
        with replacing(path) as partial:
            Image.fromarray(image).save(partial, "PNG")
    return folder


@contextmanager
def told_of() -> Iterator[list[str]]:
    """Collect what is told of pictures while the block reads them, each once."""
    found: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", Caution)
        yield found
    found += dict.fromkeys(str(each.message) for each in caught if issubclass(each.category, Caution))


def _visible(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.iterdir()) if not file.name.startswith(".")]


def _caption_file(path: Path) -> Path:
    return path.with_suffix(".txt")


def _picture(path: Path) -> Picture:
    file = _caption_file(path)
    if not file.is_file():
        return Picture(path)
    said = tables.read_text(file, "a caption", f"Write what {path.name} shows, or remove the file")
    return Picture(path, " ".join(said.split()))
