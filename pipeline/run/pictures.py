"""Pictures that a caller holds in memory, as a place that a recipe can name."""

from pathlib import Path

from ..audits import Images, to_uint8
from ..data.pictures import find_pictures, keep_pictures
from ..support.places import user_path

__all__ = ["Images", "place_of"]


def place_of(pictures: str | Path | Images, root: Path) -> Path:
    """The folder or file of pictures, written into a folder under `root` where they have none of their own."""
    if isinstance(pictures, str | Path):
        return user_path(pictures)
    pixels = to_uint8(pictures)
    paths = [each for each in pictures if isinstance(each, str | Path)] if isinstance(pictures, list | tuple) else []
    captions = [find_pictures(each)[0].caption for each in paths] if len(paths) == len(pixels) else []
    return keep_pictures(pixels, root, captions)
