"""The formats by name, and the one call that writes them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from ..models import Denoiser
from ..schema.results import WeightsFile
from ..support.errors import UserError
from ..support.files import sha256
from ..support.progress import Progress, Silent
from .delta import write_delta
from .denoiser_file import write_denoiser
from .diffusers_folder import write_diffusers
from .factors import Adapter
from .job import Job, Written
from .layouts import denoiser_layout
from .lora import names_are_diffusers, write_lora, write_lora_diffusers
from .single_file import check_single_file, write_single_file

FORMATS: dict[str, Callable[[Job], Written]] = {
    "diffusers": write_diffusers,
    "denoiser": write_denoiser,
    "single_file": write_single_file,
    "lora": write_lora,
    "lora_diffusers": write_lora_diffusers,
    "delta": write_delta,
}

_OF_DIFFERENCE = ("lora", "lora_diffusers", "delta")


def needs_base(formats: Sequence[str]) -> bool:
    """Whether any of the formats holds a difference from the weights before unlearning."""
    return any(each in _OF_DIFFERENCE for each in formats)


def check_formats(denoiser: Denoiser, formats: Sequence[str]) -> None:
    """Refuse what this model can't be written as, before any work is done.

    Raises:
        UserError: an unknown format, or one that this model can't have.
    """
    unknown = [each for each in formats if each not in FORMATS]
    if unknown:
        raise UserError(f"weights format must be one of {list(FORMATS)}, got {unknown[0]!r}.")
    if "single_file" in formats:
        check_single_file(denoiser)
    if "delta" in formats or ("lora" in formats and not names_are_diffusers(denoiser.module)):
        denoiser_layout(denoiser.module)


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    """A copy of a network's weights on the CPU, to take differences from."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in module.state_dict().items()}


def write_weights(
    denoiser: Denoiser,
    folder: Path,
    formats: Sequence[str],
    dtype: str,
    metadata: Mapping[str, str],
    name: str,
    *,
    base: Mapping[str, Tensor] | None = None,
    rank: int = 16,
    energy: float | None = None,
    trained: Adapter | None = None,
    progress: Progress | None = None,
) -> list[WeightsFile]:
    """Write each format under `folder`, with `metadata` in the denoiser's header.

    Args:
        denoiser: the model; unchanged afterwards.
        folder: for example RUN/weights.
        formats: names of `FORMATS`.
        dtype: "fp32", "fp16" or "bf16".
        metadata: see `provenance.header`.
        name: file name without ending.
        base: see `Job`, with `rank`, `energy`, `trained` and `progress`.
        rank: of an extracted LoRA.
        energy: share of squared difference that an extracted LoRA keeps, in place of `rank`.
        trained: a trained LoRA.
        progress: told of long work.

    Returns:
        One record per format; the path is relative to the parent of `folder`. A diffusers folder's
        hash and size are those of its denoiser's files, one after another in the order of their names.

    Raises:
        UserError: an unknown format, or one that this model can't have; nothing is written then.
    """
    check_formats(denoiser, formats)
    job = Job(denoiser, folder, name, dtype, metadata, base, rank, energy, trained, progress or Silent())
    records = []
    for each in formats:
        written = FORMATS[each](job)
        records.append(
            WeightsFile(
                path=written.path.relative_to(folder.parent).as_posix(),
                format=each,
                sha256=sha256(*written.files),
                bytes=sum(file.stat().st_size for file in written.files),
                lora=written.fit,
            )
        )
    return records
