"""Shared by the two LoRA formats: the header, and pairs of factors read back."""

import math
from collections.abc import Callable

from torch import Tensor

from ..support.errors import UserError, given
from .factors import Factors
from .format import Claim, Keys
from .job import Job, Written
from .layouts import Entry
from .lora_scale import Layer
from .provenance import save_tensors

_PARTS = {
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".alpha": "alpha",
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".scalar": "scalar",
}


def written_lora(job: Job, kind: str, name: str, tensors: dict[str, Tensor], **more: str) -> Written:
    """Write the file of a LoRA with its fit in the header.

    Args:
        job: what is written.
        kind: the format.
        name: of the file.
        tensors: the factors under their names.
        **more: further fields of the header.
    """
    more["turpentine.lora"] = job.adapter.fit.model_dump_json()
    more["modelspec.architecture"] = f"{job.metadata['modelspec.architecture']}/lora"
    path = job.folder / name
    save_tensors(tensors, path, job.header(kind, **more))
    return Written(path, [path], job.adapter.fit)


def claim_layers(keys: Keys, place: Callable[[str], Entry | None], scale: Callable[[str, Layer], float]) -> Claim:
    """Claim the layers that have a place in the network.

    Args:
        keys: of the file.
        place: gives the weight that a layer belongs to, None for a layer that has none.
        scale: gives the factor of up x down, of the layer's name in the file and what is known of it.

    Raises:
        UserError: a layer that lacks one of its factors.
    """
    layers: dict[str, dict[str, str]] = {}
    for name in sorted(keys.names):
        ending = next((ending for ending in _PARTS if name.endswith(ending)), None)
        if ending:
            layers.setdefault(name.removesuffix(ending), {})[_PARTS[ending]] = name
    found = {layer: (entry, parts) for layer, parts in layers.items() if (entry := place(layer)) is not None}
    for layer, (_, parts) in found.items():
        if not {"up", "down"} <= set(parts):
            raise UserError(f"{layer}: expected two factors, up and down, got only {', '.join(sorted(parts))}.")

    def factors(layer: str, parts: dict[str, str]) -> Factors:
        up, down = (keys.get(parts[part]) for part in ("up", "down"))
        rank = _rank(layer, up, down)
        alpha = _one_number(layer, "alpha", keys.get(parts["alpha"])) if "alpha" in parts else None
        factor = scale(layer, Layer(layer, rank, alpha, spatial=math.prod(down.shape[2:]) > 1))
        if "scalar" in parts:  # LyCORIS: one more trained factor
            factor *= _one_number(layer, "scalar", keys.get(parts["scalar"]))
        return Factors(up, down, factor * rank)

    changes = (
        change
        for layer, (entry, parts) in found.items()
        for change in keys.spread(entry, factors(layer, parts).product())
    )
    return {name for _, parts in found.values() for name in parts.values()}, changes


def _rank(layer: str, up: Tensor, down: Tensor) -> int:
    shapes = f"up {tuple(up.shape)} and down {tuple(down.shape)}"
    if not (up.is_floating_point() and down.is_floating_point()):
        raise UserError(f"{layer}: expected factors of floating-point numbers, got {up.dtype} and {down.dtype}.")
    if up.ndim < 2 or down.ndim < 2 or not up.numel() or not down.numel():
        raise UserError(f"{layer}: expected the factors up (out, rank) and down (rank, in), got {shapes}.")
    if math.prod(up.shape[1:]) != down.shape[0]:
        raise UserError(f"{layer}: expected up and down of the same rank, got {shapes}.")
    return down.shape[0]


def _one_number(layer: str, name: str, tensor: Tensor) -> float:
    number = tensor.item() if tensor.numel() == 1 else math.nan
    if not math.isfinite(number) or not number:
        raise UserError(f"{layer}: expected one finite number other than 0 as {name}, got {given(tensor.tolist())}.")
    return number
