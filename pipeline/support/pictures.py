"""Pictures of every kind as 8-bit RGB: the one place where a picture is read or its mode changed.

16-bit grey is scaled down, never clipped. Transparency is dropped: the pixels are seen as they are stored. The turn
in the EXIF data of a photo is done. Only the first frame of an animation or page of a document is seen, which a
warning says. A picture whose numbers have no known range is refused.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import Caution, UserError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Endings by which a file in a folder is taken for a picture."""

_SIXTEEN_BITS = {"PNG", "PPM", "JPEG2000"}
"""Formats that give 16-bit grey as Pillow's 32-bit mode I."""
_NO_RANGE = {"I": "32-bit integers", "F": "floating-point numbers"}
_TIFF_BITS, _TIFF_MEANING = 258, 262
"""Tags of TIFF: BitsPerSample, which Pillow leaves at 12 in a mode for 16, and PhotometricInterpretation."""
_ONE_PICTURE = {"MPO", "PSD"}
"""Formats whose further frames are no pictures of their own: a phone's depth map, the layers of the picture."""


def load_picture(path: Path) -> Image.Image:
    """Read a picture.

    Returns:
        Mode RGB, upright.

    Raises:
        UserError: no such file, none that Pillow can read, or a picture without a known range.
    """
    try:
        with Image.open(path) as image:
            return as_rgb(image, f"the image {path}")
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"expected an image at {path}, found no such file.") from None
    except UnidentifiedImageError:
        raise UserError(f"expected an image at {path}, but the file is none that Pillow can read.") from None
    except Exception as error:  # each of Pillow's decoders has its own errors for broken files
        raise UserError(f"can't read the image {path}: {' '.join(str(error).split())}") from error


def as_rgb(image: Image.Image, name: str = "the image") -> Image.Image:
    """Give a picture in mode RGB, upright.

    Args:
        image: of any mode; it is left as it is.
        name: what errors and warnings call it.

    Raises:
        UserError: a mode without a known range (32-bit integers and floats), one that Pillow can't convert, no pixel
            at all, or pixels that can't be read.
    """
    if 0 in image.size:
        raise UserError(f"expected an image with at least one pixel, got {name} with {image.width}x{image.height}.")
    frames = _frames(image)
    if frames > 1 and not image.tell() and image.format not in _ONE_PICTURE:
        warnings.warn(f"{name} has {frames} frames, and only the first is seen.", Caution, stacklevel=2)
    try:
        upright = ImageOps.exif_transpose(image)
    except (OSError, ValueError) as error:  # pixels are read only now: the file is cut short, or closed already
        raise UserError(f"can't read {name}: {' '.join(str(error).split())}.") from None
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in _SIXTEEN_BITS):
        return _from_16_bits(np.asarray(upright).astype(np.float32), getattr(image, "tag_v2", {}))
    if image.mode in _NO_RANGE:
        raise UserError(
            f"expected pixels of 8 or 16 bits, and {name} has {_NO_RANGE[image.mode]}, whose range is not known. Scale "
            "it to 8 bits first."
        )
    try:
        return upright.convert("RGB")
    except ValueError as error:
        raise UserError(f"can't read {name} as RGB: {error}.") from None


def _frames(image: Image.Image) -> int:
    try:
        return getattr(image, "n_frames", 1)
    except Exception:  # Pillow looks for frames in a file that may be closed by now, and each decoder fails otherwise
        return 1


def _from_16_bits(values: np.ndarray, tags: Mapping[int, Any]) -> Image.Image:
    """Grey of 16 bits, or of as many as the tags of a TIFF say, as RGB."""
    top = 2 ** tags.get(_TIFF_BITS, (16,))[0] - 1
    grey = (values * (255 / top)).round().clip(0, 255).astype(np.uint8)
    if tags.get(_TIFF_MEANING) == 0:  # 0 is white
        grey = 255 - grey
    return Image.fromarray(grey).convert("RGB")
