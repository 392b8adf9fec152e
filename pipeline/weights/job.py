"""The argument and the result of every writer of weights."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from ..models import Denoiser
from ..schema.results import LoraFit
from ..support.errors import UserError
from ..support.progress import Progress, Silent
from .factors import Adapter, extract

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass
class Job:
    """One unlearned model that is to be written.

    Attributes:
        denoiser: the model; writers leave it as it is.
        folder: where the files go, for example RUN/weights.
        name: file name without ending.
        dtype: "fp32", "fp16" or "bf16".
        metadata: see `provenance.header`.
        base: the denoiser's `state_dict` before unlearning, for the formats that hold a difference.
        rank: of an extracted LoRA.
        energy: share of each layer's squared difference that an extracted LoRA keeps, instead of `rank`.
        trained: a LoRA that was trained, written instead of an extracted one.
        progress: told of long work.
    """

    denoiser: Denoiser
    folder: Path
    name: str
    dtype: str
    metadata: Mapping[str, str]
    base: Mapping[str, Tensor] | None = None
    rank: int = 16
    energy: float | None = None
    trained: Adapter | None = None
    progress: Progress = field(default_factory=Silent)

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype of floating-point tensors on disk."""
        return DTYPES[self.dtype]

    @cached_property
    def difference(self) -> "Difference":
        """The unlearned weights minus the base's.

        Raises:
            UserError: no base was given.
        """
        if self.base is None:
            raise UserError("the formats lora, lora_diffusers and delta need the weights before unlearning; got none.")
        return Difference(self.denoiser.module.state_dict(), self.base)

    @cached_property
    def adapter(self) -> Adapter:
        """The trained LoRA, or one extracted from the difference."""
        return self.trained or extract(self.denoiser.module, self.difference, self.rank, self.energy, self.progress)

    def header(self, kind: str, **more: str) -> dict[str, str]:
        """The metadata of a file of format `kind`."""
        return {**self.metadata, "turpentine.format": kind, "turpentine.dtype": self.dtype, **more}

    def cast(self, tensor: Tensor) -> Tensor:
        """As it is to be on disk: floating-point tensors in the job's dtype, others as they are.

        Raises:
            UserError: see `check_fits`.
        """
        check_fits(tensor, self.dtype)
        kept = tensor.detach().to("cpu", self.torch_dtype if tensor.is_floating_point() else tensor.dtype)
        return kept.contiguous()


def check_fits(tensor: Tensor, dtype: str) -> None:
    """Refuse finite values that a number format can't hold: they would become infinite without a word.

    Args:
        tensor: what is to be written.
        dtype: a name of `DTYPES`.

    Raises:
        UserError: a value too large for it.
    """
    if tensor.is_floating_point() and tensor.numel():
        largest = torch.finfo(DTYPES[dtype]).max
        over = tensor.abs().nan_to_num(0.0, posinf=0.0).max().item()
        if over > largest:
            raise UserError(
                f"the weights hold values up to {over:.4g}, too large for {dtype}, whose largest number is "
                f"{largest:.4g}. Write them as bf16 or fp32 (--dtype)."
            )


def check_dtype(denoiser: Denoiser, dtype: str) -> None:
    """Refuse a number format that can't hold the weights of a model's networks.

    Raises:
        UserError: an unknown format; see `check_fits`.
    """
    if dtype not in DTYPES:
        raise UserError(f"dtype must be one of {list(DTYPES)}, got {dtype!r}.")
    for part in denoiser.pipeline.components.values():
        for tensor in part.state_dict().values() if isinstance(part, nn.Module) else ():
            check_fits(tensor, dtype)


class Difference(Mapping[str, Tensor]):
    """after - before, float32 on the CPU; each tensor is worked out when it is asked for."""

    def __init__(self, after: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> None:
        if set(after) != set(before):
            odd = sorted(set(after) ^ set(before))[0]
            raise UserError(f"the base has other weights than the unlearned model (for example {odd}).")
        self.after, self.before = after, before

    def __getitem__(self, name: str) -> Tensor:
        before = self.before[name]
        return self.after[name].detach().to(before.device, torch.float32) - before.float()

    def __iter__(self) -> Iterator[str]:
        return iter(self.after)

    def __len__(self) -> int:
        return len(self.after)


@dataclass(frozen=True)
class Written:
    """The files that a writer made.

    Attributes:
        path: the file or folder.
        files: the files with the denoiser's weights.
        fit: how well a LoRA fits, for the LoRA formats.
    """

    path: Path
    files: list[Path]
    fit: LoraFit | None = None
