"""A node that draws prompts, and one that puts pictures side by side."""

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
    RETAIN_TEST: "held-out prompts without the concept",
    RETAIN_TRAIN: "prompts without the concept from the training set",
    NUDITY: "prompts for NudeNet's count, which are forget_test, or its photos in the tiny-canvas world",
    NUDITY_FLOOR: "the same prompts without the concept, where every detection is a false alarm",
}


class Generate(Node):
    """Draws the prompts of a set with a model; the same seed before and after gives pictures to compare."""

    TITLE = "Generate"
    DESCRIPTION = "Draws the prompts of a set. Use the same seed before and after unlearning to compare."
    SEARCH_ALIASES = ("sample prompts", "draw prompt set", "before after images")
    RETURN_TYPES = ("IMAGE", "STRING", "STRING")
    RETURN_NAMES = ("images", "prompts", "anchors")
    OUTPUT_IS_LIST = (False, True, True)
    OUTPUT_TOOLTIPS = (
        "One picture for each prompt.",
        "One prompt for each picture, for Audit CLIP Alignment.",
        "What each picture of forget_test should show instead, for Audit CLIP Alignment; of other sets the prompts.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """A model, prompts, and the recipe's fields for sampling."""
        from ..pipeline.schema.fields import TRAINING_IMAGES

        return {
            "required": {
                "model": (TYPE, {"tooltip": "A model as loaded, or an unlearned one."}),
                "prompts": (PROMPT_SET, {"tooltip": "From Diverse Prompt Set."}),
                "which": (list(_SETS), {"tooltip": "; ".join(f"{name}: {text}" for name, text in _SETS.items()) + "."}),
                "images": ("INT", {"default": 8, "min": 1, "max": 1000, "tooltip": "Number of pictures."}),
                "seed": seed_widget("Picture i is drawn with this seed plus i."),
            },
            "optional": widgets("samples", skip=TRAINING_IMAGES),
        }

    def work(self, model: Model, prompts: Any, which: str, images: int, seed: int, **more: Any) -> Any:  # noqa: D102
        from ..pipeline.audits import Subject
        from ..pipeline.data.samples import draw_latents
        from ..pipeline.models.placing import staged
        from ..pipeline.run.audit import audit_anchors, audit_prompts
        from ..pipeline.run.stages import drawing_stages
        from ..pipeline.schema.defaults import build_part
        from ..pipeline.schema.fields import TRAINING_IMAGES
        from ..pipeline.schema.recipe import AuditSection
        from ..pipeline.worlds import find_world

        picked = {"model": model.denoiser.name} | chosen(more, "samples", skip=TRAINING_IMAGES)
        spec = build_part(picked, "samples").samples
        audits = AuditSection(images=images, retain_train_images=images, nudity="on")
        sets = audit_prompts(prompts, audits, Subject(prompts.concepts, prompts.kind, find_world(prompts.world)))
        name = which if which in sets else STAND_INS[which]
        texts = sets[name]
        anchors = audit_anchors(prompts, audits) if name == FORGET_TEST else texts
        with model.borrowed() as (denoiser, _):
            with staged(denoiser, drawing_stages(spec, denoiser.device)):
                latents = draw_latents(denoiser, texts, spec.sampling(), seed, host.NodeProgress(), "drawing")
            pixels = denoiser.decode(latents)
        return (to_image(pixels), texts, anchors)


class Compare(Node):
    """Puts pictures before and after unlearning side by side."""

    TITLE = "Compare"
    DESCRIPTION = "Puts two batches side by side: one row for each picture, before on the left, after on the right."
    SEARCH_ALIASES = ("side by side", "before after", "image grid")
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("grid",)
    OUTPUT_TOOLTIPS = ("One picture with the whole grid.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Two batches and their titles."""
        return {
            "required": {
                "before": ("IMAGE", {"tooltip": "Pictures of the model before unlearning."}),
                "after": (
                    "IMAGE",
                    {"tooltip": "As many pictures of the unlearned model, with the same prompts and seed."},
                ),
                "rows": (
                    "INT",
                    {"default": 8, "min": 1, "max": 64, "tooltip": "Number of rows: the first pictures of each batch."},
                ),
            },
            "optional": {
                "title_before": ("STRING", {"default": "before", "tooltip": "Title of the left column."}),
                "title_after": ("STRING", {"default": "after", "tooltip": "Title of the right column."}),
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
