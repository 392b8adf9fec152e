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
from ..schema.results import Results, WeightsFile
from ..support.errors import UserError
from ..training.checkpoints import is_intact
from ..training.lora import as_adapter
from ..training.train import training_lora
from ..weights import Adapter, BaseHashes, kinship, read_header, tensors_sha256
from .folder import RunFolder


def load_base(model: str, run: Path, results: Results) -> Denoiser:
    """Load the model that a run started from.

    Args:
        model: where it should be.
        run: the run folder.
        results: of the run.

    Raises:
        UserError: it isn't there, or is another one.
    """
    try:
        denoiser = load_denoiser(model, "cpu")
    except UserError as error:
        raise UserError(f"{error} The run started from {model!r}; say where that model is with --base.") from None
    state = denoiser.module.state_dict()
    kin = kinship(recorded_hashes(run, results), state)
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


def restore(
    denoiser: Denoiser, run: RunFolder, recipe: Recipe, steps: int, written: dict[str, WeightsFile]
) -> Adapter | None:
    """Put the run's weights into the base model: from its checkpoint after `steps`, else from what was written.

    Args:
        denoiser: the base model.
        run: the run folder.
        recipe: of the run.
        steps: that it trained.
        written: its weights that are as it wrote them, by their format.

    Returns:
        The LoRA that was trained, if one was and the checkpoint is there.

    Raises:
        UserError: it keeps its weights in no form that holds all of them.
    """
    checkpoint = run.path / "checkpoints" / f"step-{steps:06d}.safetensors"
    if is_intact(checkpoint):
        with training_lora(denoiser.module, recipe.training, recipe.seed) as layers:
            _load(denoiser.module, [checkpoint], "weights.")
        return as_adapter(layers) if layers else None
    for name in ("denoiser", "diffusers"):
        if name in written:
            path = run.path / written[name].path
            _load(denoiser.module, [path] if path.is_file() else denoiser_files(path), "")
            return None
    raise UserError(
        f"{run.path} no longer holds its weights as it wrote them: expected its last checkpoint, weights/diffusers or "
        "the denoiser file. Run the recipe again with the formats that you want."
    )


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
