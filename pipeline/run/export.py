"""More weights of a run that has ended, and weights put onto another model on disk."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from ..models import Denoiser, load_denoiser
from ..models.lineage import denoiser_files
from ..schema.defaults import build_recipe
from ..schema.recipe import OutputSection, Recipe
from ..schema.resolve import Setting, resolve
from ..schema.results import Results, WeightsFile
from ..support.errors import UserError
from ..support.numbers import finite
from ..support.places import user_path
from ..support.progress import Progress, Silent
from ..training.checkpoints import is_intact
from ..training.lora import as_adapter
from ..training.train import training_lora
from ..weights import (
    DTYPES,
    Adapter,
    BaseHashes,
    Job,
    base_hashes,
    check_formats,
    kinship,
    needs_base,
    read_header,
    snapshot,
    tensors_sha256,
    write_weights,
)
from ..weights.apply import apply
from ..weights.formats.diffusers import write_diffusers
from ..weights.provenance import applied_header
from .folder import RESULTS, RunFolder
from .weights import run_job


def export_run(
    run_path: Path, output: OutputSection, base: str | None = None, progress: Progress | None = None
) -> list[WeightsFile]:
    """Write more formats of a finished run into its folder; its results and report name them afterwards.

    Args:
        run_path: the run folder.
        output: formats, dtype and LoRA rank.
        base: the model that the run started from, if it is no longer where the recipe says.
        progress: told of long work.

    Raises:
        UserError: no finished run, another base, or a format that this model can't have.
    """
    run = RunFolder.open(run_path)
    recipe, results = run.recipe(), run.results()
    if results is None:
        raise UserError(
            f"expected a finished run in {run.path}. Finish it with: turpentine unlearn --resume {run.path}"
        )
    with run.locked():
        setting = resolve(build_recipe(results.recipe))
        return _export(run, setting, results, output, base, recipe.model, progress or Silent())


def _export(
    run: RunFolder,
    setting: Setting,
    results: Results,
    output: OutputSection,
    base: str | None,
    model: str,
    progress: Progress,
) -> list[WeightsFile]:
    folder = run.path / "weights" / "diffusers"
    states = run.states(results)
    written = {file.format: file for file in results.weights if states[file.path] == "unchanged"}
    if not needs_base(output.formats) and "diffusers" in written and _is_exact(folder):
        if base:
            progress.warn("--base has no effect: the run's own weights/diffusers hold all that is written.")
        denoiser, before, trained = load_denoiser(str(folder), "cpu"), None, None
        check_formats(denoiser, output.formats)
        hashes = _recorded_hashes(run.path, results)
    else:
        denoiser = _load_base(base or model, run.path, results)
        check_formats(denoiser, output.formats)
        before = snapshot(denoiser.module)
        hashes = base_hashes(before)
        trained = _restore(denoiser, run, setting.recipe, results.training.steps, written)
    after = results.audits.after
    job = run_job(denoiser, run.path, setting, output, hashes, after, before, trained, progress)
    records = write_weights(job, output.formats)
    others = [file for file in results.weights if file.format not in output.formats]
    results.model_copy(update={"weights": [*others, *records]}).save(run.path / RESULTS)
    run.write_report()
    return records


def apply_to_folder(
    weights: Path,
    model: str,
    device: str,
    out: Path,
    strength: float = 1.0,
    dtype: str = "fp32",
    any_base: bool = False,
) -> Path:
    """Put a denoiser, LoRA or delta file onto a model and write the result as a diffusers folder.

    Args:
        weights: see `turpentine.apply`, with `strength` and `any_base`.
        model: see `load_denoiser`, with `device`.
        device: where to compute.
        out: the folder; must not hold anything yet.
        strength: 0 = the model as it is, 1 = as unlearned.
        dtype: "fp32", "fp16" or "bf16".
        any_base: go on with another base.

    Raises:
        UserError: see `turpentine.apply`; the folder is not empty; or `dtype` can't hold the result.
    """
    strength = finite("strength", strength)
    if dtype not in DTYPES:
        raise UserError(f"dtype must be one of {list(DTYPES)}, got {dtype!r}.")
    weights, out = user_path(weights), user_path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"expected a new or empty folder for --out, got {out}, which holds something.")
    metadata = read_header(weights)
    denoiser = load_denoiser(model, device)
    apply(denoiser.pipeline, weights, strength, any_base=any_base)
    kept = applied_header(metadata, denoiser.family, weights.name, strength)
    return write_diffusers(Job(denoiser, out.parent, out.name, dtype, kept), out).path


def _load_base(model: str, run: Path, results: Results) -> Denoiser:
    try:
        denoiser = load_denoiser(model, "cpu")
    except UserError as error:
        raise UserError(f"{error} The run started from {model!r}; say where that model is with --base.") from None
    state = denoiser.module.state_dict()
    kin = kinship(_recorded_hashes(run, results), state)
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


def _restore(
    denoiser: Denoiser, run: RunFolder, recipe: Recipe, steps: int, written: dict[str, WeightsFile]
) -> Adapter | None:
    """Put the run's weights into the base model: from its checkpoint after `steps`, else from what was written.

    Gives the LoRA that was trained, if one was and the checkpoint is there.
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


def _is_exact(folder: Path) -> bool:
    files = denoiser_files(folder)
    return bool(files) and read_header(files[0]).get("turpentine.dtype") == "fp32"


def _recorded_hashes(run: Path, results: Results) -> BaseHashes:
    """The hashes of a run's base, those of its half copies as the weights that it wrote say."""
    paths = [run / file.path for file in results.weights]
    files = [file for path in paths for file in ([path] if path.is_file() else denoiser_files(path))]
    headers = (BaseHashes.from_header(read_header(file)) for file in files if _is_readable(file))
    found = next((hashes for hashes in headers if hashes.sha256), BaseHashes(""))
    return replace(found, sha256=results.model.sha256)
