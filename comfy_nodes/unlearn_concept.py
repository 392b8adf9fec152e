"""The node that unlearns, and a node with its finer settings."""

from typing import Any

from ..pipeline.schema.image_sets import FORGET_TEST
from . import host
from .inputs import chosen, seed_widget, sentence, widgets
from .model import TYPE, Model
from .node import Node, shown
from .pictures import keep_images, thumbnails, to_image
from .prompt_sets import TYPE as PROMPT_SET
from .saving import KINDS, NOTHING, native_model, save_model
from .unlearning import make_recipe, unlearn

_BASIC = ("training.steps", "training.learning_rate")
_ADVANCED = ("method", "training", "samples", "audits", "output")
_SKIP = ("method.data", *_BASIC, "audits.distance_features")  # the last is of class-conditional models
_OPTIONS = "TURPENTINE_OPTIONS"

_ORDER = """
    forget_limit retain_weight mask_share mask_guidance_scale mask negative_guidance start_guidance start_steps
    projection num_inference_steps guidance_scale training_guidance_scale scheduler sample_batch_size image_size
    early_stop batch_size retain_batch proportion_empty_prompts gradient_accumulation_steps warmup_steps
    lr_scheduler parameters adapter_rank adapter_alpha adapter_targets metric guard precision gradient_checkpointing
    optimizer forget_gradient torch_compile channels_last max_grad_norm checkpoint_every preview_every audit_images
    audit_retain_train_images nudity nudity_threshold nudity_labels alignment alignment_model accuracy
    audit_class_judge formats dtype lora_rank lora_energy forget ascend_share push retain combine budget warm_start
    erase_scale preserve_scale lamb rounds regularisation threshold retain_scale invariant_lamb aug_num
    training_num_inference_steps alignment_transform deterministic sample_precision offload base_precision
""".split()
"""The widgets of Unlearn Options as they came to be. A saved graph keeps values by position: new ones go to the end."""


class UnlearnOptions(Node):
    """Offers every setting of a recipe that Unlearn Concept doesn't show itself."""

    TITLE = "Unlearn Options"
    DESCRIPTION = (
        "Finer settings for Unlearn Concept. A setting at auto, -1 or empty takes the default of the model and method."
    )
    SEARCH_ALIASES = ("advanced unlearning", "training options", "recipe options", "lambda alpha")
    RETURN_TYPES = (_OPTIONS,)
    RETURN_NAMES = ("options",)
    OUTPUT_TOOLTIPS = ("The settings, for `options` of Unlearn Concept.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Widgets from the recipe's fields."""
        found = widgets(*_ADVANCED, skip=_SKIP, advanced=False)
        ordered = sorted(found, key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER))
        return {"required": {}, "optional": {name: found[name] for name in ordered}}

    def work(self, **inputs: Any) -> Any:  # noqa: D102
        return (chosen(inputs, *_ADVANCED, skip=_SKIP),)


class UnlearnConcept(Node):
    """Removes the prompts' concept from a model by fine-tuning along the restricted gradient."""

    TITLE = "Unlearn Concept"
    DESCRIPTION = (
        "Fine-tunes a model until it no longer draws the concept, and keeps the rest as it was. You can cancel at any "
        "time: queue the same graph again to continue. A finished training is loaded from disk."
    )
    SEARCH_ALIASES = ("erase concept", "remove concept", "machine unlearning", "RGD", "concept erasure", "nsfw removal")
    OUTPUT_NODE = True
    RETURN_TYPES = (TYPE, "MODEL", "STRING", "STRING", "IMAGE")
    RETURN_NAMES = ("unlearned", "MODEL", "path", "report", "before_after")
    OUTPUT_TOOLTIPS = (
        "The unlearned model, for Generate, Save Unlearned Weights, Unlearning Report or another Unlearn Concept.",
        "The unlearned MODEL for KSampler, if the model came from Model from ComfyUI.",
        "The path of the file or folder that was written; empty if nothing was.",
        "A few lines about the training and its files.",
        "Pictures of the same prompts and seeds before and after unlearning.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The settings that every run needs."""
        from ..pipeline.methods import names
        from ..pipeline.schema.fields import fields

        return {
            "required": {
                "model": (TYPE, {"tooltip": "From Model from ComfyUI or Model from diffusers. It stays as it is."}),
                "prompts": (
                    PROMPT_SET,
                    {"tooltip": "The prompts to forget and to retain, from Diverse Prompt Set or Load Prompt Set."},
                ),
                "method": (
                    names(),
                    {
                        "default": "rgd",
                        "tooltip": "How to unlearn. rgd: restricted gradient, diversified data. uce, rece and speed: "
                        "an edit in seconds, without steps.",
                    },
                ),
                **widgets(*_BASIC, advanced=False),
                "seed": seed_widget(sentence(fields()["seed"].help)),
                "save_as": (
                    [*KINDS, NOTHING],
                    {
                        "default": "delta",
                        "tooltip": "File to write into ComfyUI's folders. "
                        + "; ".join(f"{name}: {kind.meaning}" for name, kind in KINDS.items())
                        + ".",
                    },
                ),
                "measure": (
                    "BOOLEAN",
                    {"default": False, "tooltip": "Draw and audit pictures before and after, for Unlearning Report."},
                ),
            },
            "optional": {
                "options": (_OPTIONS, {"tooltip": "Finer settings, from Unlearn Options."}),
                "forget_images": (
                    "IMAGE",
                    {
                        "tooltip": "Pictures of what is to be forgotten, for what has no name: one person, a logo, a "
                        "single artwork. Picture after picture goes with the forget prompts; without them the model "
                        "draws these itself."
                    },
                ),
            },
        }

    def work(  # noqa: D102
        self,
        model: Model,
        prompts: Any,
        method: str,
        seed: int,
        save_as: str,
        measure: bool,
        options: dict[str, Any] | None = None,
        forget_images: Any = None,
        **basic: Any,
    ) -> Any:
        from ..pipeline.report import verdict
        from ..pipeline.run.folder import RunFolder
        from ..pipeline.schema.defaults import merge

        picked = merge(options or {}, merge(chosen(basic, *_BASIC), {"seed": seed}))
        if forget_images is not None:
            picked = merge(picked, {"data": {"forget_images": str(keep_images(forget_images))}})
        recipe = make_recipe(model, prompts, method, picked, measure)
        unlearned, run, done = unlearn(model, prompts, recipe)
        results = RunFolder.open(run).results()
        lines = [verdict(results).text] if results else []
        lines += [f"{prompts.concept!r} removed from {recipe.model} with {method}: {done}", f"Run: {run}"]
        path = ""
        if save_as != NOTHING:
            path = str(save_model(unlearned, save_as, "", recipe.output.dtype))
            lines.append(f"Weights: {path}")
        sheet = thumbnails(run, FORGET_TEST)
        pictures = host.blocked(None) if sheet is None else to_image([sheet])
        text = "\n".join(lines)
        return shown(text, unlearned, native_model(unlearned), path, text, pictures)
