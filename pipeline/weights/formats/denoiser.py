"""`denoiser`: the UNet or transformer alone, under diffusers' names."""

from ..change import Change
from ..format import Claim, Format, Keys
from ..job import Job, Written
from ..provenance import save_tensors


def write_denoiser(job: Job) -> Written:
    """Write `{name}.safetensors`."""
    tensors = {name: job.cast(value) for name, value in job.denoiser.module.state_dict().items()}
    path = job.folder / f"{job.name}.safetensors"
    save_tensors(tensors, path, job.header("denoiser"))
    return Written(path, [path])


def read_denoiser(keys: Keys) -> Claim:
    """A file whose every name is one of the network's own tells where each weight leads to."""
    names = set(keys.names) if keys.names <= set(keys.shapes) else set()
    return names, (Change(name, keys.get(name), absolute=True) for name in sorted(names))


FORMAT = Format(write_denoiser, rank=5, read=read_denoiser)
