"""Accuracies of unlearning in a world with known words: UA, IRA, CRA (UnlearnCanvas, Zhang et al. 2024); scene kept.

**Scene kept** says what remains of the pictures that the user looks at first. A forget prompt names the concept and
other values: "a photo of a cat in a meadow" also a style and a place. The share of these others that the judge still
sees in the picture, averaged over the forget test pictures, is `scene`:

    scene = mean_i |{d in O_i : guess_d(picture i) = value_d(prompt i)}| / |O_i|

O_i holds those of subject, style and place that prompt i names, without the dimension of its own concept and without
values that are to be forgotten as well. Pictures whose prompts name nothing else are left out. It is near 1 where
another picture is drawn instead, and near 0 where stripes and noise are: "random noise" is among the judge's answers.

Time is no part of it, as of interference: the judge recognises it in only two thirds of true renderings, and a figure
that starts there would hide what was lost. `scene_by_dimension` has the share of each dimension alone, time among them.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import ClassVar, Self

import torch

from ..maths.metrics import bootstrap_interval, domain_retention
from ..schema.image_sets import FORGET_TEST, RETAIN_TEST
from ..schema.recipe import AuditSection
from ..schema.results import AccuracyResult, Interval, Record, ValueAccuracy
from ..support.errors import UserError, given
from ..support.progress import Progress, Silent
from ..support.text import number, points, relative
from ..worlds import World, find_world
from .base import Audit, AuditImages, Judges, Subject
from .clip import ClipModel, check_clip, check_clip_name
from .figures import Better, Evidence, Loss, Row, misses, moved, stayed, with_interval
from .images import Images, to_uint8
from .interference import DIMENSIONS
from .zero_shot import accuracies, accuracy, classify, hits


class AccuracyAudit(Audit[AccuracyResult]):
    """Does the model still draw the concept, what does it draw instead, and does it still draw everything else?

    Labels are read from the prompts, guesses are made zero-shot by `clip`. CRA looks at subject and
    style only, the two domains of UnlearnCanvas; `by_dimension` holds place and time too.

    Args:
        clip: the judge; the one that the world names, for the numbers in the documentation.
        world: whose values the judge tells apart; None: tiny-canvas.

    Raises:
        UserError: something that is no CLIP model, or no world.
    """

    name: ClassVar[str] = "accuracy"
    result: ClassVar[type[Record]] = AccuracyResult

    def __init__(self, clip: ClipModel, world: World | None = None) -> None:
        self.clip = check_clip(clip)
        self.world = world or find_world("tiny-canvas")
        if not isinstance(self.world, World):
            raise UserError(f"expected a world, got {given(world)}. `turpentine.pipeline.worlds.find_world` gives one.")

    @classmethod
    def wanted(cls, options: AuditSection, subject: Subject) -> bool:
        """Measure where the world has a judge that knows the concepts."""
        return options.accuracy and subject.world.measures_accuracy(subject.concepts)

    @classmethod
    def build(cls, options: AuditSection, subject: Subject, judges: Judges) -> Self:
        """Measure by the judge of the subject's world, whatever model alignment is measured by."""
        if subject.world.judge is None:
            raise UserError(f"expected a world with a judge for accuracies, got {subject.world.name!r}.")
        return cls(judges.clip(subject.world.judge), subject.world)

    @classmethod
    def check(
        cls, options: AuditSection, subject: Subject, prompts: Mapping[str, Sequence[str]], side: int | None = None
    ) -> list[str]:
        """Refuse prompts whose pictures can't be labelled, and a judge that is not there."""
        judge = subject.world.judge
        _asked(subject.world, subject.concepts, prompts[FORGET_TEST], prompts[RETAIN_TEST])
        return check_clip_name(judge) if judge else []

    def measure(self, images: AuditImages, subject: Subject, progress: Progress) -> AccuracyResult:
        """Measure on the two test sets."""
        forget, retain = images.forget_test, images.retain_test
        return self(subject.concepts, forget.images, forget.prompts, retain.images, retain.prompts, progress)

    def __call__(
        self,
        concepts: Sequence[str],
        forget_images: Images,
        forget_prompts: Sequence[str],
        retain_images: Images,
        retain_prompts: Sequence[str],
        progress: Progress | None = None,
    ) -> AccuracyResult:
        """Measure UA, IRA, CRA and the scene kept; an interval is a 95 % bootstrap interval.

        Args:
            concepts: values or phrases of the world, for example "cat" or "pop art". UA is over all forget
                images, each with its own concept; IRA and CRA are means over concepts.
            forget_images: pictures of the forget test prompts.
            forget_prompts: one for each.
            retain_images: pictures of the retain test prompts.
            retain_prompts: one for each.
            progress: told about each batch.

        Raises:
            UserError: the concept is none of this world, or the prompts don't fit it.
        """
        forget, retain = to_uint8(forget_images), to_uint8(retain_images)
        for images, prompts in ((forget, forget_prompts), (retain, retain_prompts)):
            if len(images) != len(prompts):
                raise UserError(f"expected a prompt for each image, got {len(images)} images, {len(prompts)} prompts.")
        targets, wanted, labels = _asked(self.world, concepts, forget_prompts, retain_prompts)
        with (progress or Silent()).stage("zero-shot accuracy", len(forget) + len(retain)) as advance:
            forget_features = self.clip.encode_images(forget, advance=advance)
            retain_features = self.clip.encode_images(retain, advance=advance)
        said = hits(retain_features, self.clip.encode_texts, labels, self.world)
        by_dimension = accuracies(said)
        domains = [domain_retention(by_dimension, own=dimension) for dimension, _ in targets]
        guesses = {
            dimension: classify(forget_features, self.clip.encode_texts, dimension, self.world)
            for dimension in self.world.words
        }
        seen = [(guesses[dimension][index], value) for index, (dimension, value) in enumerate(wanted)]
        others = [
            {
                dimension: guesses[dimension][index] == value
                for dimension, value in self.world.labels_of(prompt).items()
                if dimension != own and (dimension, value) not in targets
            }
            for index, (prompt, (own, _)) in enumerate(zip(forget_prompts, wanted, strict=True))
        ]
        scene = _interval(_scenes(others))
        return AccuracyResult(
            UA=1 - accuracy(seen),
            IRA=sum(in_domain for in_domain, _ in domains) / len(domains),
            CRA=sum(cross_domain for _, cross_domain in domains) / len(domains),
            scene=scene.mean if scene else None,
            scene_interval=scene,
            scene_by_dimension=_by_dimension(others),
            images=len(forget) + len(retain),
            by_dimension=by_dimension,
            by_value={name: _by_value(pairs) for name, pairs in said.items()},
        )

    @classmethod
    def rows(cls, before: AccuracyResult | None, after: AccuracyResult | None) -> list[Row]:
        """Give UA, the scene kept where it is known, IRA and CRA."""
        figures: tuple[tuple[str, str, Better, str], ...] = (
            (
                "UA",
                "UA (unlearning accuracy)",
                "higher",
                "Share of forget test images in which a zero-shot classifier misses the concept. Higher is better.",
            ),
            (
                "scene",
                "Scene kept",
                "close",
                "Share of what else the forget prompts name, such as style and place for a subject, that the "
                "classifier still sees in their pictures. Higher is better: near zero, what is drawn instead of the "
                "concept is wreckage. In brackets: 95 % bootstrap intervals.",
            ),
            (
                "IRA",
                "IRA (in-domain retain accuracy)",
                "close",
                "Share of retain test images whose value in the concept's own dimension is recognised. "
                "Higher is better; it should stay close to where it was.",
            ),
            (
                "CRA",
                "CRA (cross-domain retain accuracy)",
                "close",
                "The same for the other domain: styles for a subject, subjects for a style. Higher is better; it "
                "should stay close to where it was.",
            ),
        )
        result = []
        for key, name, better, meaning in figures:
            values = [getattr(side, key) if side else None for side in (before, after)]
            if values == [None, None] and key == "scene":
                continue
            x, y = (math.nan if value is None else value for value in values)
            intervals = [side.scene_interval if side and key == "scene" else None for side in (before, after)]
            texts = [with_interval(value, interval) for value, interval in zip((x, y), intervals, strict=True)]
            outcome = moved(x, y, "higher") if better == "higher" else stayed(x - y)
            result.append(Row(name, x, y, texts[0], texts[1], points(x, y), outcome, better, meaning))
        return result

    @classmethod
    def forgetting(cls, kind: str, before: AccuracyResult, after: AccuracyResult) -> Evidence | None:
        """Compare the shares of forget images that show the concept: 1 - UA."""
        return misses(before.UA, after.UA)

    @classmethod
    def scene(cls, before: AccuracyResult, after: AccuracyResult) -> Loss | None:
        """Compare the scene kept."""
        if before.scene is None or after.scene is None:
            return None
        return Loss(-relative(before.scene, after.scene), f"scene kept {number(after.scene, 2)}")

    @classmethod
    def keeping(cls, before: AccuracyResult, after: AccuracyResult) -> list[Loss]:
        """Compare IRA and CRA."""
        pairs = {key: (getattr(before, key), getattr(after, key)) for key in ("IRA", "CRA")}
        return [Loss(x - y, f"{key} {points(x, y)}") for key, (x, y) in pairs.items()]


def _asked(
    world: World, concepts: Sequence[str], forget_prompts: Sequence[str], retain_prompts: Sequence[str]
) -> tuple[list[tuple[str, str]], list[tuple[str, str]], dict[str, list[str | None]]]:
    """What prompts ask for.

    Returns:
        (dimension, value) of each concept, the same of each forget prompt, and dimension -> value of each retain
        prompt.

    Raises:
        UserError: the concept is none of this world, or the prompts don't fit it.
    """
    targets = [world.find_concept(name) for name in concepts]
    wanted = [_target(world, prompt, targets) for prompt in forget_prompts]
    read = [world.labels_of(prompt) for prompt in retain_prompts]
    labels = {name: [found.get(name) for found in read] for name in world.words}
    unsaid = {*(dimension for dimension, _ in targets), "subject", "style"}
    unsaid = {name for name in unsaid if not any(labels[name])}
    if unsaid:
        raise UserError(
            f"expected retain prompts that name a {' and a '.join(sorted(unsaid))} of the {world.name} world, "
            f"got none, for example {retain_prompts[0]!r}. Name some, or measure no accuracy (--accuracy false)."
        )
    return targets, wanted, labels


def _target(world: World, prompt: str, targets: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """Find the concept that a forget prompt asks for; a dimension left unsaid fits."""
    labels = world.labels_of(prompt)
    for dimension, value in targets:
        if labels.get(dimension, value if len(targets) == 1 else None) == value:
            return dimension, value
    values = " or ".join(repr(value) for _, value in targets)
    named = labels.get(targets[0][0])
    raise UserError(f"expected forget prompts about {values}, got {prompt!r}, which names {named!r}.")


def _scenes(others: Sequence[Mapping[str, bool]]) -> list[float]:
    """Give the share seen of each picture whose prompt names something else.

    Args:
        others: for each picture, dimension -> whether the judge sees what the prompt names there.
    """
    counted = [[seen for dimension, seen in one.items() if dimension in DIMENSIONS] for one in others]
    return [fmean(one) for one in counted if one]


def _by_dimension(others: Sequence[Mapping[str, bool]]) -> dict[str, float]:
    """Give the share of the pictures that show what their prompts name, for each dimension of `_scenes`' argument."""
    named = dict.fromkeys(dimension for one in others for dimension in one)
    return {name: fmean(one[name] for one in others if name in one) for name in named}


def _interval(shares: Sequence[float]) -> Interval | None:
    if not shares:
        return None
    mean, low, high = bootstrap_interval(torch.tensor(shares))
    return Interval(mean=mean, low=low, high=high, images=len(shares))


def _by_value(said: Sequence[tuple[str, str]]) -> dict[str, ValueAccuracy]:
    values = dict.fromkeys(label for _, label in said)
    parts = {value: [pair for pair in said if pair[1] == value] for value in sorted(values)}
    return {value: ValueAccuracy(accuracy=accuracy(part), images=len(part)) for value, part in parts.items()}
