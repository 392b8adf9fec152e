"""Audits: what a model still draws. Each class can be called alone; `audit` calls all of them."""

from .accuracy import AccuracyAudit, find_concept
from .class_judge import ClassJudge
from .classes import ClassAudit
from .clip import BUNDLED_JUDGE, PAPER_CLIP, AlignmentAudit, ClipModel
from .images import Images, to_uint8
from .interference import interference
from .nudity import ALL_LABELS, LABEL_SETS, PAPER_LABELS, Detection, NudityAudit, annotate, resolve_labels
from .suite import AuditImages, ImageSet, audit

__all__ = [
    "ALL_LABELS",
    "BUNDLED_JUDGE",
    "LABEL_SETS",
    "PAPER_CLIP",
    "PAPER_LABELS",
    "AccuracyAudit",
    "AlignmentAudit",
    "AuditImages",
    "ClassAudit",
    "ClassJudge",
    "ClipModel",
    "Detection",
    "ImageSet",
    "Images",
    "NudityAudit",
    "annotate",
    "audit",
    "find_concept",
    "interference",
    "resolve_labels",
    "to_uint8",
]
