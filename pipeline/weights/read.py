"""Reading unlearned weights back as changes of a network, whatever format they are in."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import nn

from ..support.errors import UserError
from .change import Change
from .format import Keys
from .formats import FORMATS
from .provenance import read_header


def read_changes(path: Path, module: nn.Module) -> Iterator[Change]:
    """The changes in a denoiser, LoRA or delta file, one tensor at a time.

    Args:
        path: a .safetensors file.
        module: the network that they are for.

    Raises:
        UserError: not such a file, or one of another network.
    """
    metadata = read_header(path)
    try:
        with safe_open(path, "pt") as file:
            keys = Keys(set(file.keys()), file.get_tensor, metadata, module)
            for change in _changes(keys):
                if tuple(change.value.shape) != keys.shapes[change.name]:
                    shape = tuple(change.value.shape)
                    raise ValueError(f"{change.name}: expected {keys.shapes[change.name]}, got {shape}")
                yield change
    except (OSError, SafetensorError) as error:
        raise UserError(f"can't read {path} as safetensors: {error}") from None
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} belongs to a network of another size: {error}.") from None


def _changes(keys: Keys) -> Iterator[Change]:
    found: list[Iterable[Change]] = []
    for each in FORMATS.values():
        if each.read is not None and keys.names:
            claimed, changes = each.read(keys)
            keys.names -= claimed
            found.append(changes)
    if keys.names:
        raise UserError(
            f"expected a denoiser, LoRA or delta file for a {type(keys.module).__name__}; {len(keys.names)} of its "
            f"keys belong to no weight of that network (for example {min(keys.names)})."
        )
    for changes in found:
        yield from changes
