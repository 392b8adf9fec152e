"""`diffusers`: the whole pipeline as a folder that `DiffusionPipeline.from_pretrained` reads."""

import re
from pathlib import Path

from safetensors.torch import load_file

from ...models.family import Family
from ...support.files import replacing
from ..format import PIPELINE, Format
from ..job import Job, Written, check_dtype
from ..provenance import save_tensors

_WEIGHTS = re.compile(r"(diffusion_pytorch_)?model(\.fp16)?(-\d{5}-of-\d{5})?\.safetensors(\.index(\.fp16)?\.json)?")
"""Names that diffusers and transformers give to weights: of another number of shards, they would be read too."""


def write_diffusers(job: Job, folder: Path | None = None) -> Written:
    """Write the folder, its denoiser's files (one or several shards) with the provenance header.

    Of a folder that it replaces, files that are no weights of a pipeline stay.

    Args:
        job: what to write.
        folder: where to, instead of `diffusers/` in the job's folder.

    Raises:
        UserError: see `check_dtype`.
    """
    check_dtype(job.denoiser, job.dtype)
    folder = folder or job.folder / "diffusers"
    metadata = job.header("diffusers")
    with replacing(folder, stale=lambda file: bool(_WEIGHTS.fullmatch(file.name))) as partial:
        job.denoiser.save(partial, job.torch_dtype)
        for file in (partial / job.denoiser.component).glob("*.safetensors"):
            save_tensors(load_file(file), file, metadata)
    return Written(folder, sorted((folder / job.denoiser.component).glob("*.safetensors")))


def load_diffusers(path: str, family: type[Family] | None) -> str:
    """As diffusers loads any folder."""
    return f"{PIPELINE}pipeline = DiffusionPipeline.from_pretrained({path})"


FORMAT = Format(write_diffusers, rank=0, load=load_diffusers)
