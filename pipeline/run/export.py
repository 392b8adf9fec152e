"""More weights of a run that has ended, and weights put onto another model on disk."""

from pathlib import Path

from ..models import BUNDLED, load_denoiser
from ..models.lineage import denoiser_files
from ..schema.defaults import stored_recipe
from ..schema.recipe import OutputSection
from ..schema.resolve import Setting, resolve
from ..schema.results import Results, WeightsFile
from ..support.errors import UserError
from ..support.numbers import finite
from ..support.places import user_path
from ..support.progress import Progress, Silent
from ..weights import DTYPES, Job, base_hashes, check_formats, needs_base, read_header, snapshot, write_weights
from ..weights.apply import apply
from ..weights.formats.diffusers import write_diffusers
from ..weights.provenance import applied_header
from .folder import RESULTS, RunFolder
from .restore import load_base, recorded_hashes, restore, unchanged
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
    recipe, results = run.recipe(), run.finished()
    with run.locked():
        setting = resolve(stored_recipe(results.recipe))
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
    if not needs_base(output.formats) and "diffusers" in unchanged(run, results) and _is_exact(folder):
        if base:
            progress.warn("--base has no effect: the run's own weights/diffusers hold all that is written.")
        denoiser, before, trained = load_denoiser(str(folder), "cpu"), None, None
        check_formats(denoiser, output.formats)
        hashes = recorded_hashes(run.path, results)
    else:
        denoiser = load_base(run, results, base or model, given=base is not None)
        check_formats(denoiser, output.formats)
        before = snapshot(denoiser.module)
        hashes = base_hashes(before)
        trained = restore(denoiser, run, setting.recipe, results)
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
    check_new_folder(out, model)
    metadata = read_header(weights)
    denoiser = load_denoiser(model, device)
    apply(denoiser.pipeline, weights, strength, any_base=any_base)
    result = base_hashes(denoiser.module.state_dict())
    kept = applied_header(metadata, denoiser.family, weights.name, strength, result)
    return write_diffusers(Job(denoiser, out.parent, out.name, dtype, kept), out).path


def check_new_folder(out: Path, *models: str | None) -> None:
    """Refuse to write a model into a folder that holds something, and among what a run, or another model, consists of.

    Args:
        out: the folder.
        models: that are read; None for none.

    Raises:
        UserError: it holds something, is a file, or lies in a run or in one of the models.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"expected a new or empty folder for --out, got {out}, which holds something.")
    whole = out.resolve()
    read = [BUNDLED.get(model) or user_path(model) for model in models if model]
    around = [path for path in read if path.is_dir() and whole.is_relative_to(path.resolve())]
    around += [path for path in (whole, *whole.parents) if RunFolder(path).is_run]
    if around:
        raise UserError(f"{out} lies in {around[0]}, whose files would no longer be its own. Choose another --out.")


def _is_exact(folder: Path) -> bool:
    files = denoiser_files(folder)
    return bool(files) and read_header(files[0]).get("turpentine.dtype") == "fp32"
