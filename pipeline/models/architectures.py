"""Denoiser networks by their configuration alone: no weights, no memory.

For planning: which network a model has, built on storage-free ("fake") tensors, and example inputs
of the shapes that training gives it.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ..support.errors import UserError
from ..support.places import user_path
from .files import FAULTS, read_json, reason_of
from .lineage import BUNDLED, COMPONENTS
from .registry import ADAPTERS, family_of


def known_architectures() -> dict[str, tuple[type[nn.Module], dict[str, Any]]]:
    """Public models by a short name: the class, and the fields of the config that differ from its defaults."""
    return {name: (each.network, dict(config)) for each in ADAPTERS for name, config in each.known.items()}


def find_architecture(model: str) -> tuple[type[nn.Module], dict[str, Any]]:
    """The denoiser's class and configuration: of a known name, or read from a bundled model or a diffusers folder.

    Raises:
        UserError: neither, or a class that is not planned for.
    """
    known = known_architectures()
    if model in known:
        return known[model]
    for part in COMPONENTS:
        path = (BUNDLED.get(model) or user_path(model)) / part / "config.json"
        if path.is_file():
            config = read_json(path)
            classes = {each.network.__name__: each.network for each in ADAPTERS}
            name = config.get("_class_name")
            if name not in classes:
                raise UserError(f"expected a denoiser of one of {sorted(classes)}, got {name} in {path}.")
            return classes[name], {key: value for key, value in config.items() if not key.startswith("_")}
    raise UserError(f"expected one of {sorted([*known, *BUNDLED])} or a diffusers folder, got {model!r}.")


def build_network(kind: type[nn.Module], config: dict[str, Any]) -> nn.Module:
    """The network with meaningless weights, on whatever device or fake mode is active.

    Raises:
        UserError: a config that describes no such network.
    """
    try:
        return kind.from_config(config)  # type: ignore[attr-defined]
    except FAULTS as error:
        raise UserError(f"this config describes no {kind.__name__}: {reason_of(error)}.") from None


def example_inputs(network: nn.Module, batch_size: int, side: int | None = None) -> dict[str, Any]:
    """Arguments of `network.forward` in training.

    Args:
        network: as `build_network` gives it.
        batch_size: B.
        side: height and width of the latents; None for what the model was trained at.
    """
    family = family_of(network)
    if family is None:
        expected = sorted({each.network.__name__ for each in ADAPTERS})
        raise UserError(f"expected one of {expected}, got {type(network).__name__}.")
    return family.example_inputs(network.config, batch_size, side)


def saved_bytes(network: nn.Module, inputs: dict[str, Any]) -> int:
    """Bytes that a forward pass keeps for its backward pass, beyond the network's own weights.

    Every storage that autograd saves is counted once. What the kernels need besides while they run
    is not.
    """
    own = {p.untyped_storage()._cdata for p in network.parameters()}
    kept: dict[int, Any] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage  # held, so that no later storage can take its address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network(**inputs, return_dict=False)
    return sum(storage.nbytes() for storage in kept.values())
