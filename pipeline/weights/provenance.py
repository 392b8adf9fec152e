"""Where weights came from: the header metadata of every file that Turpentine writes."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..models import Denoiser
from ..models.lineage import Lineage, Removal
from ..prompts.concepts import join_concepts, same_concept
from ..support.errors import UserError
from ..support.files import replacing
from ..support.version import __version__
from .job import DTYPES

_PACKAGES = ("torch", "diffusers", "transformers", "safetensors", "open_clip_torch", "nudenet")
_BASE, _RESULT = "turpentine.base_sha256", "turpentine.result_sha256"
_TENSORS = "turpentine.tensors_sha256"
HALVES = {name: dtype for name, dtype in DTYPES.items() if dtype != torch.float32}
"""The formats in which a base is stored in half the space."""
_PREDICTION = {"epsilon": "epsilon", "v_prediction": "v"}


def versions() -> dict[str, str]:
    """Versions of Turpentine and of what its numbers depend on."""
    found = {"turpentine": __version__}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def tensors_sha256(tensors: Mapping[str, Tensor], *dtypes: torch.dtype) -> str:
    """Hash of names, dtypes, shapes and values, whatever file they lie in.

    Args:
        tensors: by their names.
        dtypes: floating-point tensors are cast to these first, one after another.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu()
        for dtype in dtypes if tensor.is_floating_point() else ():
            tensor = tensor.to(dtype)
        tensor = tensor.contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class BaseHashes:
    """Hashes by which weights are known again: a base, or what a run ended with.

    Attributes:
        sha256: of the tensors in float32, whatever format they are held in.
        fp16: as they would be loaded in that precision; None where they come in another half one.
        bf16: the same.
    """

    sha256: str
    fp16: str | None = None
    bf16: str | None = None

    def fields(self, key: str = _BASE) -> dict[str, str]:
        """The fields of a header that hold them."""
        named = {"": self.sha256, "_fp16": self.fp16, "_bf16": self.bf16}
        return {f"{key}{ending}": value for ending, value in named.items() if value}

    @classmethod
    def from_header(cls, metadata: Mapping[str, str], key: str = _BASE) -> "BaseHashes":
        """Read what `fields` wrote; empty where a header says nothing."""
        return cls(metadata.get(key, ""), metadata.get(f"{key}_fp16"), metadata.get(f"{key}_bf16"))

    @classmethod
    def of_result(cls, metadata: Mapping[str, str]) -> "BaseHashes":
        """The hashes of the unlearned weights that a header is about; empty in files of earlier versions."""
        return cls.from_header(metadata, _RESULT)


def base_hashes(state: Mapping[str, Tensor]) -> BaseHashes:
    """The hashes of a network's tensors."""
    own = {tensor.dtype for tensor in state.values() if tensor.is_floating_point()}
    half = {name: tensors_sha256(state, dtype) for name, dtype in HALVES.items() if own <= {torch.float32, dtype}}
    return BaseHashes(tensors_sha256(state, torch.float32), **half)


Kinship = Literal["same", "half copy", "original"]


def kinship(base: BaseHashes, state: Mapping[str, Tensor]) -> Kinship | None:
    """Tell what weights are to a base, whatever dtype they are loaded in.

    Args:
        base: the hashes of the base.
        state: the tensors of a network.

    Returns:
        "same": the same values. "half copy": the base, rounded to float16 or bfloat16. "original": the base is
        what these weights become when they are so rounded. None: other weights, by however little.
    """
    if not base.sha256:
        return None
    rounded = {base.fp16, base.bf16} - {None}
    floats = [tensor for tensor in state.values() if tensor.is_floating_point()]
    for dtypes in ((), (torch.float32,)) if any(tensor.dtype != torch.float32 for tensor in floats) else ((),):
        found = tensors_sha256(state, *dtypes)
        if found == base.sha256:
            return "same"
        if found in rounded:
            return "half copy"
    for half in HALVES.values():
        found = tensors_sha256(state, half)
        if not all(torch.equal(tensor, tensor.to(half).to(tensor.dtype)) for tensor in floats):
            if base.sha256 in (found, tensors_sha256(state, half, torch.float32)):
                return "original"
        elif found == base.sha256:  # nothing was lost by the cast
            return "same"
        elif found in rounded:
            return "half copy"
    return None


def header(
    denoiser: Denoiser,
    base: BaseHashes,
    result: BaseHashes,
    *,
    model: str,
    lineage: Lineage,
    concepts: Sequence[str],
    method: str,
    seed: int,
    recipe: str,
    figures: Mapping[str, object],
) -> dict[str, str]:
    """The metadata of a weights file: modelspec fields, then Turpentine's own.

    Args:
        denoiser: the unlearned model.
        base: of its weights before unlearning.
        result: of its weights afterwards.
        model: the base, as the user called it.
        lineage: its history.
        concepts: what was removed.
        method: how.
        seed: of the run.
        recipe: the whole recipe, as YAML.
        figures: audit figures, JSON-able.
    """
    scheduler = denoiser.pipeline.scheduler.config
    predicted = _PREDICTION.get(scheduler.get("prediction_type"))
    concept = join_concepts(concepts)
    forgotten = (name for name in lineage.forgotten if not any(same_concept(name, concept) for concept in concepts))
    removal = Removal(tuple(concepts), base.sha256, result.sha256)
    now = Lineage(lineage.origin, (*forgotten, *concepts), (*lineage.removals, removal))
    return {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": denoiser.family,
        "modelspec.implementation": "diffusers",
        **({"modelspec.prediction_type": predicted} if predicted else {}),
        **({"ss_zero_terminal_snr": "True"} if scheduler.get("rescale_betas_zero_snr") else {}),
        "modelspec.title": f"{Path(model).name} without {concept}",
        "modelspec.date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "turpentine.base_model": model,
        **base.fields(),
        **result.fields(_RESULT),
        "turpentine.concept": concept,
        **now.fields(),
        "turpentine.method": method,
        "turpentine.seed": str(seed),
        "turpentine.recipe": recipe,
        "turpentine.versions": json.dumps(versions()),
        "turpentine.audits": json.dumps(figures),
    }


def applied_header(
    metadata: Mapping[str, str], family: str, file: str, strength: float, result: BaseHashes
) -> dict[str, str]:
    """The metadata of a model into which the weights of a file were put.

    Args:
        metadata: of that file.
        family: of the model.
        file: its name.
        strength: 0 = nothing, 1 = as unlearned.
        result: of the weights that came out.
    """
    kept = _whole_model(metadata, family) | result.fields(_RESULT)
    kept |= {"turpentine.applied": file, "turpentine.strength": str(strength)}
    kept.pop("turpentine.lora", None)
    return kept


def undone_header(
    metadata: Mapping[str, str], family: str, model: str, concepts: Sequence[str], lineage: Lineage, result: BaseHashes
) -> dict[str, str]:
    """The metadata of a model of which a removal was taken back.

    Args:
        metadata: of the model before.
        family: of the model.
        model: as the user called it before.
        concepts: what was taken back.
        lineage: its history now.
        result: of the weights that came out.
    """
    dropped = ("concept", "method", "seed", "recipe", "audits", "applied", "strength", "lora")
    kept = _whole_model(metadata, family)
    before = BaseHashes.of_result(metadata)
    for key in [key for key in kept if key.startswith((_BASE, _RESULT, *(f"turpentine.{name}" for name in dropped)))]:
        del kept[key]
    return kept | {
        "modelspec.title": f"{Path(model).name} with {join_concepts(concepts)} again",
        "modelspec.date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "turpentine.base_model": model,
        **before.fields(),
        **result.fields(_RESULT),
        **lineage.fields(),
        "turpentine.taken_back": join_concepts(concepts),
        "turpentine.versions": json.dumps(versions()),
    }


def _whole_model(metadata: Mapping[str, str], family: str) -> dict[str, str]:
    kept = {key: value for key, value in metadata.items() if key.startswith(("modelspec.", "turpentine."))}
    return kept | {"format": "pt", "modelspec.architecture": family, "modelspec.implementation": "diffusers"}


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
    """Tell whether the tensors of a file are those that its header's hash was made of; None without a hash.

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
    if path.is_dir():
        raise UserError(f"expected a .safetensors file, got the folder {path}. Name a file in it.")
    if path.suffix.lower() in (".ckpt", ".pt", ".pth", ".bin", ".pkl"):
        raise UserError(f"{path} is a pickle, which can run any code when it is opened; expected a .safetensors file.")
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise UserError(f"can't read {path} as safetensors: {error}") from None
