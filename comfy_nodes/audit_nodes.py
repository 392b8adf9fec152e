"""Nodes that measure pictures, and the one that shows a run's report."""

from typing import Any

from ..pipeline.support.errors import UserError
from . import host
from .model import TYPE, Model
from .node import Node, shown
from .pictures import from_image, to_image
from .unlearning import check_clip_is_here

_PER_LINE = 60


class AuditNudeNet(Node):
    """Counts what NudeNet sees, marks it, and sorts the pictures."""

    TITLE = "Audit NudeNet"
    DESCRIPTION = "Counts body parts with NudeNet. Needs the package nudenet (its licence file says AGPL-3.0)."
    SEARCH_ALIASES = ("nudity detector", "nsfw check", "nudenet", "safety audit", "blur nudity")
    OUTPUT_NODE = True
    RETURN_TYPES = ("STRING", "INT", "BOOLEAN", "IMAGE", "IMAGE", "IMAGE")
    RETURN_NAMES = ("counts", "total", "flagged", "annotated", "flagged_images", "clean_images")
    OUTPUT_TOOLTIPS = (
        "Detections of each label, as text.",
        "All detections.",
        "Whether there was any.",
        "The pictures with boxes, blurred inside if you like.",
        "Only the pictures with detections; what is wired here is skipped if there are none.",
        "Only the pictures without; what is wired here is skipped if there are none.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Pictures and the recipe's options of this audit."""
        from ..pipeline.schema.recipe import AuditSection

        fields = AuditSection.model_fields
        threshold, labels = fields["nudity_threshold"], fields["nudity_labels"]
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "What to look at."}),
                "threshold": (
                    "FLOAT",
                    {
                        "default": threshold.default,
                        "min": 0.25,
                        "max": 1.0,
                        "step": 0.05,
                        "tooltip": f"{threshold.description}; the paper takes 0.6.",
                    },
                ),
                "labels": (
                    "STRING",
                    {
                        "default": labels.default,
                        "tooltip": f"{labels.description}, as FACE_FEMALE. paper: seven exposed body parts.",
                    },
                ),
                "blur": ("BOOLEAN", {"default": False, "tooltip": "Make what is inside the boxes unrecognisable."}),
            }
        }

    def work(self, images: Any, threshold: float, labels: str, blur: bool) -> Any:  # noqa: D102
        from ..pipeline.audits import NudityAudit, annotate

        audit = NudityAudit(threshold, labels.strip())
        pixels = from_image(images)
        found = audit.detect(pixels, progress=host.NodeProgress())
        counts = dict.fromkeys(audit.labels, 0)
        for detection in (one for of_image in found for one in of_image):
            counts[detection.label] += 1
        total, flags = sum(counts.values()), [bool(of_image) for of_image in found]
        lines = [f"{sum(flags)} of {len(flags)} pictures flagged, {total} detections at {threshold:g} or above"]
        lines += [f"{label} {count}" for label, count in counts.items() if count]
        marked = to_image([annotate(picture, of_image, blur) for picture, of_image in zip(pixels, found, strict=True)])
        batches = [
            images[[place for place, flag in enumerate(flags) if flag == wanted_flag]] for wanted_flag in (True, False)
        ]
        split = [batch if len(batch) else host.blocked(None) for batch in batches]
        text = "\n".join(lines)
        return shown(text, text, total, total > 0, marked, *split)


class AuditAlignment(Node):
    """How well pictures fit their prompts, by CLIP."""

    TITLE = "Audit CLIP Alignment"
    DESCRIPTION = "Cosine between each picture and its prompt, and the gap to a second batch."
    SEARCH_ALIASES = ("clip score", "clip alignment", "prompt alignment", "text image similarity")
    OUTPUT_NODE = True
    INPUT_IS_LIST = True
    RETURN_TYPES = ("FLOAT", "FLOAT", "FLOAT", "STRING")
    RETURN_NAMES = ("mean", "gap", "per_image", "text")
    OUTPUT_IS_LIST = (False, False, True, False)
    OUTPUT_TOOLTIPS = (
        "Mean cosine of the pictures with their prompts, in [-1, 1].",
        "Mean of `images` minus mean of `other_images`; 0 without a second batch.",
        "The cosine of each picture.",
        "Figures and prompts, one line for each picture.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Pictures, prompts, a model."""
        from ..pipeline.schema.recipe import AuditSection

        open_world = AuditSection.model_fields["alignment_model"].default
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "What to score."}),
                "prompts": (
                    "STRING",
                    {"forceInput": True, "tooltip": "One for each picture: a list, or one text with a line for each."},
                ),
                "model": (
                    "STRING",
                    {
                        "default": "tiny-canvas",
                        "tooltip": f"'tiny-canvas' for its own pictures; for others {open_world!r} (the paper's), "
                        "another name of open_clip, or the folder of a model.",
                    },
                ),
                "allow_download": (
                    "BOOLEAN",
                    {"default": False, "tooltip": "Let open_clip fetch a model by its name if it isn't cached."},
                ),
            },
            "optional": {
                "other_images": ("IMAGE", {"tooltip": "The same prompts drawn by another model, for the gap."}),
            },
        }

    def work(  # noqa: D102
        self,
        images: list[Any],
        prompts: list[str],
        model: list[str],
        allow_download: list[bool],
        other_images: list[Any] | None = None,
    ) -> Any:
        from ..pipeline.audits import AlignmentAudit

        check_clip_is_here(model[0].strip(), allow_download[0])
        lines = [line for text in prompts for line in text.splitlines() if line.strip()]
        audit = AlignmentAudit(model[0].strip(), device=host.compute_device() if host.running() else "cpu")

        def scores(batches: list[Any]) -> list[float]:
            pixels = [picture for batch in batches for picture in from_image(batch)]
            if len(pixels) != len(lines):
                raise UserError(
                    f"expected one prompt for each picture, got {len(pixels)} pictures and {len(lines)} prompts. Wire "
                    "`images` and `prompts` of the same Generate node."
                )
            return audit.score(pixels, lines, host.NodeProgress()).tolist()

        own = scores(images)
        mean = sum(own) / len(own)
        head = f"mean {mean:.3f} over {len(own)} pictures ({audit.model_name})"
        gap = 0.0
        if other_images:
            other = scores(other_images)
            gap = mean - sum(other) / len(other)
            head += f", other {mean - gap:.3f}, gap {gap:+.3f}"
        text = "\n".join(
            [head, *(f"{score:+.3f}  {prompt[:_PER_LINE]}" for score, prompt in zip(own, lines, strict=True))]
        )
        return shown(text, mean, gap, own, text)


class Report(Node):
    """A run's figures, and the way to its page."""

    TITLE = "Unlearning Report"
    DESCRIPTION = "Shows what a run measured. With `measure` on, UnlearnConcept also writes report.html."
    SEARCH_ALIASES = ("results", "unlearning report", "before after table", "model card")
    OUTPUT_NODE = True
    RETURN_TYPES = ("STRING", "STRING")
    RETURN_NAMES = ("text", "path")
    OUTPUT_TOOLTIPS = ("The figures before and after.", "report.html of the run, which a browser opens.")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """An unlearned model."""
        return {"required": {"model": (TYPE, {"tooltip": "From UnlearnConcept."})}}

    def work(self, model: Model) -> Any:  # noqa: D102
        from ..pipeline.report import rows, verdict, write_report
        from ..pipeline.run.folder import RunFolder

        results = RunFolder.open(model.run).results() if model.run else None
        if results is None or model.run is None:
            raise UserError("expected an unlearned model, got one without a run. Wire UnlearnConcept before this node.")
        path = str(write_report(model.run))
        lines = [
            verdict(results).text,
            *(f"{row.name}: {row.before_text} -> {row.after_text}" for row in rows(results)),
        ]
        training = results.training
        lines.append(
            f"{training.steps} steps in {training.seconds:.0f} s; conflict in {training.conflict_rate:.0%} of them"
        )
        lines.append(path)
        text = "\n".join(lines)
        return shown(text, text, path)
