"""One concept taken back from an unlearned model on disk, which becomes a new diffusers folder."""

import warnings
from dataclasses import dataclass
from pathlib import Path

from ..models import BUNDLED, Denoiser, load_denoiser
from ..models.lineage import header_of
from ..schema.defaults import stored_recipe
from ..schema.resolve import resolve
from ..support.errors import Caution, UserError
from ..support.places import existing, user_path
from ..weights import DTYPES, Job, base_hashes, snapshot
from ..weights.formats.diffusers import write_diffusers
from ..weights.provenance import undone_header
from ..weights.undo import Difference, TakenBack, take_back
from .export import check_new_folder
from .folder import RunFolder
from .restore import load_base, restore, unchanged
from .weights import run_header


@dataclass(frozen=True)
class Undone:
    """What `undo_to_folder` gave.

    Attributes:
        folder: a diffusers folder.
        taken: what was taken back, and what is still removed.
        base: where the weights before the removal still lie, if they are what came out but for rounding; "" if not.
    """

    folder: Path
    taken: TakenBack
    base: str


def undo_to_folder(
    removal: Path,
    out: Path,
    model: str | None = None,
    device: str = "auto",
    *,
    dtype: str = "fp32",
    base: str | None = None,
    model_config_folder: str | None = None,
    any_base: bool = False,
) -> Undone:
    """Take one removal back and write the model without it as a diffusers folder.

    Args:
        removal: the run that removed it, or its delta or LoRA file.
        out: the new folder; must not hold anything yet.
        model: from which model: a run folder, a diffusers folder, or a .safetensors file. None: the run's own.
        device: see `load_denoiser`.
        dtype: "fp32", "fp16" or "bf16".
        base: the model that the run started from, if it kept no delta and that model has moved.
        model_config_folder: for a single file, see `load_denoiser`.
        any_base: go on, with a warning, if nothing shows that the model holds the removal.

    Raises:
        UserError: the model doesn't hold the removal, something is missing, or the folder is not free.
    """
    if dtype not in DTYPES:
        raise UserError(f"dtype must be one of {list(DTYPES)}, got {dtype!r}.")
    removal, out = existing(user_path(removal), "a run folder, or a delta or LoRA file"), user_path(out)
    check_new_folder(out, str(removal), model, base)
    own, source = None, ""
    if removal.is_dir():
        difference, own, source = _of_run(RunFolder.open(removal), base, model is None)
    elif model is None:
        raise UserError(f"expected the model to take {removal} back from (--model), as the file alone holds none.")
    else:
        difference = Difference.of_file(removal)
    name = str(removal) if own else _model_in(model or str(removal))
    header = header_of(name) if own is None else dict(difference.metadata)
    denoiser = own or load_denoiser(name, device, model_config_folder)
    taken = take_back(denoiser.module, difference, header, any_base)
    base = source if not taken.inexact else ""
    result = base_hashes(denoiser.module.state_dict())
    told = undone_header(header or difference.metadata, denoiser.family, name, taken.concepts, taken.lineage, result)
    written = write_diffusers(Job(denoiser, out.parent, out.name, dtype, told), out)
    return Undone(written.path, taken.as_written(written.files, difference.base, dtype), base)


def _of_run(run: RunFolder, base: str | None, whole: bool) -> tuple[Difference, Denoiser | None, str]:
    """A run's removal: from its delta if it wrote one, else from its base and its weights.

    Args:
        run: a finished run.
        base: where its base is, if that has moved.
        whole: whether the run's own model is wanted, too.

    Returns:
        The removal, the run's model if it was loaded for that, and where the base is.
    """
    results = run.finished()
    written = unchanged(run, results)
    if "delta" in written and not base and ("diffusers" in written or not whole):
        return Difference.of_file(written["delta"]), None, ""
    damaged = [run.path / file.path for file in results.weights if file.format == "delta" and "delta" not in written]
    where = base or results.recipe["model"]
    setting = resolve(stored_recipe({**results.recipe, "model": where}))
    denoiser = load_base(run, results, where, given=base is not None)
    for file in damaged:
        warnings.warn(
            f"{file} is not as the run wrote it: the model before the run was used instead.", Caution, stacklevel=3
        )
    before = snapshot(denoiser.module)
    restore(denoiser, run, setting.recipe, results)
    metadata = run_header(denoiser, setting, base_hashes(before), None)
    difference = Difference.between(str(run.path), metadata, snapshot(denoiser.module), before)
    return difference, denoiser if whole else None, where


def _model_in(model: str) -> str:
    """The diffusers folder of a run folder; anything else is a model itself."""
    folder = user_path(model)
    run = RunFolder(folder)
    if model in BUNDLED or not folder.is_dir() or not run.is_there:
        return model
    inner = folder / "weights" / "diffusers"
    if not inner.is_dir():
        raise UserError(
            f"{model} keeps no whole model. Write it with: turpentine export {model} --formats diffusers; or name one "
            "with --model."
        )
    return str(inner)
