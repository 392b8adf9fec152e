"""The formats by name, and the one call that writes them.

A format is the file of its name in this folder, which holds a `Format` named FORMAT, and its line in
`schema.choices.WEIGHT_FORMATS`.
"""

from collections.abc import Sequence
from importlib import import_module

from torch import Tensor, nn

from ...models import Denoiser
from ...schema.choices import WEIGHT_FORMATS
from ...schema.results import WeightsFile
from ...support.errors import UserError
from ...support.files import sha256
from ..format import Format
from ..job import Job


def load_format(name: str) -> Format:
    """The format that the file of its name describes."""
    found: Format = import_module(f".{name}", __name__).FORMAT
    return found


FORMATS = {name: load_format(name) for name in WEIGHT_FORMATS}
"""Every format by its name, in the order in which they are offered."""


def needs_base(formats: Sequence[str]) -> bool:
    """Tell whether any of the formats holds a difference from the weights before unlearning."""
    return any(FORMATS[each].of_difference for each in formats)


def check_formats(denoiser: Denoiser, formats: Sequence[str]) -> None:
    """Refuse what this model can't be written as, before any work is done.

    Raises:
        UserError: an unknown format, or one that this model can't have.
    """
    unknown = [each for each in formats if each not in FORMATS]
    if unknown:
        raise UserError(f"weights format must be one of {list(FORMATS)}, got {unknown[0]!r}.")
    for each in formats:
        FORMATS[each].check(denoiser)


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    """A copy of a network's weights on the CPU, to take differences from."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in module.state_dict().items()}


def write_weights(job: Job, formats: Sequence[str]) -> list[WeightsFile]:
    """Write each format into the job's folder, with the job's metadata in the denoiser's header.

    Args:
        job: the model, which is unchanged afterwards, and what to write of it.
        formats: names of `FORMATS`.

    Returns:
        One record per format; the path is relative to the parent of the folder. A diffusers folder's
        hash and size are those of its denoiser's files, one after another in the order of their names.

    Raises:
        UserError: an unknown format, or one that this model can't have; nothing is written then.
    """
    check_formats(job.denoiser, formats)
    records = []
    for each in formats:
        written = FORMATS[each].write(job)
        records.append(
            WeightsFile(
                path=written.path.relative_to(job.folder.parent).as_posix(),
                format=each,
                sha256=sha256(*written.files),
                bytes=sum(file.stat().st_size for file in written.files),
                lora=written.fit,
            )
        )
    return records
