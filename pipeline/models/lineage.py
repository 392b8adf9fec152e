"""What a model came from, and what was forgotten in it before: read from the header of its weights."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError, safe_open

_INDEX = "model_index.json"
COMPONENTS = ("unet", "transformer")
"""Where diffusers' pipelines, and so their folders, keep the network that is unlearned."""


@dataclass(frozen=True)
class Lineage:
    """The history of a model.

    Attributes:
        origin: the model at the start of it, as the user called it then.
        forgotten: what was removed on the way here, the first first.
    """

    origin: str
    forgotten: tuple[str, ...] = ()


def lineage_of(model: str) -> Lineage:
    """Read the history of a model; one that Turpentine did not write is its own origin.

    Args:
        model: a run folder, a diffusers folder, a weights file, or anything else.
    """
    file = _weights_file(Path(model))
    metadata = _metadata(file) if file else {}
    concept, base = metadata.get("turpentine.concept"), metadata.get("turpentine.base_model")
    if concept is None or base is None:
        return Lineage(model)
    forgotten = json.loads(metadata.get("turpentine.forgotten", json.dumps([concept])))
    return Lineage(metadata.get("turpentine.origin", base), tuple(forgotten))


def pipeline_class_of(model: str) -> str | None:
    """Name of the diffusers pipeline class of a model, as far as it is known without the network.

    Args:
        model: a diffusers folder, or a hub id that has been downloaded; None comes of anything else.
    """
    folder = Path(model).expanduser()
    if not (folder / _INDEX).exists():
        try:
            found = try_to_load_from_cache(model, _INDEX)
        except HFValidationError:
            return None
        folder = Path(found).parent if isinstance(found, str) else folder
    return model_index(folder).get("_class_name")


def model_index(folder: Path) -> dict[str, Any]:
    """`model_index.json` of a diffusers folder; empty where there is none that can be read."""
    try:
        found = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def denoiser_files(folder: Path) -> list[Path]:
    """The files with the denoiser's weights in a diffusers folder, by name."""
    return [file for part in COMPONENTS for file in sorted((folder / part).glob("*.safetensors"))]


def _weights_file(path: Path) -> Path | None:
    if path.is_file():
        return path if path.suffix == ".safetensors" else None
    for folder in (path / "weights" / "diffusers", path):
        if found := denoiser_files(folder):
            return found[0]
    return None


def _metadata(file: Path) -> dict[str, str]:
    try:
        with safe_open(file, "pt") as opened:
            return opened.metadata() or {}
    except (OSError, SafetensorError):
        return {}  # whoever loads the weights will tell what is wrong with them
