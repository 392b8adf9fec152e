"""Reading unlearned weights back as changes of a network, whatever format they are in."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..support.errors import UserError
from .delta import delta_key
from .factors import Factors
from .layouts import Entry, Layout, denoiser_layout
from .lora import KOHYA, names_are_diffusers
from .provenance import read_header

_PARTS = {
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".alpha": "alpha",
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
}


@dataclass(frozen=True)
class Change:
    """One tensor's way from the base to the unlearned weights, at strength 1.

    Attributes:
        name: of the tensor in the network, diffusers' names.
        value: what is added, or where it leads to.
        absolute: whether `value` is where it leads to.
    """

    name: str
    value: Tensor
    absolute: bool = False

    def apply(self, current: Tensor, original: Tensor, strength: float) -> Tensor:
        """The tensor with this change, float32.

        Args:
            current: the tensor as it is.
            original: as it was in the base.
            strength: 0 = nothing, 1 = as unlearned.
        """
        current, value = current.float(), self.value.to(current.device, torch.float32)
        if not self.absolute:
            return current + strength * value
        before = original.to(current.device, torch.float32)
        return torch.lerp(before, value, strength) + (current - before)  # exact where nothing came before


def read_changes(path: Path, module: nn.Module) -> Iterator[Change]:
    """The changes in a denoiser, LoRA or delta file, one tensor at a time.

    Args:
        path: a .safetensors file.
        module: the network that they are for.

    Raises:
        UserError: not such a file, or one of another network.
    """
    metadata = read_header(path)
    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    try:
        with safe_open(path, "pt") as file:
            names = set(file.keys())
            found: Iterable[Change]
            if names <= set(shapes):
                found = (Change(name, file.get_tensor(name), absolute=True) for name in sorted(names))
            else:
                found = _differences(names, file.get_tensor, metadata, module, shapes)
            for change in found:
                if tuple(change.value.shape) != shapes[change.name]:
                    raise ValueError(f"{change.name}: expected {shapes[change.name]}, got {tuple(change.value.shape)}")
                yield change
    except (OSError, SafetensorError) as error:
        raise UserError(f"can't read {path} as safetensors: {error}") from None
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} belongs to a network of another size: {error}.") from None


def _differences(
    names: set[str],
    get: Callable[[str], Tensor],
    metadata: Mapping[str, str],
    module: nn.Module,
    shapes: Mapping[str, tuple[int, ...]],
) -> Iterator[Change]:
    places = _Places(module)
    alphas = _adapter_alphas(metadata)
    layers: dict[str, dict[str, str]] = {}
    whole: dict[str, str] = {}
    for name in sorted(names):
        ending = next((ending for ending in _PARTS if name.endswith(ending)), None)
        if ending:
            layers.setdefault(name.removesuffix(ending), {})[_PARTS[ending]] = name
        else:
            whole[name] = name
    unknown = [name for name in whole if name not in places.deltas] + [
        layer for layer, parts in layers.items() if places.layer(layer) is None or not {"up", "down"} <= set(parts)
    ]
    if unknown:
        raise UserError(
            f"expected a denoiser, LoRA or delta file for a {type(module).__name__}; {len(unknown)} of its keys belong "
            f"to no weight of that network (for example {unknown[0]})."
        )
    for name in whole:
        yield from _spread(places.deltas[name], get(name), shapes)
    for layer, parts in layers.items():
        entry = places.layer(layer)
        assert entry is not None  # noqa: S101 - checked above
        up, down = get(parts["up"]), get(parts["down"])
        if "alpha" in parts:
            alpha = get(parts["alpha"]).item()
        else:
            alpha = alphas.get(layer, float(down.shape[0]))
        yield from _spread(entry, Factors(up, down, alpha).product(), shapes)


def _spread(entry: Entry, tensor: Tensor, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Change]:
    for name, value in entry.to_diffusers(tensor, shapes).items():
        yield Change(name, value)


class _Places:
    """Where the keys of LoRA and delta files lead to in a network."""

    def __init__(self, module: nn.Module) -> None:
        original: Layout = {}
        try:
            original = denoiser_layout(module)
        except UserError:
            if not names_are_diffusers(module):
                raise
        own = {name: Entry((name,)) for name in module.state_dict()}
        self.deltas = {delta_key(name): entry for name, entry in original.items()}
        self._kohya: dict[str, Entry] = {}
        for name, entry in [*original.items(), *own.items()]:
            layer, _, last = name.rpartition(".")
            if last == "weight":
                self._kohya[KOHYA + layer.replace(".", "_")] = entry
        self._own = own

    def layer(self, name: str) -> Entry | None:
        """The weight that a LoRA layer belongs to: kohya's name, or diffusers' with the component before it."""
        return self._kohya.get(name) or self._own.get(f"{name.partition('.')[2]}.weight")


def _adapter_alphas(metadata: Mapping[str, str]) -> dict[str, float]:
    """Layer -> alpha, of the adapter metadata that diffusers writes."""
    config = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    alphas = _Default()
    for key, value in config.items():
        component, _, field = key.partition(".")
        if field == "lora_alpha":
            alphas.general[component] = float(value)
        elif field == "alpha_pattern":
            alphas |= {f"{component}.{layer.removeprefix('^')}": float(alpha) for layer, alpha in value.items()}
    return alphas


class _Default(dict[str, float]):
    """Alphas of layers, and of every other layer of a component."""

    def __init__(self) -> None:
        self.general: dict[str, float] = {}

    def get(self, key: str, default: float = 0.0) -> float:  # type: ignore[override]
        """The layer's alpha, else the component's, else the default."""
        return self[key] if key in self else self.general.get(key.partition(".")[0], default)
