"""Unlearning for the node, in a run folder whose name ends in a hash of everything that decides the run.

The same inputs give the same name, also after a restart: a finished run is loaded from its folder, and a
cancelled one continues from its checkpoint.
"""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..pipeline.support.errors import UserError
from . import host
from .model import Model
from .pictures import live_preview

if TYPE_CHECKING:
    from ..pipeline.prompts import PromptSet
    from ..pipeline.schema.recipe import Recipe

UNMEASURED = {"images": 4, "retain_train_images": 4, "nudity": "off", "alignment": False, "accuracy": False}
"""Audit settings of a run without `measure`: a few pictures to look at, no figures."""

_PREVIEWS = 5
"""How often a training draws preview pictures if the graph doesn't set `preview_every`."""


def make_recipe(model: Model, prompts: "PromptSet", method: str, chosen: dict[str, Any], measure: bool) -> "Recipe":
    """Build the recipe for a node's inputs.

    Args:
        model: the model to train.
        prompts: paired prompts with and without the concept.
        method: the method's name.
        chosen: parts of a recipe that were set in the node's widgets.
        measure: whether to run the recipe's audits.

    Raises:
        UserError: prompts of another world, invalid values, an audit that would use the network, or what `preflight`
            finds.
    """
    from ..pipeline.run.preflight import preflight
    from ..pipeline.schema.defaults import build_recipe, merge
    from ..pipeline.schema.presets import with_previews
    from ..pipeline.schema.resolve import resolve

    base: dict[str, Any] = {
        "concept": prompts.concept,
        "kind": prompts.kind,
        "model": model.denoiser.name,
        "device": host.compute_device(),
        "method": {"name": method, "data": "uniform" if len({*prompts.train}) == 1 < len(prompts.train) else "diverse"},
        "attribute_of": prompts.attribute_of,
        "prompts": {"n": len(prompts.train), "n_test": max(1, len(prompts.test))},
        "output": {"formats": ["denoiser"]},
    }
    if not prompts.usual_anchor:  # else the method decides whether it keeps what the world chose
        base["prompts"]["replace_with"] = prompts.replace_with
    if not measure:
        base["audits"] = UNMEASURED
    recipe = build_recipe(merge(base, chosen))
    world = resolve(recipe).world.name
    if prompts.world != world:
        raise UserError(
            f"expected prompts of the {world!r} world for the model {recipe.model!r}, got prompts of the "
            f"{prompts.world!r} world. Set `world` of Diverse Prompt Set to {world!r}."
        )
    if measure and recipe.audits.alignment:
        check_clip_is_here(recipe.audits.alignment_model, allow_download=False)
    if "preview_every" not in chosen.get("training", {}):
        recipe = with_previews(recipe, _PREVIEWS)
    if "denoiser" not in recipe.output.formats:  # a finished run is loaded from this file
        formats = (*recipe.output.formats, "denoiser")
        recipe = recipe.model_copy(update={"output": recipe.output.model_copy(update={"formats": formats})})
    preflight(resolve(recipe), prompts, model.denoiser)
    return recipe


def check_clip_is_here(name: str, allow_download: bool) -> None:
    """Refuse a CLIP model that may need a download.

    Raises:
        UserError: the model is neither bundled nor a folder, and `allow_download` is off.
    """
    if name != "tiny-canvas" and not Path(name.removeprefix("local-dir:")).is_dir() and not allow_download:
        raise UserError(
            f"the CLIP model {name!r} may need a download, which no node does unasked. Give the folder of a model, "
            "use Audit CLIP Alignment with allow_download, or set `alignment` to off."
        )


def unlearn(model: Model, prompts: "PromptSet", recipe: "Recipe") -> tuple[Model, Path, str]:
    """Carry out a recipe on a model, or load the finished run from disk.

    Returns:
        The model with unlearned weights, the run folder, and one line about what was done.

    Raises:
        UserError: a problem that the user can solve.
        Cancelled: the user stopped it; a checkpoint is kept and the model is as it was.
    """
    from ..pipeline.report import course
    from ..pipeline.run.folder import RunFolder
    from ..pipeline.run.unlearning import run_recipe
    from ..pipeline.weights import snapshot

    with model.borrowed(to_train=True) as (denoiser, _):
        folder = host.output_folder("turpentine", "runs") / run_name(denoiser, prompts, recipe)
        if (folder / "results.json").is_file():
            _load_finished(denoiser, folder)
            done = "found on disk, nothing was trained."
        else:
            run = RunFolder(folder)
            resume = run.is_there
            # so that the recipe can be repeated outside of ComfyUI; a folder that was moved keeps the old place
            spec = recipe.prompts.model_copy(update={"file": str(folder / "prompts.json")})
            spec = run.begun_with().prompts if resume else spec
            progress = host.NodeProgress(lambda: live_preview(folder))
            finished = run_recipe(
                recipe.model_copy(update={"prompts": spec}),
                folder,
                denoiser=denoiser,
                prompts=prompts,
                resume=resume,
                progress=progress,
            )
            run.forget_checkpoints()  # three times the model's size
            done = course(finished.results.training)
            done += ", resumed from a checkpoint." if resume else "."
            done += "".join(f"\nWarning: {warning}" for warning in finished.results.warnings)
        weights = snapshot(denoiser.module)
    return replace(model, weights=weights, run=folder, applied=None, header=None), folder, done


def run_name(denoiser: Any, prompts: "PromptSet", recipe: "Recipe") -> str:
    """The run folder's name: concept, method, and a hash of the recipe, the prompts and the original weights."""
    from ..pipeline.support.files import file_name
    from ..pipeline.weights import tensors_sha256

    indifferent: Any = {"device": True, "prompts": True, "training": {"preview_every"}, "samples": {"offload"}}
    decisive = recipe.model_dump(mode="json", exclude=indifferent)
    decisive |= {"prompts": prompts.model_dump(mode="json"), "base": tensors_sha256(denoiser.module.state_dict())}
    key = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:12]
    return f"{file_name(recipe.concept)}-{recipe.method.name}-{key}"


def _load_finished(denoiser: Any, folder: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from ..pipeline.schema.results import Results

    written = [each for each in Results.load(folder / "results.json").weights if each.format == "denoiser"]
    try:
        denoiser.module.load_state_dict(load_file(folder / written[0].path))
    except (OSError, IndexError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"the weights of the finished run in {folder} can't be read ({reason}). Delete the folder to train anew."
        ) from None
