"""The audits by name. A new one is a file of this folder and a line here."""

from typing import Any

from .accuracy import AccuracyAudit
from .alignment import AlignmentAudit
from .base import Audit
from .classes import ClassAudit
from .concept import ConceptAudit
from .nudity import NudityAudit
from .resemblance import ResemblanceAudit

AUDITS: dict[str, type[Audit[Any]]] = {
    audit.name: audit
    for audit in (NudityAudit, AlignmentAudit, AccuracyAudit, ClassAudit, ConceptAudit, ResemblanceAudit)
}
"""Name -> audit, in the order in which they run and are shown."""
