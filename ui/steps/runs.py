"""The tab Runs: see every run with its figures, compare two, reuse a recipe, delete a run."""

from typing import Any, NamedTuple

import gradio as gr

from ...pipeline.audits import Row
from ...pipeline.prompts import PromptSet
from ...pipeline.report import rows
from ...pipeline.run.prompts import prompts_of
from ...pipeline.schema.resolve import resolve
from ...pipeline.support.errors import UserError
from ...pipeline.support.text import size
from ..page import PRIVATE, Page, told, why
from ..pictures import PictureSet, diversity, picture_sets
from ..render import note, render
from ..texts import STATES
from .prompts import rows_of, verdict

_HEADERS = ["run", "state", "concept", "method"]


class Compared(NamedTuple):
    """A run beside another one; `figures` has the text of each figure by its name."""

    name: str
    figures: dict[str, str]
    pictures: list[PictureSet]


def build(page: Page) -> None:
    """Put the tab on the page."""
    gr.Markdown("## Runs")
    why("runs")
    table = gr.Dataframe(
        headers=_HEADERS,
        type="array",
        interactive=False,
        max_height=400,
        show_search="search",
        elem_id="runs",
        label="Click a run to show it in steps 3 to 5",
    )
    used = gr.Markdown(elem_id="used")
    with gr.Row():
        again = gr.Button("Refresh", elem_id="refresh-runs")
        clone = gr.Button("Use its recipe for a new run", elem_id="clone")
        delete = gr.Button("Delete…", variant="stop", elem_id="delete")
    with gr.Row(visible=False, elem_id="really") as really:
        sure = gr.Button("Yes, delete this run", variant="stop", elem_id="delete-sure")
        keep = gr.Button("Keep it", elem_id="delete-keep")
    gr.Markdown("### Compare two runs")
    with gr.Row():
        first = gr.Dropdown(label="First", choices=[], elem_id="compare-first")
        second = gr.Dropdown(label="Second", choices=[], elem_id="compare-second")
    compared = gr.HTML(elem_id="compared")
    page.after_build(
        lambda: _wire(page, table, used, (again, clone, delete, really, sure, keep), (first, second, compared))
    )


def _wire(page: Page, table: Any, used: Any, buttons: tuple[Any, ...], compare: tuple[Any, ...]) -> None:
    again, clone, delete, really, sure, keep = buttons
    first, second, compared = compare

    def show() -> tuple[Any, ...]:
        held, quota = page.access.used(), page.access.quota
        done = [name for name in page.runner.names() if (page.access.run(name).path / "results.json").exists()]
        choices = gr.Dropdown(choices=done)
        return runs_table(page), f"{size(held)} of {size(quota)} used.", choices, choices

    @told
    def recipe_of(name: str | None) -> tuple[Any, ...]:
        run = page.access.run(name or "")
        recipe = run.begun_with()
        prompts: PromptSet = run.prompts() or prompts_of(resolve(recipe))
        if recipe.prompts.file:
            prompts = prompts.model_copy(update={"source": "file"})
        shown = rows_of(prompts), prompts, verdict(prompts), diversity(prompts)
        return *shown, gr.Tabs(selected=3), *page.controls.filled(recipe)

    @told
    def remove(name: str | None) -> tuple[Any, ...]:
        page.runner.delete(name or "")
        return page.current(), gr.update(visible=False)

    def pick(event: gr.SelectData) -> Any:
        name = str(event.row_value[0])
        return name if name in page.runner.names() else gr.skip()

    @told
    def side_by_side(one: str | None, other: str | None) -> str:
        return comparison(page, one, other) if one and other else note("Choose two runs that are done.")

    shared: dict[str, Any] = {"show_progress": "hidden"} | PRIVATE
    shown = [table, used, first, second]
    gr.on([page.demo.load, again.click, page.run.change, page.runs_tab.select], show, None, shown, **shared)
    table.select(pick, None, page.run, **shared)
    made = page.remake["outputs"]
    clone.click(recipe_of, page.run, [*made, page.tabs, *page.controls.inputs], **shared)
    delete.click(lambda name: gr.update(visible=bool(name)), page.run, really, **shared)
    keep.click(lambda: gr.update(visible=False), None, really, **shared)
    sure.click(remove, page.run, [page.run, really], **shared).success(show, None, shown, **shared)
    gr.on([first.input, second.input], side_by_side, [first, second], compared, **shared)


def runs_table(page: Page) -> dict[str, Any]:
    """The table of all runs, with their states and figures."""
    figures = {name: figures_of(page, name) for name in page.runner.names()}
    columns = list(dict.fromkeys(row.name for found in figures.values() for row in found))
    data = []
    for name, found in figures.items():
        texts = _texts(found)
        state = STATES[page.runner.job(name).state]
        data.append([name, state, *_named(page, name), *(texts.get(column, "") for column in columns)])
    headers = [*_HEADERS, *columns]
    return {"headers": headers, "data": data or [["no run yet", *[""] * (len(headers) - 1)]]}  # a table needs a row


def _named(page: Page, name: str) -> tuple[str, str]:
    """The concept and the method of a run."""
    try:
        recipe = page.access.run(name).begun_with()
    except UserError:
        return "can't be read", ""
    return recipe.concept, recipe.method.name


def figures_of(page: Page, name: str) -> list[Row]:
    """The before/after figures of a run; none before it ends."""
    run = page.access.run(name)
    try:
        results = run.results()
    except UserError:
        return []
    return rows(results) if results else []


def comparison(page: Page, one: str, other: str) -> str:
    """Two runs side by side: figures, then pictures."""
    runs = []
    for name in (one, other):
        run = page.access.run(name)
        runs.append(Compared(name, _texts(figures_of(page, name)), picture_sets(run.path, run.begun_with(), limit=4)))
    return render("comparison", runs=runs, names=list(dict.fromkeys(name for run in runs for name in run.figures)))


def _texts(found: list[Row]) -> dict[str, str]:
    """Each figure's name -> before and after, without their intervals."""
    return {row.name: f"{_plain(row.before_text)} → {_plain(row.after_text)}" for row in found}


def _plain(text: str) -> str:
    """A figure without its interval."""
    return text.partition(" [")[0]
