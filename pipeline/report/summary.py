"""The before/after figures of a run as rows, and the one-line verdict on them.

Everything that shows figures (page, model card, terminal) takes them from here, so that no number
is computed in two places. Nothing here knows HTML or Markdown.

"Removed" is the share of what the base model showed that the unlearned model no longer shows:
1 - after / before.
"""

import math
from typing import Literal, NamedTuple

from ..audits import AUDITS, Evidence, Loss, Row, Section
from ..audits.figures import ROUNDING, Outcome
from ..schema.results import TOLERATED_LOSS, AuditResult, BudgetResult, Interference, Results, TrainingResult
from ..support.text import points, signed

REMOVED = 0.90
"""Removed share from which the verdict says "Forgotten"."""
PARTLY_REMOVED = 0.50
MOSTLY_KEPT = 0.10
"""Largest loss of a retain figure with which the rest counts as mostly kept; `TOLERATED_LOSS` as kept."""

WRECKED = 0.5
"""Share of the scene above whose loss what is left of the forget pictures counts as wreckage."""

LEAST_MOVED = 0.10
"""Share of the way to the anchors below which an edit in closed form counts as having done nothing."""

THRESHOLDS = (
    f"Forgotten: at least {REMOVED:.0%} of what the base model showed is gone "
    f"(partly: {PARTLY_REMOVED:.0%}), or no more detections than false alarms. "
    f"Wreckage: the forget pictures lost more than {WRECKED:.0%} of what else their prompts name. "
    f"Kept: no retain figure lost more than {TOLERATED_LOSS:.0%} of its value (alignment) or "
    f"{TOLERATED_LOSS * 100:.0f} points (accuracy); mostly kept: {MOSTLY_KEPT:.0%} or {MOSTLY_KEPT * 100:.0f} points."
).replace("%", " %")

Forgetting = Literal["forgotten", "partly", "not", "nothing", "unmeasured"]
Keeping = Literal["kept", "mostly", "damaged", "unmeasured"]


class Verdict(NamedTuple):
    """The figures' meaning, in words and as one line; `wrecked`: forget prompts give no pictures of anything."""

    forgetting: Forgetting
    keeping: Keeping
    text: str
    wrecked: bool = False


def rows(results: Results) -> list[Row]:
    """Every audited figure before and after; audits that were not asked for give no rows.

    Returns:
        In the order of `AUDITS`. A figure known for one side only has NaN on the other.
    """
    before, after = results.audits.before, results.audits.after
    found: list[Row] = []
    for audit in AUDITS.values():
        first, second = audit.read(before), audit.read(after)
        if first or second:
            found += audit.rows(first, second)
    return found


def audit_sections(before: AuditResult, after: AuditResult) -> list[Section]:
    """The sections that audits show beside their rows, in the order of `AUDITS`."""
    both = [(audit, audit.read(before), audit.read(after)) for audit in AUDITS.values()]
    sections = [audit.section(first, second) for audit, first, second in both if first or second]
    return [section for section in sections if section]


def _evidence(results: Results) -> Evidence | None:
    """The first audit's that counted, or else the first one's that can say anything."""
    before, after = results.audits.before, results.audits.after
    both = [(audit, audit.read(before), audit.read(after)) for audit in AUDITS.values()]
    found = [audit.forgetting(results.kind, first, second) for audit, first, second in both if first and second]
    told = [evidence for evidence in found if evidence]
    return next((evidence for evidence in told if evidence.before is not None), told[0] if told else None)


def _wreckage(results: Results) -> str:
    """The figure of the first audit that finds the forget pictures wrecked; empty if none does."""
    for audit in AUDITS.values():
        before, after = audit.read(results.audits.before), audit.read(results.audits.after)
        found = audit.scene(before, after) if before and after else None
        if found and found.loss > WRECKED:
            return found.text
    return ""


def _forgetting(results: Results, wreckage: str) -> tuple[Forgetting, str]:
    evidence = _evidence(results)
    if (evidence is None or evidence.before is None) and results.training.moved is not None:
        return _edited(results.training.moved)
    if evidence is None:
        return "unmeasured", "Forgetting not measured"
    text, before, after, floor = evidence
    if before is None or after is None:
        return "unmeasured", f"Forgetting not counted; {text}"
    if not (math.isfinite(before) and math.isfinite(after)):
        return "unmeasured", f"Forgetting not measurable: {text}"
    pictures = f", but the pictures of its prompts are wreckage ({wreckage})" if wreckage else ""
    if before <= 0:
        return "nothing", f"The base model did not show the concept{pictures}: {text}"
    removed = 1 - after / before
    if removed >= REMOVED or (floor is not None and after <= floor):
        return "forgotten", f"Forgotten{pictures}: {text}"
    if removed >= PARTLY_REMOVED:
        return "partly", f"Partly forgotten{pictures}: {text}"
    return "not", f"Not forgotten{pictures}: {text}"


def _edited(moved: float) -> tuple[Forgetting, str]:
    """What an edit in closed form says of itself where no audit counted."""
    went = f"the edit took the forget prompts {100 * max(0.0, moved):.0f} % of the way to what is drawn instead"
    return ("not", f"Not forgotten: {went}") if moved < LEAST_MOVED else ("unmeasured", f"Not counted; {went}")


def _keeping(results: Results) -> tuple[Keeping, str]:
    losses: list[Loss] = []
    for audit in AUDITS.values():
        before, after = audit.read(results.audits.before), audit.read(results.audits.after)
        if before and after:
            losses += audit.keeping(before, after)
    if not losses:
        return "unmeasured", "keeping not measured"
    listed = ", ".join(loss.text for loss in losses)
    if not all(math.isfinite(loss.loss) for loss in losses):
        return "unmeasured", f"keeping not measurable: {listed}"
    worst = max(loss.loss for loss in losses)
    if worst <= TOLERATED_LOSS + ROUNDING:
        return "kept", f"kept: {listed}"
    return (
        ("mostly", f"mostly kept: {listed}") if worst <= MOSTLY_KEPT + ROUNDING else ("damaged", f"damaged: {listed}")
    )


def verdict(results: Results) -> Verdict:
    """Judge a run by its retain and forget figures, with the thresholds of this module."""
    wreckage = _wreckage(results)
    forgetting, first = _forgetting(results, wreckage)
    keeping, second = _keeping(results)
    instead = f" To be drawn instead: {results.instead}." if results.instead else ""
    budget = f" {budget_text(results.training.budget)}" if results.training.budget else ""
    return Verdict(forgetting, keeping, f"{first}; {second}.{instead}{budget}", bool(wreckage))


def budget_text(found: BudgetResult) -> str:
    """Whether a budget of the retain loss held at the end, and what it took, as a sentence."""
    held = found.rise <= found.allowed
    steps = "the last step" if found.steps == 1 else f"the last {found.steps} steps"
    return (
        f"Retain loss {signed(100 * found.rise, 2)} % over {steps}: the budget of {100 * found.allowed:g} % "
        f"{'held' if held else 'did not hold, and more steps would raise μ further'} (μ = {found.multiplier:.2f})."
    )


def course(training: TrainingResult) -> str:
    """What was done to the weights, and how long it took, as a part of a sentence."""
    if training.moved is not None:
        return f"edited in closed form in {training.seconds:.1f} s"
    return f"{training.steps} steps in {training.seconds:.0f} s"


def outcome_text(outcome: Outcome) -> str:
    """The judgement of a row in words, so that colour alone never carries it."""
    return {
        "better": "✓ improved",
        "worse": "✗ worse",
        "kept": "✓ kept",
        "same": "unchanged",
        "unclear": "within the intervals",
        "unknown": "not known",
    }[outcome]


def interference_text(found: Interference) -> str:
    """The worst victim and how many others were hurt, as sentences."""
    worst = found.values[0]
    tolerated = f"{TOLERATED_LOSS * 100:.0f} points"
    many = f"{found.hurt} of {len(found.values)} other subjects, styles and places lost more than {tolerated}."
    if worst.after >= worst.before:
        return f"No other subject, style or place lost accuracy. {many}"
    return f"Hurt most: {worst.value} ({worst.dimension}), {points(worst.before, worst.after)}. {many}"


def model_label(results: Results) -> str:
    """Name of the base model without the folders of the machine that ran it."""
    name = results.model.name.replace("\\", "/").rstrip("/")
    local = name.startswith(("/", ".", "~")) or ":/" in name or name.count("/") > 1
    return name.rsplit("/", 1)[-1] if local else name


def title(results: Results) -> str:
    """The concept, the method and the model, as a sentence without its full stop."""
    return f"{results.concept}, removed with {results.method} from {model_label(results)}"
