"""A device that is none: its tensors lie on the CPU, but keep the rules of an accelerator without float64.

Apple's GPUs (MPS) and many of Intel's have no float64. Here every operation on a tensor of the device that gives or
asks for float64 is refused, and so is one that mixes its tensors with the CPU's. It is called "npu", a name that
PyTorch leaves to others, and that diffusers knows as a device without float64. It is of a whole process: use it in one
of its own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = "npu:0"
AVAILABLE = hasattr(backend_registration, "_setup_privateuseone_for_python_backend")
"""Whether this PyTorch can have a device that is written in Python."""

_TYPE = "npu"
_MOVES = ("aten::_to_copy", "aten::copy_")


class Held(torch.Tensor):
    """A tensor of the device, around one of the CPU."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> "Held":
        made = torch.Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=torch.device(DEVICE), requires_grad=inner.requires_grad,
        )  # fmt: skip
        made.inner = inner
        return made

    @property
    def data(self) -> "Held":
        """The tensor without its graph; to set it exchanges what is held, as a teacher and a cast do."""
        return self.detach()

    @data.setter
    def data(self, other: "Held") -> None:
        if other.dtype != self.dtype:
            torch.Tensor.data.__set__(self, other)  # what the wrapper itself says of its numbers
        self.inner = other.inner

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["inner"], None

    @staticmethod
    def __tensor_unflatten__(inner: Any, meta: Any, size: Any, stride: Any) -> "Held":
        return Held(inner["inner"])

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with _Rules():
            return func(*args, **(kwargs or {}))


class _Rules(TorchDispatchMode):
    """Computes on the CPU what is asked of the device.

    Args:
        lacks: names of operations that the device doesn't have, for example "aten::native_group_norm".
    """

    def __init__(self, lacks: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.lacks = lacks

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name, leaves = func._schema.name, tree_leaves((args, kwargs))
        held = [leaf for leaf in leaves if isinstance(leaf, Held)]
        others = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and not isinstance(leaf, Held)]
        wanted = kwargs.get("device")
        there = wanted.type == _TYPE if isinstance(wanted, torch.device) else bool(held)
        if (there or held) and name in self.lacks:
            raise NotImplementedError(f"The operator '{name}' is not currently implemented for the NPU device.")
        if held and name not in _MOVES and any(other.ndim for other in others):
            raise RuntimeError(f"{name}: Expected all tensors to be on the same device, but found npu:0 and cpu!")
        found = func(*tree_map(_inner, args), **tree_map(_inner, kwargs))
        if (there or held) and any(leaf.dtype == torch.float64 for leaf in _tensors(found)):
            raise TypeError(f"{name}: Cannot convert an NPU tensor to float64, which the device doesn't support.")
        known = {id(each.inner): each for each in held}

        def outer(leaf: Any) -> Any:
            if not isinstance(leaf, torch.Tensor):
                return leaf
            return known[id(leaf)] if id(leaf) in known else Held(leaf)

        return tree_map(outer, found) if there else found


def _inner(leaf: Any) -> Any:
    if isinstance(leaf, torch.device):
        return torch.device("cpu") if leaf.type == _TYPE else leaf
    return leaf.inner if isinstance(leaf, Held) else leaf


def _tensors(found: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(found) if isinstance(leaf, torch.Tensor)]


def set_up() -> None:
    """Give this process the device."""
    module = SimpleNamespace(
        is_initialized=lambda: True, is_available=lambda: True, current_device=lambda: 0, device_count=lambda: 1,
        _is_in_bad_fork=lambda: False, manual_seed_all=lambda seed: None, empty_cache=lambda: None,
        get_amp_supported_dtype=lambda: [torch.bfloat16, torch.float16], synchronize=lambda *_: None,
    )  # fmt: skip
    backend_registration._setup_privateuseone_for_python_backend(_TYPE, backend_module=module)
    torch._C._set_only_lift_cpu_tensors(True)  # `torch.tensor(…, device=…)` is made on the CPU, and then moved


@contextmanager
def rules(*lacks: str) -> Iterator[None]:
    """Hold to the device's rules."""
    with _Rules(lacks):
        yield
