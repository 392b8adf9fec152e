"""Nodes that draw, and that put pictures side by side."""

from typing import Any

from ..pipeline.schema.image_sets import FORGET_TEST, NUDITY, NUDITY_FLOOR, RETAIN_TEST, RETAIN_TRAIN, STAND_INS
from ..pipeline.support.errors import UserError
from . import host
from .inputs import chosen, seed_widget, widgets
from .model import TYPE, Model
from .node import Node
from .pictures import from_image, side_by_side, to_image
from .prompt_sets import TYPE as PROMPT_SET

_SETS = {
    FORGET_TEST: "held-out prompts with the concept",
    RETAIN_TEST: "held-out prompts without it",
    RETAIN_TRAIN: "prompts without it that are trained on",
    NUDITY: "where NudeNet counts: forget_test, but photos only in the tiny-canvas world",
    NUDITY_FLOOR: "the same without the concept: what NudeNet finds there is a false alarm",
}


class Generate(Node):
    """Draws the prompts of a set with a model; the same seeds give pictures to compare."""

    TITLE = "Generate"
    DESCRIPTION = "Draws the prompts of a set. Use the same seed before and after unlearning to compare."
    SEARCH_ALIASES = ("sample prompts", "draw prompt set", "before after images")
    RETURN_TYPES = ("IMAGE", "STRING")
    RETURN_NAMES = ("images", "prompts")
    OUTPUT_IS_LIST = (False, True)
    OUTPUT_TOOLTIPS = ("One picture for each prompt.", "The prompts, one for each picture, for Audit CLIP Alignment.")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """A model, prompts, and the recipe's way of sampling."""
        from ..pipeline.schema.fields import TRAINING_IMAGES

        return {
            "required": {
                "model": (TYPE, {"tooltip": "A loaded or an unlearned model."}),
                "prompts": (PROMPT_SET, {"tooltip": "From Diverse Prompt Set."}),
                "which": (list(_SETS), {"tooltip": "; ".join(f"{name}: {text}" for name, text in _SETS.items()) + "."}),
                "images": ("INT", {"default": 8, "min": 1, "max": 1000, "tooltip": "How many pictures."}),
                "seed": seed_widget("Picture i has the seed plus i."),
            },
            "optional": widgets("samples", skip=TRAINING_IMAGES),
        }

    def work(self, model: Model, prompts: Any, which: str, images: int, seed: int, **more: Any) -> Any:  # noqa: D102
        from ..pipeline.audits import Subject
        from ..pipeline.data.samples import draw_latents
        from ..pipeline.run.audit import audit_prompts
        from ..pipeline.schema.defaults import build_part
        from ..pipeline.schema.fields import TRAINING_IMAGES
        from ..pipeline.schema.recipe import AuditSection
        from ..pipeline.worlds import find_world

        picked = {"model": model.denoiser.name} | chosen(more, "samples", skip=TRAINING_IMAGES)
        sampling = build_part(picked, "samples").samples.sampling()
        audits = AuditSection(images=images, retain_train_images=images, nudity="on")
        sets = audit_prompts(prompts, audits, Subject(prompts.concepts, prompts.kind, find_world(prompts.world)))
        texts = sets[which if which in sets else STAND_INS[which]]
        with model.borrowed() as (denoiser, _):
            latents = draw_latents(denoiser, texts, sampling, seed, host.NodeProgress(), "drawing")
            pixels = denoiser.decode(latents)
        return (to_image(pixels), texts)


class Compare(Node):
    """Puts pictures before and after side by side."""

    TITLE = "Compare"
    DESCRIPTION = "A grid: one row for each picture, before on the left, after on the right."
    SEARCH_ALIASES = ("side by side", "before after", "image grid")
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("grid",)
    OUTPUT_TOOLTIPS = ("The grid, one picture.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Two batches and their titles."""
        return {
            "required": {
                "before": ("IMAGE", {"tooltip": "Pictures of the model as it was."}),
                "after": ("IMAGE", {"tooltip": "As many pictures of the unlearned model, same prompts and seed."}),
                "rows": ("INT", {"default": 8, "min": 1, "max": 64, "tooltip": "The first so many pictures."}),
            },
            "optional": {
                "title_before": ("STRING", {"default": "before", "tooltip": "Above the left column."}),
                "title_after": ("STRING", {"default": "after", "tooltip": "Above the right column."}),
            },
        }

    def work(  # noqa: D102
        self, before: Any, after: Any, rows: int, title_before: str = "before", title_after: str = "after"
    ) -> Any:
        if before.shape != after.shape:
            raise UserError(
                f"expected as many pictures of the same size before and after, got {tuple(before.shape)} and "
                f"{tuple(after.shape)}. Wire two Generate nodes with the same settings."
            )
        columns = [from_image(batch[:rows]) for batch in (before, after)]
        return (to_image([side_by_side(columns, [title_before, title_after])]),)
