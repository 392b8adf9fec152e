"""Model families: one file each, chosen from the pipeline's class.

The names load their modules when they are first used: the protocol alone needs neither torch nor diffusers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .lineage import ASSETS, BUNDLED
    from .load import choose_device, class_names, load_denoiser
    from .protocol import Conditioning, Denoiser, Sampling
    from .registry import ADAPTERS, borrowed, wrap_pipeline

_HOMES = {
    "ADAPTERS": "registry",
    "ASSETS": "lineage",
    "BUNDLED": "lineage",
    "Conditioning": "protocol",
    "Denoiser": "protocol",
    "Sampling": "protocol",
    "borrowed": "registry",
    "choose_device": "load",
    "class_names": "load",
    "load_denoiser": "load",
    "wrap_pipeline": "registry",
}

__all__ = [
    "ADAPTERS",
    "ASSETS",
    "BUNDLED",
    "Conditioning",
    "Denoiser",
    "Sampling",
    "borrowed",
    "choose_device",
    "class_names",
    "load_denoiser",
    "wrap_pipeline",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
