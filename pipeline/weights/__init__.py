"""Reading and writing weights: safetensors only, with their provenance in the header."""

from .provenance import header, read_header, tensors_sha256, versions
from .write import DTYPES, write_weights

__all__ = ["DTYPES", "header", "read_header", "tensors_sha256", "versions", "write_weights"]
