"""`report.html`: the whole run on one page that needs nothing but itself."""

from html import escape
from pathlib import Path
from string import Template

import yaml

from ..methods import find, names
from ..methods.mask import MASK_FILE, mask_shares, read_mask
from ..schema.results import Results
from ..support.errors import UserError
from ..support.files import write_text
from . import sections
from .events import read_events
from .images import pairs
from .model_card import model_card
from .summary import Verdict, rows, title, verdict


def forget_limit(results: Results) -> float | None:
    """The truncation limit α of the recipe's method; None if it has none."""
    method = results.recipe.get("method")
    limit = method.get("forget_limit") if isinstance(method, dict) else None
    return float(limit) if isinstance(limit, int | float) and not isinstance(limit, bool) else None


def _ascends(results: Results) -> bool:
    return find(results.method).config.ascends if results.method in names() else True


def _mask(run: Path) -> dict[str, tuple[float, int]]:
    path = run / MASK_FILE
    return mask_shares(read_mask(path)) if path.exists() else {}


def _mood(found: Verdict) -> str:
    if found.forgetting == "not" or found.keeping == "damaged":
        return "bad"
    return "good" if found.forgetting == "forgotten" and found.keeping == "kept" else ""


def _recipe_text(run: Path, results: Results) -> str:
    try:
        return (run / "recipe.yaml").read_text(encoding="utf-8")
    except FileNotFoundError:
        return yaml.safe_dump(results.recipe, sort_keys=False, allow_unicode=True)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"can't read {run / 'recipe.yaml'}: {' '.join(str(error).split())}.") from None


def page(run: Path, results: Results) -> str:
    """Build the page of a run folder from its results, events and pictures.

    Raises:
        UserError: a broken line of events, a broken picture or broken prompts.
    """
    found = verdict(results)
    template = Template((Path(__file__).parent / "template.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(title(results)),
        verdict=escape(found.text),
        mood=_mood(found),
        warnings=sections.warnings_box(results.warnings),
        figures=sections.figures_table(rows(results)),
        pictures=sections.pictures(pairs(run / "images"), results.concept, blur=results.kind == "nudity"),
        curves=sections.curves(read_events(run / "events.jsonl"), forget_limit(results), _ascends(results)),
        mask=sections.mask(_mask(run)),
        interference=sections.interference(results.interference),
        nudity=sections.nudity(results),
        run=sections.run(results, _recipe_text(run, results)),
        use=sections.use(results),
        reproduce=sections.reproduce(),
        footer="Made by Turpentine. This page loads nothing from the network.",
    )


def write_report(run: Path) -> Path:
    """Write `report.html` and `MODEL_CARD.md` into a run folder.

    Args:
        run: folder with `results.json`; `events.jsonl`, `recipe.yaml` and `images/` are used where present.

    Returns:
        Path of the page.

    Raises:
        UserError: no results, or something in the folder can't be read.
    """
    run = Path(run)
    results = Results.load(run / "results.json")
    text = page(run, results)
    write_text(run / "MODEL_CARD.md", model_card(results))
    write_text(run / "report.html", text)
    return run / "report.html"
