"""Runs that give the same bits again on a CUDA GPU (`training.deterministic`).

On a CPU a run does so anyway: all noise comes from seeded generators on the CPU, and the sums of its kernels have one
order, which depends on the processor, the number of threads and PyTorch's version. On CUDA some kernels add in the
order in which threads happen to end, and cuDNN and cuBLAS choose algorithms and workspaces as they go. Those are
switched off here, for the whole run: the training images that a model draws are part of what it is trained on.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..models import Denoiser
from ..models.device import one_pass
from ..models.files import reason_of
from ..support.errors import UserError

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
_FIXED = (":4096:8", ":16:8")
"""Workspaces with which cuBLAS repeats itself: eight buffers of 4096 KiB, or of 16, which is slower."""


@contextmanager
def repeatable(wanted: bool, device: str | torch.device = "auto") -> Iterator[None]:
    """Let PyTorch take only kernels that repeat themselves; afterwards it is as it was.

    Args:
        wanted: False changes nothing.
        device: where the work is done, as a recipe or a model names it.

    Raises:
        UserError: cuBLAS has begun, or was told to begin, with workspaces that don't repeat themselves.
    """
    if not wanted:
        yield
        return
    if str(device).partition(":")[0] in ("auto", "cuda") and torch.cuda.is_available():
        _fix_workspace()
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    chosen = cudnn.deterministic, cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = chosen
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def check_repeatable(denoiser: Denoiser) -> None:
    """Try one pass of the network, forward and backward, with such kernels alone.

    Raises:
        UserError: an operation of this model has none on its device.
    """
    with repeatable(True, denoiser.device):
        try:
            one_pass(denoiser)
        except RuntimeError as error:
            if "deterministic" not in str(error):
                raise
            raise UserError(
                f"training.deterministic (--deterministic): this model has an operation that never repeats itself on "
                f"{denoiser.device} ({reason_of(error)}). Set it to false."
            ) from None


def _fix_workspace() -> None:
    """Choose cuBLAS's workspaces, which it does once, when it begins."""
    given = os.environ.get(_WORKSPACE)
    if given in _FIXED:
        return
    if given is not None or torch.cuda.is_initialized():
        found = f"found {given!r}" if given is not None else "CUDA has begun without it"
        raise UserError(
            f"training.deterministic needs {_WORKSPACE}={_FIXED[0]} in the environment before Python starts, and "
            f"{found}. Set it and start again."
        )
    os.environ[_WORKSPACE] = _FIXED[0]
