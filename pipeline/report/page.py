"""`report.html`: the whole run on one page that needs nothing but itself."""

from pathlib import Path

import yaml

from ..methods import MethodConfig, find, names
from ..methods.mask import MASK_FILE, mask_shares, read_mask
from ..schema.events import EVENTS_FILE
from ..schema.results import Results
from ..support.errors import Tell, UserError, untold
from ..support.files import write_text
from .events import read_columns
from .figures import POINTS
from .images import beside, pairs
from .model_card import model_card
from .sections import curves, mask, render
from .summary import THRESHOLDS, Verdict, audit_sections, interference_text, rows, title, verdict
from .use import REPRODUCE, snippet


def forget_limit(results: Results) -> float | None:
    """The truncation limit α of the recipe's method; None if it has none."""
    method = results.recipe.get("method")
    limit = method.get("forget_limit") if isinstance(method, dict) else None
    return float(limit) if isinstance(limit, int | float) and not isinstance(limit, bool) else None


def _method(results: Results) -> MethodConfig | None:
    """The method's options; None for a method that is not installed here."""
    if results.method not in names():
        return None
    config, method = find(results.method).config, results.recipe.get("method")
    try:
        return config.model_validate(method)
    except ValueError:  # options of another version
        return config.model_validate({"name": results.method})


def _mask(run: Path, tell: Tell) -> dict[str, tuple[float, int]]:
    path = run / MASK_FILE
    try:
        return mask_shares(read_mask(path)) if path.exists() else {}
    except UserError as error:
        tell(f"{error} It is left out.")
        return {}


def _mood(found: Verdict) -> str:
    if found.forgetting == "not" or found.keeping == "damaged":
        return "bad"
    good = found.forgetting == "forgotten" and found.keeping == "kept" and not found.wrecked
    return "good" if good else ""


def page(run: Path, results: Results, tell: Tell = untold) -> str:
    """Build the page of a run folder from its results, events and pictures.

    What can't be read of events and pictures is left out. The recipe is the one that the results name.

    Args:
        run: the folder.
        results: of the run.
        tell: told of what was left out; the page tells it too.
    """
    unread: list[str] = []
    method = _method(results)
    found, events = verdict(results), read_columns(run / EVENTS_FILE, unread.append)
    pictures = pairs(run / "images", unread.append)
    before, after = results.audits.before, results.audits.after
    nearest = beside(run / "images", before.resemblance, after.resemblance, unread.append)
    steps = len(events["step"])
    shares = _mask(run, unread.append)
    for warning in unread:
        tell(warning)
    return render(
        "page.html",
        results=results,
        warnings=[*results.warnings, *unread],
        title=title(results),
        verdict=found,
        mood=_mood(found),
        rows=rows(results),
        thresholds=THRESHOLDS,
        interference_text=interference_text(results.interference) if results.interference else "",
        sections=audit_sections(before, after),
        pictures=pictures,
        beside=nearest,
        curves=curves(
            events, forget_limit(results), method is None or method.ascends, bool(method and method.edits_with)
        ),
        steps=steps,
        averaged=POINTS if steps > POINTS else 0,
        mask=mask(shares),
        recipe=yaml.safe_dump(results.recipe, sort_keys=False, allow_unicode=True),
        snippet=snippet(results),
        reproduce=REPRODUCE,
    )


def write_report(run: Path, tell: Tell = untold) -> Path:
    """Write `report.html` and `MODEL_CARD.md` into a run folder.

    Args:
        run: folder with `results.json`; `events.jsonl` and `images/` are used where present.
        tell: told of what can't be read and is left out.

    Returns:
        Path of the page.

    Raises:
        UserError: no results, or they can't be read.
    """
    run = Path(run)
    results = Results.load(run / "results.json")
    text = page(run, results, tell)
    write_text(run / "MODEL_CARD.md", model_card(results))
    write_text(run / "report.html", text)
    return run / "report.html"
