"""Masks over the weights that train: on disk, and by layer for people to look at."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..support.errors import UserError
from ..support.files import replacing

MASK_FILE = "mask.safetensors"
"""A run's mask, in its folder."""


def save_mask(mask: Mapping[str, Tensor], path: Path) -> None:
    """Write boolean tensors by the name of their weights."""
    with replacing(path) as partial:
        save_file({name: part.cpu().contiguous() for name, part in mask.items()}, partial, metadata={"format": "pt"})


def read_mask(path: Path) -> dict[str, Tensor]:
    """Read what `save_mask` wrote.

    Raises:
        UserError: no such file, or not boolean tensors.
    """
    try:
        mask = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"can't read the mask {path}: {error}. Name the mask.safetensors of a run.") from None
    for name, part in mask.items():
        if part.dtype != torch.bool:
            raise UserError(f"expected a mask of booleans in {path}, got {part.dtype} for {name!r}. Name a mask.")
    return mask


def load_mask(path: Path, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read a mask for these weights, in their order and on their devices.

    Raises:
        UserError: unreadable, or of other weights.
    """
    mask = read_mask(path)
    missing = [name for name in parameters if name not in mask]
    unexpected = [name for name in mask if name not in parameters]
    if missing or unexpected:
        raise UserError(
            f"the mask {path} is of other weights than those that train: {len(missing)} missing"
            f"{_first(missing)}, {len(unexpected)} unexpected{_first(unexpected)}. "
            "Choose the parameters that it was made for."
        )
    for name, parameter in parameters.items():
        if mask[name].shape != parameter.shape:
            raise UserError(
                f"the mask {path} has shape {[*mask[name].shape]} for {name!r}, expected {[*parameter.shape]}. "
                "Use the mask of this model."
            )
    return {name: mask[name].to(parameter.device) for name, parameter in parameters.items()}


def _first(names: list[str]) -> str:
    return f" (the first {names[0]!r})" if names else ""


def mask_shares(mask: Mapping[str, Tensor]) -> dict[str, tuple[float, int]]:
    """How much of each block a mask holds, in the network's order.

    Cross-attention, which reads the prompt, counts apart from the rest of its block.

    Returns:
        Block -> (share of its weights in the mask, in [0, 1]; its number of weights).

    >>> mask_shares({"down_blocks.0.resnets.0.conv1.weight": torch.tensor([True, False, False, False])})
    {'down_blocks.0': (0.25, 4)}
    """
    held: dict[str, tuple[int, int]] = {}
    for name, part in mask.items():
        block = _block(name)
        kept, count = held.get(block, (0, 0))
        held[block] = (kept + int(part.sum()), count + part.numel())
    return {block: (kept / max(1, count), count) for block, (kept, count) in held.items()}


def _block(name: str) -> str:
    first, *rest = name.split(".")
    block = f"{first}.{rest[0]}" if rest and rest[0].isdigit() else first
    return f"{block} cross-attention" if "attn2" in rest else block
