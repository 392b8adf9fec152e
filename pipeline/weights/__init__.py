"""Reading and writing weights: safetensors only, with their provenance in the header."""

from .factors import Adapter, Factors
from .formats import FORMATS, check_formats, needs_base, snapshot, write_weights
from .job import DTYPES, Job, check_dtype
from .provenance import (
    BaseHashes,
    base_hashes,
    check_tensors,
    header,
    kinship,
    read_header,
    tensors_sha256,
    versions,
)

__all__ = [
    "DTYPES",
    "FORMATS",
    "Adapter",
    "BaseHashes",
    "Factors",
    "Job",
    "base_hashes",
    "check_dtype",
    "check_formats",
    "check_tensors",
    "header",
    "kinship",
    "needs_base",
    "read_header",
    "snapshot",
    "tensors_sha256",
    "versions",
    "write_weights",
]
