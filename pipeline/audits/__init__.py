"""Audits: what a model still draws. Each class can be called alone; `audit` calls several of them."""

from .accuracy import AccuracyAudit
from .alignment import AlignmentAudit
from .base import Audit, AuditImages, ImageSet, Judges, Subject
from .class_judge import ClassJudge
from .classes import ClassAudit
from .clip import BUNDLED_JUDGE, PAPER_CLIP, ClipModel
from .concept import ConceptAudit
from .evaluation import Evaluation
from .figures import Bars, Evidence, Loss, Row, Section
from .images import Images, to_uint8
from .interference import interference
from .nudity import (
    ALL_LABELS,
    LABEL_SETS,
    PAPER_LABELS,
    Detection,
    NudityAudit,
    annotate,
    check_threshold,
    resolve_labels,
)
from .registry import AUDITS
from .resemblance import ResemblanceAudit
from .suite import audit, build_audits, check_audits, wanted_audits

__all__ = [
    "ALL_LABELS",
    "AUDITS",
    "BUNDLED_JUDGE",
    "LABEL_SETS",
    "PAPER_CLIP",
    "PAPER_LABELS",
    "AccuracyAudit",
    "AlignmentAudit",
    "Audit",
    "AuditImages",
    "Bars",
    "ClassAudit",
    "ClassJudge",
    "ClipModel",
    "ConceptAudit",
    "Detection",
    "Evaluation",
    "Evidence",
    "ImageSet",
    "Images",
    "Judges",
    "Loss",
    "NudityAudit",
    "ResemblanceAudit",
    "Row",
    "Section",
    "Subject",
    "annotate",
    "audit",
    "build_audits",
    "check_audits",
    "check_threshold",
    "interference",
    "resolve_labels",
    "to_uint8",
    "wanted_audits",
]
