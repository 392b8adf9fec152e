"""`diffusers`: the whole pipeline as a folder that `DiffusionPipeline.from_pretrained` reads."""

import shutil
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from ..support.errors import UserError
from .job import Job, Written
from .provenance import save_tensors


def write_diffusers(job: Job, folder: Path | None = None) -> Written:
    """Write the folder, its denoiser's files (one or several shards) with the provenance header.

    Args:
        job: what to write.
        folder: where to, in place of `diffusers/` in the job's folder.
    """
    folder = folder or job.folder / "diffusers"
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    metadata = job.header("diffusers")
    try:
        job.denoiser.save(partial, job.torch_dtype)
        for file in (partial / job.component).glob("*.safetensors"):
            save_tensors(load_file(file), file, metadata)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"can't write {folder}: {reason}. Free some space or choose another --out.") from None
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return Written(folder, sorted((folder / job.component).glob("*.safetensors")))
