"""Everything that can be known before the first image is drawn, checked before anything is written.

Every front end calls these two: `preflight` with the recipe alone, `preflight_model` once the model is loaded. Whatever
would stop a run later, and can be known, stops it here; whatever the user should know is told here. The cheap checks
come first. What an audit or a method needs it says itself: `Audit.check`, `Method.check`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ..audits import check_audits
from ..data.datasets import classes_of
from ..data.pictures import check_pictures, check_rows, small_pictures
from ..data.samples import encode
from ..models import Denoiser
from ..models.frozen import check_base
from ..models.load import check_model, choose_device
from ..prompts import PromptSet
from ..prompts.anchors import AUTO
from ..prompts.replacing import without_usual_anchor
from ..schema.idle import idle_options
from ..schema.recipe import DataSection
from ..schema.resolve import Setting
from ..support.errors import UserError
from ..training.optimizers import check_optimizer
from ..training.train import check_samples, reads_empty_prompt
from ..training.tuning import check_tuning
from ..weights import FORMATS, check_dtype, check_formats
from .audit import audit_prompts, subject_of
from .cost import changed_tensors
from .prompts import prompts_of
from .repeatable import check_repeatable
from .space import check_room, room_needed
from .stages import drawing_stages, stages_of

_TRIED = 64
"""Side of the black picture that is encoded to see whether the autoencoder can, in pixels."""

AUDITED = (
    *("concept", "kind", "attribute_of", "model", "seed", "method"),
    *("prompts", "data.forget_images", "samples", "audits"),
)
"""The fields that have a say where nothing is trained."""


@dataclass(frozen=True)
class Checked:
    """What `preflight` found to be in order.

    Attributes:
        prompts: of the run.
        warnings: what the user should know before the work starts.
    """

    prompts: PromptSet
    warnings: tuple[str, ...] = ()


def preflight(
    setting: Setting, prompts: PromptSet | None = None, denoiser: Denoiser | None = None, trains: bool = True
) -> Checked:
    """Check all that needs no loaded model: in seconds, or as long as a language model takes for the prompts.

    Args:
        setting: what is to be done.
        prompts: those of the run, where they are made already.
        denoiser: the model, where it is already loaded.
        trains: false for an audit of a model as it is.

    Raises:
        UserError: the run would fail later.
    """
    recipe = setting.recipe
    device = denoiser.device if denoiser else choose_device(recipe.device)
    if not denoiser:
        check_model(recipe.model, recipe.model_config_folder)
    if trains:
        check_optimizer(recipe.training)
        check_tuning(recipe.training, device)
        check_base(stages_of(recipe, denoiser.device if denoiser else None))
    else:
        drawing_stages(recipe.samples, device)
    given = recipe.data.forget_images
    told = check_pictures(given) if given is not None else []
    prompts = prompts or prompts_of(setting, denoiser)
    if prompts.usual_anchor and recipe.instead != AUTO:
        prompts = without_usual_anchor(prompts)
    told += check_rows(given, len(prompts.train)) if given is not None and trains else []
    texts = audit_prompts(prompts, recipe.audits, subject_of(setting))
    warnings = [*prompts.warnings, *told, *idle_options(setting, () if trains else AUDITED, trains)]
    if trains and prompts.own_anchors and recipe.prompts.replace_with is None and not recipe.method.redirects:
        warnings.append("the anchors of the prompts have no effect without a method that draws something else instead.")
    if denoiser and recipe.device not in ("auto", device.type, str(device)):
        warnings.append(f"device (--device) has no effect on a model that is loaded already; it is on {device}.")
    warnings += check_audits(recipe.audits, subject_of(setting), texts)
    if trains:
        check_samples(recipe.training, recipe.method, *_sample_counts(setting, prompts))
    return Checked(prompts, tuple(dict.fromkeys(warnings)))


def preflight_model(
    setting: Setting, prompts: PromptSet, denoiser: Denoiser, out: Path | None = None, trains: bool = True
) -> tuple[str, ...]:
    """Check what only the loaded model knows; gives warnings.

    Args:
        setting: what is to be done.
        prompts: of the run.
        denoiser: the model.
        out: the run folder, on whose disk there must be room; None where nothing is written.
        trains: false for an audit of a model as it is.

    Raises:
        UserError: the run would fail later.
    """
    recipe, subject = setting.recipe, subject_of(setting)
    for samples in (recipe.samples, recipe.samples.for_training()):
        denoiser.check_sampling(samples.sampling())
    texts = audit_prompts(prompts, recipe.audits, subject)
    side = recipe.samples.image_size or _own_side(denoiser)
    warnings = [*denoiser.warnings, *check_audits(recipe.audits, subject, texts, side)]
    if trains:
        check_tuning(recipe.training, denoiser.device, denoiser.module)
        if recipe.training.deterministic:
            check_repeatable(denoiser)
        trained = changed_tensors(denoiser.module, recipe)
        check_samples(recipe.training, recipe.method, *_sample_counts(setting, prompts), trained)
        if recipe.data.forget_images is not None:
            encode(denoiser, torch.zeros(1, 3, _TRIED, _TRIED))
            warnings += small_pictures(recipe.data.forget_images, recipe.samples.image_size or _drawn_side(denoiser))
        if reads_empty_prompt(recipe.training, recipe.method):
            denoiser.encode_prompts([""])
        if out is not None:
            check_formats(denoiser, recipe.output.formats)
            if not all(FORMATS[each].of_difference for each in recipe.output.formats):
                check_dtype(denoiser, recipe.output.dtype)
            check_room(out, room_needed(denoiser, recipe, prompts, trained))
    return (*warnings, *_unread(prompts, denoiser))


def _own_side(denoiser: Denoiser) -> int | None:
    """Pixels a side of what a model draws by itself, where its network works on pixels."""
    size = getattr(denoiser.module.config, "sample_size", None)
    return size if isinstance(size, int) and not hasattr(denoiser.pipeline, "vae") else None


def _drawn_side(denoiser: Denoiser) -> int:
    """Pixels a side of what a model draws by itself; 0 where it doesn't say so."""
    side = getattr(denoiser.module.config, "sample_size", None) or getattr(denoiser.pipeline, "default_sample_size", 0)
    return side * getattr(denoiser.pipeline, "vae_scale_factor", 1) if isinstance(side, int) else 0


def _sample_counts(setting: Setting, prompts: PromptSet) -> tuple[int, int]:
    """How many forget and retain samples there will be.

    Raises:
        UserError: the dataset lacks the class, or has too few images of another one.
    """
    recipe = setting.recipe
    if recipe.data.dataset is None:
        return len(prompts.train), len(prompts.train)
    return _image_counts(classes_of(recipe.data.dataset, "train"), recipe.concept, recipe.data)


def _image_counts(counts: Mapping[str, int], concept: str, spec: DataSection) -> tuple[int, int]:
    if concept not in counts:
        raise UserError(f"expected data with the class {concept!r}, got {spec.dataset} with {list(counts)}.")
    others = [name for name in counts if name != concept]
    wanted = spec.retain_per_class * len(others)
    if spec.retain_classes == "similar":
        others = sorted(others, key=lambda name: -counts[name])[: spec.similar_classes]  # at best the fullest ones
    share = wanted // len(others)
    few = [name for name in others if counts[name] < share]
    if few:
        raise UserError(
            f"expected {share} images of {few[0]!r} for the retain set, which has {counts[few[0]]}. "
            "Lower retain_per_class."
        )
    return counts[concept], wanted


def _unread(prompts: PromptSet, denoiser: Denoiser) -> list[str]:
    """A warning of the rows whose concept stands behind what the text encoders read.

    Raises:
        UserError: all train rows are such: nothing would be forgotten.
    """
    lost = prompts.cut_off(denoiser.read_prompts)
    if not lost:
        return []
    train = sum(place.startswith("train") for place in lost)
    if train == len(prompts.train):
        raise UserError(
            f"the text encoders cut every training prompt off before it names {prompts.concept!r} or differs from its "
            f"partner, for example {prompts.forget_train[0][:60]!r}…. Shorten the prompts."
        )
    rows = len(prompts.train) + len(prompts.test)
    return [
        f"in {len(lost)} of {rows} rows the text encoders cut the prompt off before it names {prompts.concept!r} or "
        f"differs from its partner (the first: {lost[0]}). Shorten them."
    ]
