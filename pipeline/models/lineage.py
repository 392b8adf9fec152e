"""The history of a model: its origin, and the concepts that were removed from it before.

Both are read from what is written in its files: Turpentine's header in the weights of a model that it made, and
a key of `model_index.json` in the bundled ones. Nothing is concluded from how a file or folder is called.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ..support.places import user_path
from ..worlds import WORLDS

ASSETS = Path(__file__).resolve().parents[2] / "assets"
BUNDLED = {name: ASSETS / name for name in (*(name for world in WORLDS.values() for name in world.models), "digits")}
"""Models that come with the package: name -> diffusers folder."""

ORIGIN = "_turpentine_origin"
"""Key of a bundled model's `model_index.json` with its name; diffusers leaves keys with an underscore alone."""

_INDEX = "model_index.json"
RECIPE, RECORD = "recipe.yaml", "run.json"
"""Files by which the folder of a run is known."""
_OWN = Path("weights", "diffusers")
"""Where a run's folder keeps the whole model that the run ended with."""
COMPONENTS = ("unet", "transformer")
"""Where diffusers' pipelines, and so their folders, keep the network that is unlearned."""


@dataclass(frozen=True)
class Removal:
    """One step of a model's history: what a run removed, and the weights before and after by their hashes.

    Attributes:
        concepts: what was removed.
        base: sha256 of the denoiser's tensors before.
        result: the same afterwards.
    """

    concepts: tuple[str, ...]
    base: str
    result: str


@dataclass(frozen=True)
class Lineage:
    """The history of a model.

    Attributes:
        origin: the model at the start of it: a bundled model's name, else what the user called it then.
        forgotten: what was removed on the way here, the first first.
        removals: the runs that removed it, as far as they wrote it down: what was taken back is not among them.
    """

    origin: str
    forgotten: tuple[str, ...] = ()
    removals: tuple[Removal, ...] = ()

    def fields(self) -> dict[str, str]:
        """The fields of a header that hold it; see `lineage_in`."""
        removals = [asdict(removal) for removal in self.removals]
        return {
            "turpentine.origin": self.origin,
            "turpentine.forgotten": json.dumps(list(self.forgotten)),
            "turpentine.removals": json.dumps(removals),
        }

    @property
    def bundled(self) -> str | None:
        """The name of the bundled model that it came from, if it did."""
        return self.origin if self.origin in BUNDLED else None


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run, begun or finished."""
    return any((folder / name).is_file() for name in (RECIPE, RECORD))


def place_of_model(model: str) -> Path:
    """Where a model is that a person names: a bundled name's folder, a run folder's own weights, else the place itself.

    A run folder without the weights of a whole model is itself the place; whoever loads it will tell what is missing.
    """
    place = BUNDLED.get(model) or user_path(model)
    inner = place / _OWN
    return inner if is_run(place) and (inner / _INDEX).is_file() and not (place / _INDEX).is_file() else place


def lineage_of(model: str) -> Lineage:
    """Read the history of a model; one that Turpentine did not write is its own origin.

    Args:
        model: a run folder, a diffusers folder, a weights file, or anything else.
    """
    return lineage_in(header_of(model)) or Lineage(_marked(place_of_model(model)) or model)


def lineage_in(metadata: Mapping[str, str]) -> Lineage | None:
    """The history that the header of a weights file tells; None where it tells none."""
    base, concept = metadata.get("turpentine.base_model"), metadata.get("turpentine.concept")
    if base is None or (concept is None and "turpentine.forgotten" not in metadata):
        return None
    forgotten = json.loads(metadata.get("turpentine.forgotten", json.dumps([concept])))
    origin = metadata.get("turpentine.origin", base)
    removals = (
        Removal(tuple(each["concepts"]), each["base"], each["result"])
        for each in json.loads(metadata.get("turpentine.removals", "[]"))
    )
    return Lineage(_marked(Path(origin)) or origin, tuple(forgotten), tuple(removals))


def header_of(model: str) -> dict[str, str]:
    """The header of a model's weights; empty where it has none.

    Args:
        model: see `lineage_of`.
    """
    file = _weights_file(place_of_model(model))
    return _metadata(file) if file else {}


def pipeline_class_of(model: str) -> str | None:
    """Name of the diffusers pipeline class of a model, as far as it is known without the network.

    Args:
        model: a diffusers folder, a run folder, or a hub id that has been downloaded; None comes of anything else.
    """
    folder = place_of_model(model)
    if not (folder / _INDEX).exists():
        from huggingface_hub import try_to_load_from_cache  # a third of the time that importing the schema takes
        from huggingface_hub.errors import HFValidationError

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


def _marked(folder: Path) -> str | None:
    """The name of the bundled model that a folder says it holds."""
    name = model_index(folder).get(ORIGIN)
    return name if isinstance(name, str) and name in BUNDLED else None


def _weights_file(path: Path) -> Path | None:
    if path.is_file():
        return path if path.suffix == ".safetensors" else None
    for folder in (path / _OWN, path):
        if found := denoiser_files(folder):
            return found[0]
    return next(iter(sorted((path / "weights").glob("*.safetensors"))), None)  # a run without a diffusers folder


def _metadata(file: Path) -> dict[str, str]:
    try:
        with safe_open(file, "pt") as opened:
            return opened.metadata() or {}
    except (OSError, SafetensorError):
        return {}  # whoever loads the weights will tell what is wrong with them
