"""Build the page: five steps, the tab Runs, and the named endpoints."""

from pathlib import Path
from typing import Any

import gradio as gr

from . import api
from .access import Access
from .controls import Controls
from .page import PRIVATE, Page
from .render import render
from .runner import UNFINISHED, Runner
from .steps import audit, export, model, prompts, runs, unlearn
from .studio import Studio
from .texts import STATES

STEPS = (("Model", model), ("Prompts", prompts), ("Unlearn", unlearn), ("Audit", audit), ("Export", export))
CSS = Path(__file__).with_name("style.css")
_TICK = 1.0  # seconds
_ABANDONED = 86_400  # seconds after which files made for a download are deleted


def theme() -> gr.themes.Base:
    """Colours and fonts. The fonts are those of the reader's system, so the page fetches none."""
    return gr.themes.Default(
        primary_hue="teal",
        neutral_hue="stone",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )


def build_app(access: Access, runner: Runner) -> gr.Blocks:
    """Build the page. The caller starts `runner`."""
    with gr.Blocks(title="Turpentine", analytics_enabled=False, delete_cache=(3600, _ABANDONED)) as demo:
        page = Page(access, runner, Studio(), Controls(), demo=demo)
        gr.Markdown("# Turpentine\nRemove a concept from a text-to-image model, and leave the rest as it was.")
        queue = gr.HTML(elem_id="queue", padding=False)
        page.run = gr.State()
        chooser = gr.Dropdown(label="Run shown in steps 3 to 5", choices=[], elem_id="run", visible=False)
        page.timer, ended = gr.Timer(_TICK), gr.State()
        with gr.Tabs(selected=1, overflow_behavior="wrap") as page.tabs:
            for number, (label, step) in enumerate(STEPS, start=1):
                with gr.Tab(f"{number} {label}", id=number, elem_id=f"step-{number}"):
                    step.build(page)
            with gr.Tab("Runs", id="runs", elem_id="step-runs") as page.runs_tab:
                runs.build(page)
        page.wire(ended)
        _follow(page, chooser, queue, ended)
        api.build(page)
    _spare_the_browser(demo, queue)
    return demo


def _follow(page: Page, chooser: Any, queue: Any, ended: Any) -> None:
    """Keep the queue and the list of runs up to date, and everything that follows from them.

    A tick only writes into a state, and the page is redrawn when that state changes. Sending every component each
    second would keep the browser too busy for the visitor's typing. The chosen run is a state as well, because a
    hidden dropdown reports a change at every update.
    """
    known = gr.State()

    def arrive() -> tuple[Any, ...]:
        name = page.current()
        step = gr.Tabs(selected=3) if page.is_live(name) else gr.skip()
        return name, step

    def look(name: str | None) -> tuple[Any, ...]:
        if name not in page.runner.names():
            name = page.current()
        job = page.runner.job(name) if name else None
        over = (name, job.state) if job and job.state not in UNFINISHED else None
        return page.run_choices(), name, over, queue_html(page)

    def show(seen: tuple[Any, ...], name: str | None) -> list[Any]:
        choices, _, over, waiting = seen
        name = name if name in page.runner.names() else page.current()
        return [name, gr.Dropdown(choices=choices, value=name, visible=bool(choices)), waiting, over]

    shared: dict[str, Any] = {"show_progress": "hidden"} | PRIVATE
    page.demo.load(arrive, None, [page.run, page.tabs], **shared)
    page.timer.tick(look, page.run, known, concurrency_limit=None, **shared)
    known.change(show, [known, page.run], [page.run, chooser, queue, ended], concurrency_limit=None, **shared)
    chooser.input(lambda name: name, chooser, page.run, **shared)


def _spare_the_browser(demo: Any, leaf: Any) -> None:
    """Show the progress of every event without a visible progress on `leaf` alone.

    At each message of any event, gradio copies the properties of all components that ever showed a progress, and of
    everything inside them. With the tabs or a long table among them, that took half a core.
    """
    for event in demo.fns.values():
        if event.show_progress == "hidden":
            event.show_progress_on = [leaf]


def queue_html(page: Page) -> str:
    """The runs at work and those that wait, for every visitor."""
    return render("queue", entries=[(name, STATES[page.runner.job(name).state]) for name in page.runner.queue()])
