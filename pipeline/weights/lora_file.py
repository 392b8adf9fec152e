"""Shared by the two LoRA formats: the header, and pairs of factors read back."""

from collections.abc import Callable

from torch import Tensor

from .factors import Factors
from .format import Claim, Keys
from .job import Job, Written
from .layouts import Entry
from .provenance import save_tensors

_PARTS = {
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".alpha": "alpha",
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
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


def claim_layers(keys: Keys, place: Callable[[str], Entry | None], alpha: Callable[[str], float | None]) -> Claim:
    """Claim the layers of which both factors are there.

    Args:
        keys: of the file.
        place: gives the weight that a layer belongs to, None for a layer that has none.
        alpha: gives a layer's alpha where the file holds no tensor of it; None: its rank.
    """
    layers: dict[str, dict[str, str]] = {}
    for name in sorted(keys.names):
        ending = next((ending for ending in _PARTS if name.endswith(ending)), None)
        if ending:
            layers.setdefault(name.removesuffix(ending), {})[_PARTS[ending]] = name
    found = {
        layer: (entry, parts)
        for layer, parts in layers.items()
        if {"up", "down"} <= set(parts) and (entry := place(layer)) is not None
    }

    def factors(layer: str, parts: dict[str, str]) -> Factors:
        up, down = keys.get(parts["up"]), keys.get(parts["down"])
        scale = keys.get(parts["alpha"]).item() if "alpha" in parts else alpha(layer)
        return Factors(up, down, float(down.shape[0]) if scale is None else scale)

    changes = (
        change
        for layer, (entry, parts) in found.items()
        for change in keys.spread(entry, factors(layer, parts).product())
    )
    return {name for _, parts in found.values() for name in parts.values()}, changes
