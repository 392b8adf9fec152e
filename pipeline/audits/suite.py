"""All audits of one model in one call."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..schema.recipe import AuditSection
from ..schema.results import AuditResult
from ..support.progress import Progress, Silent
from .base import Audit, AuditImages, Judges, Subject
from .registry import AUDITS


def wanted_audits(options: AuditSection, subject: Subject) -> list[type[Audit[Any]]]:
    """List the audits that were asked for and can measure the subject."""
    return [kind for kind in AUDITS.values() if kind.wanted(options, subject)]


def check_audits(
    options: AuditSection, subject: Subject, prompts: Mapping[str, Sequence[str]], side: int | None = None
) -> list[str]:
    """Let every audit of `wanted_audits` check what it was asked for; see `Audit.check`.

    Raises:
        UserError: an audit can't measure what it was asked to.
    """
    checked = [kind.check(options, subject, prompts, side) for kind in wanted_audits(options, subject)]
    return list(dict.fromkeys(warning for warnings in checked for warning in warnings))


def build_audits(options: AuditSection, subject: Subject, device: str | torch.device = "cpu") -> list[Audit[Any]]:
    """Make the audits of `wanted_audits`; those that need the same CLIP model share it.

    Args:
        options: of the recipe.
        subject: what is measured.
        device: where CLIP models compute.

    Raises:
        UserError: an option that an audit can't follow.
    """
    judges = Judges(device)
    return [kind.build(options, subject, judges) for kind in wanted_audits(options, subject)]


def audit(
    images: AuditImages, subject: Subject, audits: Sequence[Audit[Any]], progress: Progress | None = None
) -> AuditResult:
    """Run audits on what one model drew.

    Args:
        images: what the model drew.
        subject: what was, or is to be, forgotten.
        audits: from `build_audits`, or made by hand.
        progress: told about each batch of each audit.

    Raises:
        UserError: pictures or prompts that don't fit an audit.
    """
    results = {one.name: one.measure(images, subject, progress or Silent()) for one in audits}
    known = AuditResult.model_fields
    return AuditResult(
        **{name: result if name in known else result.model_dump(mode="json") for name, result in results.items()}
    )
