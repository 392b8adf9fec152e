"""Write an unlearned model: a complete diffusers folder, or the denoiser alone."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..errors import UserError
from ..files import replacing, sha256
from ..models import Denoiser
from ..results import WeightsFile

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def write_weights(
    denoiser: Denoiser, folder: Path, formats: Sequence[str], dtype: str, metadata: dict[str, str], name: str
) -> list[WeightsFile]:
    """Write each format under `folder`, with `metadata` in the denoiser's header.

    Args:
        denoiser: the model; unchanged afterwards.
        folder: for example RUN/weights.
        formats: of "diffusers" (folder `diffusers/`) and "denoiser" (`{name}.safetensors`).
        dtype: "fp32", "fp16" or "bf16".
        metadata: see `provenance.header`.
        name: file name without ending.

    Returns:
        One record per format; the path is relative to the parent of `folder`. A diffusers folder's
        hash and size are those of its denoiser file.
    """
    written = []
    for each in formats:
        if each == "diffusers":
            written.append(_record(_diffusers(denoiser, folder / "diffusers", dtype, metadata), folder, each))
        elif each == "denoiser":
            written.append(_record(_denoiser(denoiser, folder / f"{name}.safetensors", dtype, metadata), folder, each))
        else:
            raise UserError(f"weights format must be 'diffusers' or 'denoiser', got {each!r}.")
    return written


def _record(file: Path, folder: Path, kind: str) -> WeightsFile:
    shown = folder / "diffusers" if kind == "diffusers" else file
    return WeightsFile(
        path=shown.relative_to(folder.parent).as_posix(), format=kind, sha256=sha256(file), bytes=file.stat().st_size
    )


def _denoiser(denoiser: Denoiser, path: Path, dtype: str, metadata: dict[str, str]) -> Path:
    tensors = {k: v.detach().to("cpu", DTYPES[dtype]).contiguous() for k, v in denoiser.module.state_dict().items()}
    with replacing(path) as partial:
        save_file(tensors, partial, metadata=metadata)
    return path


def _diffusers(denoiser: Denoiser, folder: Path, dtype: str, metadata: dict[str, str]) -> Path:
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        denoiser.save(partial, DTYPES[dtype])
        main = "unet" if (partial / "unet").is_dir() else "transformer"
        for file in (partial / main).glob("*.safetensors"):
            save_file(load_file(file), file, metadata=metadata)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"can't write {folder}: {reason}. Free some space or choose another --out.") from None
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return next((folder / main).glob("*.safetensors"))
