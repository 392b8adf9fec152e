"""The weights of a run that has ended, in memory again: those that it began with, and those that it ended with."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from ..models import Denoiser, load_denoiser
from ..models.lineage import denoiser_files
from ..schema.recipe import Recipe
from ..schema.results import Results
from ..support.errors import UserError
from ..training.checkpoints import is_intact
from ..training.lora import as_adapter
from ..training.train import training_lora
from ..weights import Adapter, BaseHashes, kinship, read_header, tensors_sha256
from ..weights.apply import change
from ..weights.read import read_changes
from ..weights.rest import FORTH, read_rest
from .folder import RunFolder


def load_base(run: RunFolder, results: Results, model: str, *, given: bool) -> Denoiser:
    """Load the model that a run started from.

    Args:
        run: the run folder.
        results: of the run.
        model: where it should be.
        given: whether somebody says so now (--base), and not the run.

    Raises:
        UserError: it isn't there, or is another one.
    """
    try:
        denoiser = load_denoiser(model, "cpu")
    except UserError as error:
        recorded = results.recipe["model"]
        told = f"expected the model that the run started from ({recorded!r}) for --base: {error}"
        raise UserError(
            told if given else f"{error} The run started from it; say where that model is with --base."
        ) from None
    state = denoiser.module.state_dict()
    kin = kinship(recorded_hashes(run.path, results), state)
    if kin == "same":
        return denoiser
    reasons = {
        "half copy": "it is that model's half-precision copy, and a difference from it would hold the rounding, too",
        "original": "the run started from a half-precision copy of it, and a difference would hold the rounding, too",
        None: f"its weights' sha256 is {tensors_sha256(state)[:12]}…, expected {results.model.sha256[:12]}…",
    }
    raise UserError(
        f"{model!r} is not the model that the run started from: {reasons[kin]}. Say where the right one is with --base."
    )


def unchanged(run: RunFolder, results: Results) -> dict[str, Path]:
    """The weights of a run that are as it wrote them, by their format."""
    states = run.states(results)
    return {file.format: run.path / file.path for file in results.weights if states[file.path] == "unchanged"}


def restore(denoiser: Denoiser, run: RunFolder, recipe: Recipe, results: Results) -> Adapter | None:
    """Put the run's weights into the base model: from its last checkpoint, else from what was written.

    Args:
        denoiser: the base model.
        run: the run folder.
        recipe: of the run.
        results: of the run.

    Returns:
        The LoRA that was trained, if one was and the checkpoint is there.

    Raises:
        UserError: it keeps its weights in no form that holds all of them.
    """
    written = unchanged(run, results)
    checkpoint = run.path / "checkpoints" / f"step-{results.training.steps:06d}.safetensors"
    if is_intact(checkpoint):
        with training_lora(denoiser.module, recipe.training, recipe.seed) as layers:
            _load(denoiser.module, [checkpoint], "weights.")
        return as_adapter(layers) if layers else None
    for name in ("denoiser", "diffusers"):
        if name in written:
            path = written[name]
            _load(denoiser.module, [path] if path.is_file() else denoiser_files(path), "")
            return None
    if "delta" in written and _added(denoiser.module, written["delta"]):
        return None
    states = run.states(results)
    holds = ", ".join(f"{file.format} ({states[file.path]})" for file in results.weights) or "none"
    raise UserError(
        f"{run.path} holds its weights in no form that gives all of them back: expected its last checkpoint, or "
        f"diffusers, denoiser or a delta in fp32 of this version as the run wrote them, got {holds}. Run the recipe "
        "again with the formats that you want."
    )


def _added(module: nn.Module, delta: Path) -> bool:
    """Add a delta to its base; True if that gave the weights that the run ended with, bit for bit."""
    change(module, read_changes(delta, module), 1.0, read_rest(delta, FORTH))
    return kinship(BaseHashes.of_result(read_header(delta)), module.state_dict()) == "same"


def _is_readable(file: Path) -> bool:
    with suppress(OSError, SafetensorError), safe_open(file, "pt"):
        return True
    return False


@torch.no_grad()
def _load(module: nn.Module, files: list[Path], prefix: str) -> None:
    state = module.state_dict()
    for file in files:
        with safe_open(file, "pt") as opened:
            for name in opened.keys():
                if name.startswith(prefix):
                    state[name.removeprefix(prefix)].copy_(opened.get_tensor(name))


def recorded_hashes(run: Path, results: Results) -> BaseHashes:
    """The hashes of a run's base, those of its half copies as the weights that it wrote say."""
    paths = [run / file.path for file in results.weights]
    files = [file for path in paths for file in ([path] if path.is_file() else denoiser_files(path))]
    headers = (BaseHashes.from_header(read_header(file)) for file in files if _is_readable(file))
    found = next((hashes for hashes in headers if hashes.sha256), BaseHashes(""))
    return replace(found, sha256=results.model.sha256)
