"""`denoiser`: the UNet or transformer alone, under diffusers' names."""

from .job import Job, Written
from .provenance import save_tensors


def write_denoiser(job: Job) -> Written:
    """Write `{name}.safetensors`."""
    tensors = {name: job.cast(value) for name, value in job.denoiser.module.state_dict().items()}
    path = job.folder / f"{job.name}.safetensors"
    save_tensors(tensors, path, job.header("denoiser"))
    return Written(path, [path])
