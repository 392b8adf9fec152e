"""Options that were given and change nothing: each is told, with what it would need.

One table, over every field of a recipe. What counts as given is what differs from the defaults of the model and the
method, as the app and the nodes send every widget. A switch that is off asks for nothing and is never idle.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from .defaults import build_recipe
from .fields import Field, fields_of, value_at
from .resolve import Setting

_LORAS = {"lora", "lora_diffusers"}


@dataclass(frozen=True)
class Need:
    """What an option needs to have an effect.

    Attributes:
        told: in words, after "has no effect": without what, or with what.
        met: whether a setting has it.
    """

    told: str
    met: Callable[[Setting], bool]


_TEXT = Need("with kind 'class', whose prompts are names of classes", lambda its: its.recipe.kind != "class")
_CLASS = Need("without kind 'class'", lambda its: its.recipe.kind == "class")
_MADE = Need("with prompts.file", lambda its: its.recipe.prompts.file is None)
_LLM = Need("without prompts.source 'llm'", lambda its: its.recipe.prompts.source == "llm")
_NUDITY = Need("where nudity is not counted (audits.nudity)", lambda its: its.counts_nudity)
_ALIGNMENT = Need("without audits.alignment", lambda its: its.recipe.audits.alignment)
_DATASET = Need("without data.dataset", lambda its: its.recipe.data.dataset is not None)
_DRAWN = Need("with data.dataset, as no training images are drawn", lambda its: its.recipe.data.dataset is None)
_SEEN = Need(
    "on the training of a method that looks at no forget images; they are only measured",
    lambda its: "forget" in its.recipe.method.sees,
)
_IMAGES = Need("with a method that looks at no training images", lambda its: bool(its.recipe.method.sees))
_PICTURES = Need("without data.forget_images", lambda its: its.recipe.data.forget_images is not None)
_SIMILAR = Need("without data.retain_classes 'similar'", lambda its: its.recipe.data.retain_classes == "similar")
_STEPS = Need("with a method in closed form, which takes no steps", lambda its: not its.recipe.method.closed_form)
_RETAIN = Need("without a method with a retain term", lambda its: "retain" in its.recipe.method.terms)
_REDIRECTS = Need("without a method that draws something else instead", lambda its: its.recipe.method.redirects)
_LORA_FILE = Need(
    "without the format lora or lora_diffusers", lambda its: not _LORAS.isdisjoint(its.recipe.output.formats)
)
_EXTRACTED = Need(
    "with training.parameters 'lora', whose own rank is written",
    lambda its: its.recipe.training.parameters != "lora",
)
_RANK = Need("with output.lora_energy", lambda its: its.recipe.output.lora_energy is None)
_ELSEWHERE = Need(
    "with device 'cpu', where the gradient is already",
    lambda its: (its.recipe.training.forget_gradient, its.recipe.device) != ("cpu", "cpu"),
)
_GPU = Need("with device 'cpu', which repeats itself anyway", lambda its: its.recipe.device != "cpu")
_ON_GPU = Need("with device 'cpu'", lambda its: its.recipe.device != "cpu")
_LORA = Need("without training.parameters 'lora'", lambda its: its.recipe.training.parameters == "lora")


def _reached(key: str) -> Need:
    """Every so many steps: more than all of them are never reached."""

    def met(setting: Setting) -> bool:
        return int(getattr(setting.recipe.training, key)) <= setting.recipe.training.steps

    return Need("with fewer training.steps", met)


ALWAYS: tuple[Need, ...] = ()
"""Marks an option that has an effect in every run."""

NEEDS: Mapping[str, tuple[Need, ...]] = {
    "concept": ALWAYS,
    "kind": ALWAYS,
    "model": ALWAYS,
    "model_config_folder": ALWAYS,  # refused beside anything but a single file
    "attribute_of": ALWAYS,
    "seed": ALWAYS,
    "device": ALWAYS,
    "method.data": (_TEXT,),
    "prompts.n": (_DRAWN,),
    "prompts.n_test": ALWAYS,
    "prompts.file": (_TEXT,),
    "prompts.synonyms": (_TEXT,),
    "prompts.source": (_TEXT,),
    "prompts.llm_url": (_TEXT, _MADE, _LLM),
    "prompts.llm_model": (_TEXT, _MADE, _LLM),
    "prompts.keep_forgotten": (_TEXT,),
    "prompts.llm_fallback": (_TEXT, _MADE, _LLM),
    "prompts.replace_with": (_REDIRECTS,),
    "data.dataset": ALWAYS,  # refused without kind 'class'
    "data.retain_classes": (_CLASS, _DATASET),
    "data.retain_per_class": (_CLASS, _DATASET),
    "data.similar_classes": (_CLASS, _DATASET, _SIMILAR),
    "data.forget_images": (_SEEN,),  # and refused with kind 'class' and with several concepts
    "data.flip_images": (_PICTURES, _SEEN),
    "samples.num_inference_steps": ALWAYS,
    "samples.guidance_scale": ALWAYS,
    "samples.training_guidance_scale": (_STEPS, _DRAWN, _IMAGES),
    "samples.training_num_inference_steps": (_STEPS, _DRAWN, _IMAGES),
    "samples.scheduler": ALWAYS,
    "samples.sample_batch_size": ALWAYS,
    "samples.image_size": ALWAYS,
    "samples.sample_precision": (_TEXT,),
    "samples.offload": (_TEXT, _ON_GPU),
    "training.steps": (_STEPS,),
    "training.early_stop": ALWAYS,  # refused without a forget limit
    "training.batch_size": (_STEPS,),
    "training.retain_batch": (_STEPS, _RETAIN),
    "training.proportion_empty_prompts": (_STEPS, _RETAIN),
    "training.gradient_accumulation_steps": (_STEPS,),
    "training.learning_rate": (_STEPS,),
    "training.warmup_steps": (_STEPS,),
    "training.lr_scheduler": (_STEPS,),
    "training.parameters": (_STEPS,),
    "training.adapter_rank": (_LORA,),
    "training.adapter_alpha": (_LORA,),
    "training.adapter_targets": (_LORA,),
    "training.metric": ALWAYS,  # refused beside methods that don't project
    "training.guard": ALWAYS,  # refused beside methods without both terms
    "training.precision": (_STEPS,),
    "training.gradient_checkpointing": (_STEPS,),
    "training.optimizer": (_STEPS,),
    "training.forget_gradient": (_ELSEWHERE,),  # and refused beside methods with one gradient
    "training.torch_compile": (_STEPS,),
    "training.channels_last": (_STEPS,),
    "training.max_grad_norm": (_STEPS,),
    "training.checkpoint_every": (_STEPS, _reached("checkpoint_every")),
    "training.preview_every": (_STEPS, _reached("preview_every")),
    "training.deterministic": (_GPU,),
    "training.base_precision": (_STEPS,),  # and refused where nothing is frozen
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
    "audits.alignment_transform": (_ALIGNMENT,),
    "output.formats": ALWAYS,
    "output.dtype": ALWAYS,
    "output.lora_rank": (_LORA_FILE, _EXTRACTED, _RANK),
    "output.lora_energy": (_LORA_FILE, _EXTRACTED),
}
"""Every field that all methods have, by its path with dots -> what it needs; the first need that is not met is told.

The methods' own options are in `MethodConfig.idle`. What a file of prompts leaves without effect is told by whoever
reads it (`run.prompts.make_prompts`), who knows its rows.
"""


def idle_options(setting: Setting, only: Iterable[str] = (), trains: bool = True) -> list[str]:
    """A line for each option that was given and has no effect.

    Args:
        setting: what is to be done.
        only: sections and fields as `fields_of` takes them, for a command that has no others.
        trains: whether a model is trained; the methods' options need that.
    """
    recipe = setting.recipe
    known = {"concept": recipe.concept, "kind": recipe.kind, "model": recipe.model}
    method = recipe.method
    variant = {method.variants: getattr(method, method.variants)} if method.variants else {}
    usual = build_recipe({**known, "method": {"name": method.name, **variant}})
    own = recipe.method.idle()
    lines = []
    for field in fields_of(*only):
        if value_at(recipe, _attributes(field)) == value_at(usual, _attributes(field)):
            continue
        reasons = _unmet(field, setting, own, trains)
        lines += [f"{field.key} ({field.option}) has no effect {reason}." for reason in reasons]
    return lines


def _unmet(field: Field, setting: Setting, own: Mapping[str, str], trains: bool) -> Iterable[str]:
    """Why a field has no effect, the first reason; nothing if it has one."""
    if field.path[0] != "method" or field.key in NEEDS:
        untrained = (_DRAWN, _SEEN, _IMAGES, _REDIRECTS, _STEPS)
        needs = [need for need in NEEDS.get(field.key, ALWAYS) if trains or need not in untrained]
        return [need.told for need in needs if not need.met(setting)][:1]
    if not trains:
        return ["where nothing is trained"]
    return [own[field.path[-1]]] if field.path[-1] in own else []


def _attributes(field: Field) -> tuple[str, ...]:
    """Where a recipe keeps the field's value: `concept` is its `concepts`."""
    return ("concepts",) if field.path == ("concept",) else field.path
