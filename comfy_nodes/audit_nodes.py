"""Nodes that measure pictures, and one that shows a run's report."""

from typing import TYPE_CHECKING, Any

from ..pipeline.support.errors import UserError
from . import host
from .inputs import sentence
from .model import TYPE, Model
from .node import Node, shown
from .pictures import from_image, to_image
from .unlearning import check_clip_is_here

if TYPE_CHECKING:
    from torch import Tensor

_PER_LINE = 60


class AuditNudeNet(Node):
    """Counts and marks NudeNet's detections, and sorts the pictures."""

    TITLE = "Audit NudeNet"
    DESCRIPTION = (
        "Counts body parts with NudeNet, marks them, and sorts the pictures. Needs the package nudenet, whose licence "
        "file says AGPL-3.0."
    )
    SEARCH_ALIASES = ("nudity detector", "nsfw check", "nudenet", "safety audit", "blur nudity")
    OUTPUT_NODE = True
    RETURN_TYPES = ("STRING", "INT", "BOOLEAN", "IMAGE", "IMAGE", "IMAGE")
    RETURN_NAMES = ("counts", "total", "flagged", "annotated", "flagged_images", "clean_images")
    OUTPUT_TOOLTIPS = (
        "How often each label was detected, as text.",
        "The number of all detections.",
        "True if there was any detection.",
        "All pictures with boxes around the detections, blurred inside if `blur` is on.",
        "The pictures with detections. If there are none, nodes wired here are skipped.",
        "The pictures without detections. If there are none, nodes wired here are skipped.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Pictures, and the recipe's fields for this audit."""
        from ..pipeline.schema.fields import fields

        threshold, labels = fields()["nudity_threshold"], fields()["nudity_labels"]
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "The pictures to audit."}),
                "threshold": (
                    "FLOAT",
                    {
                        "default": threshold.default,
                        "min": threshold.low,
                        "max": threshold.high,
                        "step": 0.05,
                        "tooltip": sentence(threshold.help, "The paper takes 0.6."),
                    },
                ),
                "labels": (
                    "STRING",
                    {
                        "default": labels.default,
                        "tooltip": sentence(
                            labels.help, "A label is, for example, FACE_FEMALE. paper: seven exposed body parts."
                        ),
                    },
                ),
                "blur": ("BOOLEAN", {"default": False, "tooltip": "Make the content of the boxes unrecognisable."}),
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
    """Measures with CLIP how well pictures fit their prompts."""

    TITLE = "Audit CLIP Alignment"
    DESCRIPTION = (
        "Measures the CLIP cosine between each picture and its prompt, the gap to a second batch, and the cosine with "
        "what should be drawn instead."
    )
    SEARCH_ALIASES = ("clip score", "clip alignment", "prompt alignment", "text image similarity")
    OUTPUT_NODE = True
    INPUT_IS_LIST = True
    RETURN_TYPES = ("FLOAT", "FLOAT", "FLOAT", "STRING", "FLOAT")
    RETURN_NAMES = ("mean", "gap", "per_image", "text", "anchor")
    OUTPUT_IS_LIST = (False, False, True, False, False)
    OUTPUT_TOOLTIPS = (
        "Mean cosine of the pictures with their prompts, in [-1, 1].",
        "Mean of `images` minus mean of `other_images`; 0 without a second batch.",
        "The cosine of each picture.",
        "The cosine and the prompt of each picture, one line for each.",
        "Mean cosine of the pictures with `anchors`; 0 without them.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Pictures, their prompts, and a CLIP model."""
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "The pictures to score."}),
                "prompts": (
                    "STRING",
                    {
                        "forceInput": True,
                        "tooltip": "One prompt for each picture: a list, or a text with one prompt on each line.",
                    },
                ),
                **_clip_widgets(),
            },
            "optional": {
                "other_images": ("IMAGE", {"tooltip": "Pictures of the same prompts from another model, for the gap."}),
                "anchors": (
                    "STRING",
                    {
                        "forceInput": True,
                        "tooltip": "What each picture should show instead, from Generate: a list, or one on each line.",
                    },
                ),
            },
        }

    def work(  # noqa: D102
        self,
        images: list[Any],
        prompts: list[str],
        model: list[str],
        allow_download: list[bool],
        other_images: list[Any] | None = None,
        anchors: list[str] | None = None,
    ) -> Any:
        from ..pipeline.audits import AlignmentAudit

        check_clip_is_here(model[0].strip(), allow_download[0])
        asked = {"prompts": _lines(prompts)} | ({"anchors": _lines(anchors)} if anchors else {})
        lines = asked["prompts"]
        audit = AlignmentAudit(model[0].strip(), device=host.compute_device() if host.running() else "cpu")

        def scores(batches: list[Any]) -> "list[Tensor]":
            pixels = [picture for batch in batches for picture in from_image(batch)]
            for name, texts in asked.items():
                if len(pixels) != len(texts):
                    raise UserError(
                        f"expected one prompt for each picture, got {len(pixels)} pictures and {len(texts)} {name}. "
                        f"Wire `images` and `{name}` of the same Generate node."
                    )
            return audit.score_each(pixels, list(asked.values()), host.NodeProgress())

        (own_scores, *to_anchors) = scores(images)
        own = own_scores.tolist()
        mean = sum(own) / len(own)
        head = f"mean {mean:.3f} over {len(own)} pictures ({audit.model_name})"
        gap = anchor = 0.0
        if to_anchors:
            anchor = to_anchors[0].mean().item()
            head += f", with what should be drawn instead {anchor:.3f}"
        if other_images:
            other = scores(other_images)
            gap = mean - other[0].mean().item()
            head += f", other {mean - gap:.3f}, gap {gap:+.3f}"
            if to_anchors:
                head += f", other with what should be drawn instead {other[1].mean().item():.3f}"
        text = "\n".join(
            [head, *(f"{score:+.3f}  {prompt[:_PER_LINE]}" for score, prompt in zip(own, lines, strict=True))]
        )
        return shown(text, mean, gap, own, text, anchor)


class AuditConcept(Node):
    """Asks CLIP what pictures show: the concept, another thing of its kind, or random noise."""

    TITLE = "Audit Concept"
    DESCRIPTION = (
        "Asks CLIP of each picture whether it shows the concept, another thing of its kind or random noise, and sorts "
        "the pictures. UA is the share without the concept."
    )
    SEARCH_ALIASES = ("unlearning accuracy", "zero-shot classifier", "clip classify", "is it forgotten")
    OUTPUT_NODE = True
    RETURN_TYPES = ("FLOAT", "STRING", "STRING", "IMAGE", "IMAGE")
    RETURN_NAMES = ("ua", "seen", "text", "with_concept", "without_concept")
    OUTPUT_IS_LIST = (False, True, False, False, False)
    OUTPUT_TOOLTIPS = (
        "Share of the pictures that CLIP calls something else than the concept.",
        "What CLIP calls each picture.",
        "UA, the judge, and how often it answered what.",
        "The pictures that it calls the concept. If there are none, nodes wired here are skipped.",
        "The others. If there are none, nodes wired here are skipped.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Pictures, a concept, and a CLIP model."""
        from ..pipeline.schema.fields import fields

        known = fields()
        kinds = [kind for kind in known["kind"].choices if kind in ("object", "style")]
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "The pictures to look at, drawn for prompts with the concept."}),
                "concept": ("STRING", {"default": "astronaut", "tooltip": sentence(known["concept"].help)}),
                "kind": (kinds, {"default": kinds[0], "tooltip": "Sort of concept. Nudity is for Audit NudeNet."}),
                **_clip_widgets(),
            }
        }

    def work(self, images: Any, concept: str, kind: str, model: str, allow_download: bool) -> Any:  # noqa: D102
        from ..pipeline.audits import ClipModel, ConceptAudit
        from ..pipeline.prompts import questions_about
        from ..pipeline.prompts.concepts import read_concepts
        from ..pipeline.worlds import find_world

        name = model.strip()
        world = find_world("tiny-canvas" if name == "tiny-canvas" else "open")
        questions = questions_about(read_concepts(concept), kind, world)
        if not questions:
            raise UserError(
                f"expected a concept of kind {kind!r} that {name!r} can tell from others, got {concept!r}. Audit "
                "NudeNet is for nudity; the judge 'tiny-canvas' knows only the words of that world."
            )
        check_clip_is_here(name, allow_download)
        device = host.compute_device() if host.running() else "cpu"
        audit = ConceptAudit(ClipModel.load(name, device), questions)
        found = audit.answers(from_image(images), host.NodeProgress())
        result, shows = audit.summary(found), [audit.shows(one) for one in found]
        lines = [f"UA {result.UA:.3f} over {result.images} pictures, by {result.model} among {len(result.among)} names"]
        lines += [f"{answer} {share:.0%}" for answer, share in result.instead.items()]
        batches = [images[[place for place, one in enumerate(shows) if one == wanted]] for wanted in (True, False)]
        split = [batch if len(batch) else host.blocked(None) for batch in batches]
        text = "\n".join(lines)
        return shown(text, result.UA, [", ".join(one) for one in found], text, *split)


def _clip_widgets() -> dict[str, Any]:
    """Which CLIP model, and whether it may be fetched."""
    from ..pipeline.schema.fields import fields

    return {
        "model": (
            "STRING",
            {
                "default": "tiny-canvas",
                "tooltip": "'tiny-canvas' for pictures of the bundled model. For others "
                f"{fields()['alignment_model'].default!r} (the paper's), another 'architecture/pretrained' of "
                "open_clip, or the folder of a model.",
            },
        ),
        "allow_download": (
            "BOOLEAN",
            {"default": False, "tooltip": "Let open_clip download a model that is not cached."},
        ),
    }


def _lines(texts: list[str]) -> list[str]:
    return [line for text in texts for line in text.splitlines() if line.strip()]


class Report(Node):
    """Shows a run's figures and writes its report."""

    TITLE = "Unlearning Report"
    DESCRIPTION = (
        "Shows the figures of a run and writes report.html. Turn on `measure` of Unlearn Concept to have audits in it."
    )
    SEARCH_ALIASES = ("results", "unlearning report", "before after table", "model card")
    OUTPUT_NODE = True
    RETURN_TYPES = ("STRING", "STRING")
    RETURN_NAMES = ("text", "path")
    OUTPUT_TOOLTIPS = ("The figures before and after.", "The path of the run's report.html. Open it in a browser.")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """An unlearned model."""
        return {"required": {"model": (TYPE, {"tooltip": "From Unlearn Concept."})}}

    def work(self, model: Model) -> Any:  # noqa: D102
        from ..pipeline.report import course, rows, verdict, write_report
        from ..pipeline.run.folder import RunFolder

        results = RunFolder.open(model.run).results() if model.run else None
        if results is None or model.run is None:
            raise UserError(
                "expected an unlearned model, got one without a run. Wire Unlearn Concept before this node."
            )
        path = str(write_report(model.run))
        lines = [
            verdict(results).text,
            *(f"{row.name}: {row.before_text} -> {row.after_text}" for row in rows(results)),
        ]
        training = results.training
        conflict = f"; conflict in {training.conflict_rate:.0%} of them" if training.steps else ""
        lines.append(course(training) + conflict)
        lines.append(path)
        text = "\n".join(lines)
        return shown(text, text, path)
