"""Reading unlearned weights back as changes of a network, whatever format they are in."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import nn

from ..support.errors import UserError
from .change import Change
from .format import Keys
from .formats import FORMATS
from .kinds import kind_of
from .provenance import read_header


def read_changes(path: Path, module: nn.Module) -> Iterator[Change]:
    """The changes in a denoiser, LoRA or delta file, one tensor at a time.

    Args:
        path: a .safetensors file.
        module: the network that they are for.

    Raises:
        UserError: not such a file, one of another network, or one with values that are NaN or infinite.
    """
    metadata = read_header(path)
    floats = {name for name, tensor in module.state_dict().items() if tensor.is_floating_point()}
    try:
        with safe_open(path, "pt") as file:
            keys = Keys(path, set(file.keys()), file.get_tensor, metadata, module)
            for change in _changes(keys):
                if tuple(change.value.shape) != keys.shapes[change.name]:
                    shape = tuple(change.value.shape)
                    raise ValueError(f"{change.name}: expected {keys.shapes[change.name]}, got {shape}")
                if change.name in floats and not change.value.is_floating_point():
                    raise UserError(f"{change.name}: expected floating-point numbers, got {change.value.dtype}.")
                if not change.value.float().isfinite().all():
                    raise UserError(f"{change.name}: its values are NaN or infinite there.")
                yield change
    except (OSError, SafetensorError) as error:
        raise UserError(f"can't read {path} as safetensors: {error}") from None
    except UserError as error:
        raise UserError(f"can't apply {path}: {error}") from None
    except ValueError as error:
        raise UserError(f"{path} belongs to a network of another size: {error}.") from None


def _changes(keys: Keys) -> Iterator[Change]:
    if not keys.names:
        raise UserError("it holds no tensors.")
    found: list[Iterable[Change]] = []
    for each in FORMATS.values():
        if each.read is not None and keys.names:
            claimed, changes = each.read(keys)
            keys.names -= claimed
            found.append(changes)
    kind = kind_of(keys.names)
    if kind:
        raise UserError(f"it is {kind[0]} (key {kind[1]}). What can be applied is a LoRA, a delta or a denoiser file.")
    if keys.names:
        raise UserError(
            f"expected a denoiser, LoRA or delta file for a {type(keys.module).__name__}; {len(keys.names)} of its "
            f"keys belong to no weight of that network (for example {min(keys.names)})."
        )
    for changes in found:
        yield from changes
