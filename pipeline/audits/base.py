"""The protocol of an audit: the pictures it wants, its result, and how that reads before and after unlearning.

An audit is a file of this folder and a line of `registry.AUDITS`. All else goes over the registry: which
pictures are drawn, `results.json`, the table of figures, the verdict and the sections of the report.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Self, TypeVar, cast

import numpy as np
import torch

from ..prompts import PromptPair
from ..schema.image_sets import ALWAYS_DRAWN, FORGET_TEST, RETAIN_TEST, RETAIN_TRAIN, STAND_INS
from ..schema.recipe import AuditSection
from ..schema.results import AuditResult, Record
from ..support.errors import UserError
from ..support.progress import Progress
from ..worlds import World
from .clip import ClipModel
from .figures import Evidence, Loss, Row, Section

Result = TypeVar("Result", bound=Record)


@dataclass(frozen=True)
class Subject:
    """The concepts that were, or are to be, forgotten, and the world they belong to.

    Attributes:
        concepts: one or several.
        kind: of the concepts, as a recipe has it.
        world: whose words the prompts use.
        dataset: the real images of a class-conditional model, as a recipe names them.
        pictures: those to forget, as a recipe names them.
        attribute_of: the object that keeps everything but the concept, as a recipe names it.
    """

    concepts: tuple[str, ...]
    kind: str
    world: World
    dataset: str | None = None
    pictures: str | None = None
    attribute_of: str | None = None


@dataclass(frozen=True)
class ImageSet:
    """Images and the prompt of each.

    Raises:
        UserError: numbers of images, prompts and anchors differ.
    """

    images: np.ndarray
    """uint8 RGB, shape (N, H, W, 3)."""
    prompts: Sequence[str]
    anchors: Sequence[str] | None = None
    """What each picture should show instead of what its prompt asks for; None where that is not known."""

    def __post_init__(self) -> None:
        for noun, texts in (("prompt", self.prompts), ("anchor", self.anchors)):
            if texts is not None and len(self.images) != len(texts):
                raise UserError(
                    f"expected one {noun} for each image, got {len(self.images)} images and {len(texts)} {noun}s."
                )


@dataclass(frozen=True)
class AuditImages:
    """The pictures that one model drew, before or after unlearning.

    Attributes:
        forget_test: of the held-out forget prompts.
        retain_train: of retain prompts that were trained on.
        retain_test: of the held-out retain prompts.
        further: sets that an audit asked for by `further_prompts`, by name.
    """

    forget_test: ImageSet
    retain_train: ImageSet
    retain_test: ImageSet
    further: Mapping[str, ImageSet] = field(default_factory=dict)

    @classmethod
    def of(cls, sets: Mapping[str, ImageSet]) -> Self:
        """Take sets by their names."""
        further = {name: one for name, one in sets.items() if name not in ALWAYS_DRAWN}
        return cls(sets[FORGET_TEST], sets[RETAIN_TRAIN], sets[RETAIN_TEST], further)

    def named(self, name: str) -> ImageSet:
        """Give a set by its name, or what stands in for it where it was not drawn."""
        sets = {
            FORGET_TEST: self.forget_test,
            RETAIN_TRAIN: self.retain_train,
            RETAIN_TEST: self.retain_test,
            **self.further,
        }
        return sets[name if name in sets else STAND_INS[name]]


class Judges:
    """CLIP models by name, each loaded once however many audits ask for it.

    Args:
        device: where they compute.
    """

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self.device = device
        self._loaded: dict[str, ClipModel] = {}

    def clip(self, name: str) -> ClipModel:
        """Give a model; see `ClipModel.load`."""
        if name not in self._loaded:
            self._loaded[name] = ClipModel.load(name, self.device)
        return self._loaded[name]


class Audit(ABC, Generic[Result]):
    """One way to measure what a model draws.

    Attributes:
        name: its key in `results.json`, under `audits.before` and `audits.after`.
        result: the class of its results.
        sets: names of the sets of pictures that it wants beside `ALWAYS_DRAWN`; see `further_prompts`.
    """

    name: ClassVar[str]
    result: ClassVar[type[Any]]
    sets: ClassVar[tuple[str, ...]] = ()

    @classmethod
    @abstractmethod
    def wanted(cls, options: AuditSection, subject: Subject) -> bool:
        """Tell whether the user asked for this audit and the subject can be measured by it."""

    @classmethod
    @abstractmethod
    def build(cls, options: AuditSection, subject: Subject, judges: Judges) -> Self:
        """Make the audit that the options describe.

        Raises:
            UserError: an option that it can't follow.
        """

    @classmethod
    def check(
        cls, options: AuditSection, subject: Subject, prompts: Mapping[str, Sequence[str]], side: int | None = None
    ) -> list[str]:
        """Refuse, before anything is drawn, all that `build` and `measure` would refuse when everything is drawn.

        Args:
            options: of the recipe.
            subject: what is to be measured.
            prompts: of the pictures, by the names of their sets.
            side: of the pictures in pixels, once the model is loaded.

        Returns:
            Warnings, such as of a judge that will be downloaded.

        Raises:
            UserError: an option, a judge, a package, a file or prompts that it can't measure with.
        """
        return []

    @classmethod
    def further_prompts(
        cls, test: Sequence[PromptPair], options: AuditSection, subject: Subject
    ) -> Mapping[str, Sequence[str]]:
        """Give the prompts of the sets in `sets` that this subject needs, by the name of the set."""
        return {}

    @abstractmethod
    def measure(self, images: AuditImages, subject: Subject, progress: Progress) -> Result:
        """Measure one model.

        Raises:
            UserError: pictures or prompts that don't fit.
        """

    @classmethod
    def read(cls, audits: AuditResult) -> Result | None:
        """Take this audit's part out of all results; None if it was not asked for.

        Raises:
            ValidationError: the part is no such result.
        """
        found: Any = getattr(audits, cls.name, None)
        return cast("Result | None", cls.result.model_validate(found) if isinstance(found, Mapping) else found)

    @classmethod
    @abstractmethod
    def rows(cls, before: Result | None, after: Result | None) -> list[Row]:
        """Give the figures before and after, for tables; at least one side is known."""

    @classmethod
    def section(cls, before: Result | None, after: Result | None) -> Section | None:
        """Give what the report shows beside the rows; at least one side is known."""
        return None

    @classmethod
    def forgetting(cls, kind: str, before: Result, after: Result) -> Evidence | None:
        """Say how much of the concept is left; None if this audit can't tell for this kind of concept."""
        return None

    @classmethod
    def scene(cls, before: Result, after: Result) -> Loss | None:
        """Say what the forget pictures lost of all that is not the concept; None if this audit can't tell."""
        return None

    @classmethod
    def keeping(cls, before: Result, after: Result) -> list[Loss]:
        """Say what was lost of what should have stayed."""
        return []
