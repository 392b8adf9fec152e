"""Where weights came from: the header metadata of every file that Turpentine writes."""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..models import Denoiser
from ..models.lineage import lineage_of
from ..support.errors import UserError
from ..support.files import replacing

if TYPE_CHECKING:  # the recipe offers the formats, so it imports this package
    from ..schema.recipe import Recipe

_PACKAGES = ("torch", "diffusers", "transformers", "safetensors", "open_clip_torch", "nudenet")
_TENSORS = "turpentine.tensors_sha256"
_PREDICTION = {"epsilon": "epsilon", "v_prediction": "v"}


def versions() -> dict[str, str]:
    """Versions of Turpentine and of what its numbers depend on."""
    from ..support.version import __version__

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


def base_hashes(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Hashes by which a base is known again: as it is, and as it would be loaded in half precision."""
    hashes = {"turpentine.base_sha256": tensors_sha256(state)}
    if all(tensor.dtype == torch.float32 for tensor in state.values() if tensor.is_floating_point()):
        for name, dtype in (("fp16", torch.float16), ("bf16", torch.bfloat16)):
            hashes[f"turpentine.base_sha256_{name}"] = tensors_sha256(cast_state(state, dtype))
    return hashes


def cast_state(state: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """The same tensors, floating-point ones in another dtype."""
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def header(
    denoiser: Denoiser, recipe: "Recipe", base: Mapping[str, str] | str, figures: Mapping[str, object]
) -> dict[str, str]:
    """The metadata of a weights file: modelspec fields, then Turpentine's own.

    Args:
        denoiser: the unlearned model.
        recipe: what made it.
        base: `base_hashes` of the denoiser before unlearning, or its `tensors_sha256` alone.
        figures: audit figures, JSON-able.
    """
    hashes = {"turpentine.base_sha256": base} if isinstance(base, str) else base
    predicted = _PREDICTION.get(denoiser.pipeline.scheduler.config.get("prediction_type"))
    lineage = lineage_of(recipe.model)
    forgotten = [name for name in lineage.forgotten if name not in recipe.concepts]
    return {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": denoiser.family,
        "modelspec.implementation": "diffusers",
        **({"modelspec.prediction_type": predicted} if predicted else {}),
        "modelspec.title": f"{Path(recipe.model).name} without {recipe.concept}",
        "modelspec.date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "turpentine.base_model": recipe.model,
        **hashes,
        "turpentine.concept": recipe.concept,
        "turpentine.origin": lineage.origin,
        "turpentine.forgotten": json.dumps([*forgotten, *recipe.concepts]),
        "turpentine.method": recipe.method.name,
        "turpentine.seed": str(recipe.seed),
        "turpentine.recipe": recipe.to_yaml(),
        "turpentine.versions": json.dumps(versions()),
        "turpentine.audits": json.dumps(figures),
    }


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write a safetensors file whole or not at all, the hash of its tensors in its header.

    Tied tensors (the embeddings of a T5) are written under each of their names.

    Raises:
        UserError: the disk is full, or the folder can't be written.
    """
    places = {name: tensor.untyped_storage().data_ptr() for name, tensor in tensors.items()}
    first = {place: name for name, place in reversed(places.items())}
    untied = {name: tensor if first[places[name]] == name else tensor.clone() for name, tensor in tensors.items()}
    with replacing(path) as partial:
        save_file(untied, partial, metadata={**metadata, _TENSORS: tensors_sha256(tensors)})


def check_tensors(path: Path) -> bool | None:
    """Whether the tensors of a file are those that its header's hash was made of; None without a hash.

    Raises:
        UserError: not a safetensors file.
    """
    expected = read_header(path).get(_TENSORS)
    return None if expected is None else tensors_sha256(load_file(path)) == expected


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
