"""Methods of unlearning: one file each, found by name. Importing this loads no torch."""

from .config import MethodConfig
from .registry import MethodSpec, build_method, find, names, register

__all__ = ["MethodConfig", "MethodSpec", "build_method", "find", "names", "register"]
