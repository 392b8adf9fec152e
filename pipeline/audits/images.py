"""One form for the images that audits look at, whatever they arrive as."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image

from ..support.errors import UserError
from ..support.pictures import as_rgb, load_picture
from ..support.places import user_path

Images: TypeAlias = torch.Tensor | np.ndarray | Sequence[Image.Image | str | Path | np.ndarray]
"""The forms that every audit accepts; see `to_uint8`."""

Pixels: TypeAlias = np.ndarray | list[np.ndarray]
"""uint8 RGB, shape (N, H, W, 3); a list of (H, W, 3) where sizes differ."""

_EXPECTED = (
    "a float tensor (N, 3, H, W) in [0, 1], a uint8 tensor (N, 3, H, W), "
    "an array (N, H, W, 3), or a list of PIL images or paths"
)


def number_of(images: Images) -> int:
    """How many images there are, without reading those that are files.

    Raises:
        UserError: something that holds no images, see `to_uint8`.
    """
    return len(images if isinstance(images, torch.Tensor | np.ndarray | list | tuple) else to_uint8(images))


def in_parts(images: Images, size: int) -> Iterator[Pixels]:
    """Give images as 8-bit RGB, `size` of them at a time: files are read when their turn comes.

    Raises:
        UserError: see `to_uint8`.
    """
    if isinstance(images, list | tuple) and images:
        for start in range(0, len(images), size):
            yield _stacked(images[start : start + size], start)
    else:
        pixels = to_uint8(images)
        yield from (pixels[start : start + size] for start in range(0, len(pixels), size))


def to_uint8(images: Images) -> Pixels:
    """Give images as 8-bit RGB.

    Args:
        images: float tensor (N, 3, H, W) in [0, 1]; uint8 tensor (N, 3, H, W); array (N, H, W, 3),
            uint8 or float in [0, 1]; or a list of PIL images, paths and arrays (H, W, 3), mixed
            as you like. How pictures of other modes are seen, see `support.pictures`.

    Returns:
        uint8 array (N, H, W, 3), RGB; a list of arrays (H, W, 3) when sizes differ.

    Raises:
        UserError: anything else, no image at all, pixels out of range, or a file that can't be read.
    """
    if isinstance(images, torch.Tensor):
        return _from_tensor(images)
    if isinstance(images, np.ndarray):
        if images.ndim != 4 or images.shape[-1] != 3:
            raise UserError(f"expected images as {_EXPECTED}, got an array of shape {images.shape}.")
        _refuse_none(images.shape)
        return _from_array(images)
    if not isinstance(images, list | tuple):
        hint = " Put a single image into a list." if isinstance(images, Image.Image | str | Path) else ""
        raise UserError(f"expected images as {_EXPECTED}, got {type(images).__name__}.{hint}")
    _refuse_none([len(images)])
    return _stacked(images)


def _stacked(images: Sequence[object], first: int = 0) -> Pixels:
    """Images of a list, the first of which stands at the place `first` of the caller's."""
    pixels = [_from_item(item, index) for index, item in enumerate(images, start=first)]
    return np.stack(pixels) if len({item.shape for item in pixels}) == 1 else pixels


def _refuse_none(shape: Sequence[int]) -> None:
    if not shape[0]:
        raise UserError("expected at least one image, got none. Check the prompts or the folder that they come from.")
    if 0 in shape:
        raise UserError(f"expected images with at least one pixel, got the shape {tuple(shape)}.")


def _from_tensor(images: torch.Tensor) -> np.ndarray:
    if images.ndim != 4 or images.shape[1] != 3:
        swapped = images.ndim == 4 and images.shape[-1] == 3
        hint = " Channels come second: use images.permute(0, 3, 1, 2)." if swapped else ""
        raise UserError(f"expected images as {_EXPECTED}, got a tensor of shape {tuple(images.shape)}.{hint}")
    _refuse_none(images.shape)
    if images.is_meta or images.is_quantized or images.layout != torch.strided:
        raise UserError("expected images as a dense tensor, got one that is sparse, quantised or on the device 'meta'.")
    images = images.detach().permute(0, 2, 3, 1)
    if images.is_floating_point():
        images = images.float()  # numpy has no bfloat16
    return _from_array(images.cpu().numpy())


def _from_array(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if not np.issubdtype(array.dtype, np.floating):
        raise UserError(
            f"expected pixels as uint8 or as floats in [0, 1], got {array.dtype}. Divide them by the value that stands "
            "for white."
        )
    if not np.isfinite(array).all():
        count = int((~np.isfinite(array)).sum())
        raise UserError(
            f"expected pixels in [0, 1], got {count} that are NaN or infinite. Such images come from a model that "
            "has diverged, or that overflows in half precision: lower the learning rate, or use float32."
        )
    low, high = float(array.min()), float(array.max())
    if low < -1e-3 or high > 1 + 1e-3:  # rounding of half precision is let through
        hint = "Clamp them first."
        if high > 2:
            hint = f"Divide them by {255 if high < 256 else 'the value that stands for white'}."
        elif low < -0.1:
            hint = "From [-1, 1], scale them with images / 2 + 0.5."
        raise UserError(f"expected float pixels in [0, 1], got values from {low:.3g} to {high:.3g}. {hint}")
    return np.ascontiguousarray((array.clip(0, 1) * 255).round().astype(np.uint8))


def _from_item(item: object, index: int) -> np.ndarray:
    if isinstance(item, str | Path):
        return np.array(load_picture(user_path(item)))
    if isinstance(item, Image.Image):
        return np.array(as_rgb(item, f"the image at place {index} of the list"))
    if isinstance(item, np.ndarray) and item.ndim == 3 and item.shape[-1] == 3:
        _refuse_none((1, *item.shape))
        return _from_array(item)
    shape = f" of shape {tuple(item.shape)}" if isinstance(item, np.ndarray | torch.Tensor) else ""
    raise UserError(f"expected images as {_EXPECTED}, got {type(item).__name__}{shape} at place {index} of the list.")
