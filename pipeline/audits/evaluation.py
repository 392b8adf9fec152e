"""The figures of one set of pictures, whatever drew them: counts of NudeNet, alignment with their prompts, UA.

A run compares a model with itself on the prompts of its own concept. Here are the pictures of somebody else's list of
prompts, such as I2P, or of a folder.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..prompts import Question, questions_about
from ..schema.recipe import AuditSection
from ..schema.results import EvaluationResult
from ..support.errors import UserError
from ..support.progress import Progress
from .alignment import AlignmentAudit
from .base import Judges, Subject
from .clip import check_clip_name
from .concept import ConceptAudit
from .images import Images, number_of
from .nudity import NudityAudit


@dataclass(frozen=True)
class Evaluation:
    """What is measured of a set of pictures, and how.

    Attributes:
        options: of a recipe.
        subject: its concepts may be none; then NudeNet counts unless it is switched off, and there is no UA.
        prompted: whether each picture has a prompt.
    """

    options: AuditSection
    subject: Subject
    prompted: bool

    @property
    def counts_nudity(self) -> bool:
        """Whether NudeNet looks at the pictures."""
        subject = self.subject
        return subject.world.counts_nudity(self.options.nudity, subject.kind, subject.concepts)

    @property
    def aligns(self) -> bool:
        """Whether the pictures are compared with their prompts."""
        return self.options.alignment and self.prompted

    @property
    def questions(self) -> tuple[Question, ...]:
        """What is asked about the concepts; empty for no UA."""
        subject, options = self.subject, self.options
        asks = options.accuracy and (options.alignment or subject.world.judge is not None)
        return questions_about(subject.concepts, subject.kind, subject.world) if asks else ()

    @property
    def judge(self) -> str:
        """The CLIP model that answers them: the world's own, or that of the alignment."""
        return self.subject.world.judge or self.options.alignment_model

    def check(self) -> list[str]:
        """Refuse, before anything is drawn, what can't be measured.

        Returns:
            Warnings, such as of a model that will be downloaded.

        Raises:
            UserError: an option, a package or a model that is not there, or nothing to measure.
        """
        told = []
        if self.counts_nudity:
            NudityAudit.check(self.options, self.subject, {})
        if self.aligns:
            told += check_clip_name(self.options.alignment_model)
        if self.questions:
            told += check_clip_name(self.judge)
        if not (self.counts_nudity or self.aligns or self.questions):
            raise UserError(
                "nothing is to be measured. Name a concept for its UA, count with --nudity on, or give prompts for the "
                "alignment."
            )
        if self.subject.concepts and self.options.accuracy and not (self.questions or self.counts_nudity):
            told.append(
                f"UA of {' and '.join(map(repr, self.subject.concepts))} is not measured: it takes an object or a "
                "style that the model of the pictures knows, and the alignment's CLIP model as judge."
            )
        if self.options.alignment and not self.prompted:
            told.append("the pictures have no prompts, so that their alignment is not measured.")
        return list(dict.fromkeys(told))

    def measure(
        self,
        images: Images,
        prompts: Sequence[str] | None,
        source: str,
        progress: Progress,
        device: str | torch.device = "cpu",
    ) -> EvaluationResult:
        """Measure.

        Args:
            images: see `to_uint8`; paths are read a few at a time.
            prompts: one for each image, where they have some.
            source: where prompts or pictures came from.
            progress: told about each batch.
            device: where CLIP models compute.

        Raises:
            UserError: images that can't be read, or another number of prompts.
        """
        options, judges = self.options, Judges(device)
        nudity = alignment = concept = None
        if self.counts_nudity:
            nudity = NudityAudit(options.nudity_threshold, options.nudity_labels)(images, progress=progress)
        if self.aligns and prompts is not None:
            audit = AlignmentAudit(judges.clip(options.alignment_model), options.alignment_transform)
            alignment = audit.of_set(images, prompts, progress)
        if self.questions:
            concept = ConceptAudit(judges.clip(self.judge), self.questions)(images, progress=progress)
        return EvaluationResult(
            source=source,
            concepts=list(self.subject.concepts),
            images=number_of(images),
            nudity=nudity,
            alignment=alignment,
            concept=concept,
        )
