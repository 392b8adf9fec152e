"""Options that were given and change nothing: each is told, with what it would need.

One table, over every field of a recipe. What counts as given is what differs from the defaults of the model and the
method, as the app and the nodes send every widget. A switch that is off asks for nothing and is never idle.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .defaults import build_recipe
from .fields import Field, fields_of, value_at
from .resolve import Setting

if TYPE_CHECKING:
    from ..prompts import PromptSet

_LORAS = {"lora", "lora_diffusers"}


@dataclass(frozen=True)
class Need:
    """What an option needs to have an effect.

    Attributes:
        told: in words, after "has no effect": without what, or with what.
        met: whether a setting has it; `PromptSet` is that of the run, None where it is not made yet.
    """

    told: str
    met: "Callable[[Setting, PromptSet | None], bool]"


def _need(told: str, met: Callable[[Setting], bool]) -> Need:
    """The same of the setting alone."""
    return Need(told, lambda setting, prompts: met(setting))


_TEXT = _need("with kind 'class', whose prompts are names of classes", lambda its: its.recipe.kind != "class")
_CLASS = _need("without kind 'class'", lambda its: its.recipe.kind == "class")
_MADE = _need("with prompts.file", lambda its: its.recipe.prompts.file is None)
_LLM = _need("without prompts.source 'llm'", lambda its: its.recipe.prompts.source == "llm")
_NUDITY = _need("where nudity is not counted (audits.nudity)", lambda its: its.counts_nudity)
_ALIGNMENT = _need("without audits.alignment", lambda its: its.recipe.audits.alignment)
_DATASET = _need("without data.dataset", lambda its: its.recipe.data.dataset is not None)
_DRAWN = _need("with data.dataset, as no training images are drawn", lambda its: its.recipe.data.dataset is None)
_SIMILAR = _need("without data.retain_classes 'similar'", lambda its: its.recipe.data.retain_classes == "similar")
_RETAIN = _need("without a method with a retain term", lambda its: "retain" in its.recipe.method.terms)
_LORA_FILE = _need(
    "without the format lora or lora_diffusers", lambda its: not _LORAS.isdisjoint(its.recipe.output.formats)
)
_EXTRACTED = _need(
    "with training.parameters 'lora', whose own rank is written",
    lambda its: its.recipe.training.parameters != "lora",
)
_RANK = _need("with output.lora_energy", lambda its: its.recipe.output.lora_energy is None)
_LORA = _need("without training.parameters 'lora'", lambda its: its.recipe.training.parameters == "lora")


def _reached(key: str) -> Need:
    """Every so many steps: more than all of them are never reached."""

    def met(setting: Setting) -> bool:
        return int(getattr(setting.recipe.training, key)) <= setting.recipe.training.steps

    return _need("with fewer training.steps", met)


def _as_many(key: str, rows: str) -> Need:
    """Own prompts are taken as they are: a number of them that is not theirs was ignored."""

    def met(setting: Setting, prompts: "PromptSet | None") -> bool:
        asked = getattr(setting.recipe.prompts, key)
        return setting.recipe.prompts.file is None or prompts is None or asked == len(getattr(prompts, rows))

    return Need(f"with prompts.file, which has other {rows} rows", met)


def _attribute(setting: Setting, prompts: "PromptSet | None") -> bool:
    """A saved set says itself whose attribute its concept is."""
    asked, own = setting.recipe.attribute_of, setting.recipe.prompts.file
    return own is None or prompts is None or asked == prompts.attribute_of


def _structure(setting: Setting, prompts: "PromptSet | None") -> bool:
    """Own prompts are one pair or many, as the file has them."""
    if setting.recipe.prompts.file is None or prompts is None:
        return True
    return (setting.recipe.method.data == "uniform") == (len(set(prompts.train)) == 1)


ALWAYS: tuple[Need, ...] = ()
"""Marks an option that has an effect in every run."""

NEEDS: Mapping[str, tuple[Need, ...]] = {
    "concept": ALWAYS,
    "kind": ALWAYS,
    "model": ALWAYS,
    "model_config_folder": ALWAYS,  # refused beside anything but a single file
    "attribute_of": (Need("with prompts.file", _attribute),),
    "seed": ALWAYS,
    "device": ALWAYS,
    "method.data": (_TEXT, Need("with prompts.file", _structure)),
    "prompts.n": (_DRAWN, _as_many("n", "train")),
    "prompts.n_test": (_as_many("n_test", "test"),),
    "prompts.file": (_TEXT,),
    "prompts.synonyms": (_TEXT,),
    "prompts.source": (_TEXT, _MADE),
    "prompts.llm_url": (_TEXT, _MADE, _LLM),
    "prompts.llm_model": (_TEXT, _MADE, _LLM),
    "prompts.keep_forgotten": (_TEXT,),
    "prompts.llm_fallback": (_TEXT, _MADE, _LLM),
    "data.dataset": ALWAYS,  # refused without kind 'class'
    "data.retain_classes": (_CLASS, _DATASET),
    "data.retain_per_class": (_CLASS, _DATASET),
    "data.similar_classes": (_CLASS, _DATASET, _SIMILAR),
    "samples.num_inference_steps": ALWAYS,
    "samples.guidance_scale": ALWAYS,
    "samples.training_guidance_scale": (_DRAWN,),
    "samples.scheduler": ALWAYS,
    "samples.sample_batch_size": ALWAYS,
    "samples.image_size": ALWAYS,
    "training.steps": ALWAYS,
    "training.early_stop": ALWAYS,  # refused without a forget limit
    "training.batch_size": ALWAYS,
    "training.retain_batch": (_RETAIN,),
    "training.proportion_empty_prompts": (_RETAIN,),
    "training.gradient_accumulation_steps": ALWAYS,
    "training.learning_rate": ALWAYS,
    "training.warmup_steps": ALWAYS,
    "training.lr_scheduler": ALWAYS,
    "training.parameters": ALWAYS,
    "training.adapter_rank": (_LORA,),
    "training.adapter_alpha": (_LORA,),
    "training.adapter_targets": (_LORA,),
    "training.metric": ALWAYS,  # refused beside methods that don't project
    "training.guard": ALWAYS,  # refused beside methods without both terms
    "training.precision": ALWAYS,
    "training.gradient_checkpointing": ALWAYS,
    "training.optimizer": ALWAYS,
    "training.forget_gradient": ALWAYS,  # refused beside methods with one gradient
    "training.torch_compile": ALWAYS,
    "training.channels_last": ALWAYS,
    "training.max_grad_norm": ALWAYS,
    "training.checkpoint_every": (_reached("checkpoint_every"),),
    "training.preview_every": (_reached("preview_every"),),
    "audits.images": ALWAYS,
    "audits.retain_train_images": ALWAYS,
    "audits.nudity": ALWAYS,
    "audits.nudity_threshold": (_NUDITY,),
    "audits.nudity_labels": (_NUDITY,),
    "audits.alignment": ALWAYS,
    "audits.alignment_model": (_ALIGNMENT,),
    "audits.accuracy": ALWAYS,
    "audits.class_judge": (_CLASS,),
    "audits.distance_features": (_CLASS,),
    "output.formats": ALWAYS,
    "output.dtype": ALWAYS,
    "output.lora_rank": (_LORA_FILE, _EXTRACTED, _RANK),
    "output.lora_energy": (_LORA_FILE, _EXTRACTED),
}
"""Every field that all methods have, by its path with dots -> what it needs; the first need that is not met is told.

The methods' own options are in `MethodConfig.idle`.
"""


def idle_options(
    setting: Setting, prompts: "PromptSet | None" = None, only: Iterable[str] = (), trains: bool = True
) -> list[str]:
    """A line for each option that was given and has no effect.

    Args:
        setting: what is to be done.
        prompts: of the run, where they are made already.
        only: sections and fields as `fields_of` takes them, for a command that has no others.
        trains: whether a model is trained; the methods' options need that.
    """
    recipe = setting.recipe
    known = {"concept": recipe.concept, "kind": recipe.kind, "model": recipe.model}
    usual = build_recipe({**known, "method": {"name": recipe.method.name}})
    own = recipe.method.idle()
    lines = []
    for field in fields_of(*only):
        if value_at(recipe, _attributes(field)) == value_at(usual, _attributes(field)):
            continue
        reasons = _unmet(field, setting, prompts, own, trains)
        lines += [f"{field.key} ({field.option}) has no effect {reason}." for reason in reasons]
    return lines


def _unmet(
    field: Field, setting: Setting, prompts: "PromptSet | None", own: Mapping[str, str], trains: bool
) -> Iterable[str]:
    """Why a field has no effect, the first reason; nothing if it has one."""
    if field.key in NEEDS:
        return [need.told for need in NEEDS[field.key] if not need.met(setting, prompts)][:1]
    if not trains:
        return ["where nothing is trained"]
    return [own[field.path[-1]]] if field.path[-1] in own else []


def _attributes(field: Field) -> tuple[str, ...]:
    """Where a recipe keeps the field's value: `concept` is its `concepts`."""
    return ("concepts",) if field.path == ("concept",) else field.path
