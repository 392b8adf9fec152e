"""Where weights came from: the header metadata of every file that Turpentine writes."""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import UserError
from ..lineage import lineage_of
from ..models import Denoiser
from ..recipe import Recipe

_PACKAGES = ("torch", "diffusers", "transformers", "safetensors", "open_clip_torch", "nudenet")


def versions() -> dict[str, str]:
    """Versions of Turpentine and of what its numbers depend on."""
    from ..version import __version__

    found = {"turpentine": __version__}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Hash of names, dtypes, shapes and values, whatever file they lie in."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def header(denoiser: Denoiser, recipe: Recipe, base_sha256: str, figures: Mapping[str, object]) -> dict[str, str]:
    """The metadata of a weights file: modelspec fields, then Turpentine's own.

    Args:
        denoiser: the unlearned model.
        recipe: what made it.
        base_sha256: `tensors_sha256` of the denoiser before unlearning.
        figures: audit figures, JSON-able.
    """
    lineage = lineage_of(recipe.model)
    forgotten = [name for name in lineage.forgotten if name not in recipe.concepts]
    return {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": denoiser.family,
        "modelspec.implementation": "diffusers",
        "modelspec.title": f"{Path(recipe.model).name} without {recipe.concept}",
        "modelspec.date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "turpentine.base_model": recipe.model,
        "turpentine.base_sha256": base_sha256,
        "turpentine.concept": recipe.concept,
        "turpentine.origin": lineage.origin,
        "turpentine.forgotten": json.dumps([*forgotten, *recipe.concepts]),
        "turpentine.method": recipe.method.name,
        "turpentine.seed": str(recipe.seed),
        "turpentine.recipe": recipe.to_yaml(),
        "turpentine.versions": json.dumps(versions()),
        "turpentine.audits": json.dumps(figures),
    }


def read_header(path: Path) -> dict[str, str]:
    """Metadata of a safetensors file.

    Raises:
        UserError: not a safetensors file.
    """
    if path.suffix.lower() in (".ckpt", ".pt", ".pth", ".bin", ".pkl"):
        raise UserError(f"{path} is a pickle, which can run any code when it is opened; expected a .safetensors file.")
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise UserError(f"can't read {path} as safetensors: {error}") from None
