"""Step 3: choose the strength and the method, start the run and watch it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import gradio as gr
import pandas as pd

from ...pipeline.run.prompts import prompts_of
from ...pipeline.schema.events import Event
from ...pipeline.schema.image_sets import AFTER
from ...pipeline.schema.presets import PRESETS
from ...pipeline.schema.resolve import resolve
from ...pipeline.support.errors import UserError
from ...pipeline.support.text import duration
from ..controls import METHOD, method_notes, starting_recipe
from ..page import DEVICE, PRIVATE, Page, told, why
from ..pictures import newest_preview, pairs
from ..render import note, render
from ..runner import RESUMABLE, Job
from ..texts import STATES
from .prompts import FLIP, PICTURES, own_pairs

_POINTS = 300  # of a curve
_COLOURS = {"forget": "#c2553f", "redirect": "#7a4fa3", "retain": "#2a7f8e"}
SECTIONS = ("method", "samples", "training", "audits", "output")


class Seen(NamedTuple):
    """A run at one moment: `size` bytes of events, its newest pictures and how many, and its status as HTML."""

    name: str
    state: str
    size: int
    preview: str | None
    pictures: int
    status: str


def build(page: Page) -> None:
    """Put the step on the page."""
    controls = page.controls
    gr.Markdown("## Unlearn")
    strengths = "\n".join(f"- **{preset.name}**: {preset.description}" for preset in PRESETS.values())
    why("unlearn", f"Strengths:\n\n{strengths}\n\nMethods:\n\n{method_notes()}")
    with gr.Row():
        preset = gr.Radio(
            list(PRESETS),
            value="balanced",
            label="Strength",
            info="sets the number of steps; Why? compares them",
            elem_id="preset",
            scale=2,
        )
        method = controls.add(METHOD)
    with gr.Accordion("Advanced: every setting of the recipe", open=False, elem_id="advanced"):
        controls.add(("seed",))
        for section in SECTIONS:
            with gr.Accordion(section.capitalize(), open=False, elem_id=f"section-{section}"):
                controls.section(section)
    with gr.Row():
        measure = gr.Button("How long will it take?", elem_id="estimate")
        start = gr.Button("Start unlearning", variant="primary", elem_id="start")
    estimated = gr.HTML(elem_id="estimated")
    status = gr.HTML(elem_id="status")
    with gr.Row(elem_id="steering"):
        pause = gr.Button("Pause", interactive=False, elem_id="pause")
        resume = gr.Button("Resume", interactive=False, elem_id="resume")
        cancel = gr.Button("Cancel", interactive=False, variant="stop", elem_id="cancel")
    with gr.Row():
        axes = {"x": "step", "color": "term", "color_map": _COLOURS, "height": 220, "x_title": "step"}
        losses = gr.LinePlot(None, y="loss", y_title="loss", title="Losses", elem_id="losses", **axes)
        conflict = gr.LinePlot(
            None,
            x="step",
            y="cosine",
            y_title="cosine",
            title="Cosine of the two gradients",
            height=220,
            x_title="step",
            elem_id="cosine",
        )
    previews = gr.HTML(elem_id="previews")
    page.next_button(4)
    watched = [status, pause, resume, cancel, losses, conflict, previews]
    page.after_build(lambda: _wire(page, preset, method, measure, estimated, start, watched))


def _wire(page: Page, preset: Any, method: Any, measure: Any, estimated: Any, start: Any, watched: list[Any]) -> None:
    controls, inputs = page.controls, page.controls.inputs
    _, pause, resume, cancel, *_ = watched
    seen, shown = gr.State(), gr.State()

    @told
    def refill(name: str, *values: Any) -> list[Any]:
        chosen = controls.nested(values)
        kept = {key: chosen[key] for key in ("concept", "kind", "seed", "device")}
        kept |= {"prompts": {"replace_with": chosen["prompts"]["replace_with"]}}
        kept |= {"model": page.access.model(chosen["model"]), "method": {"name": chosen["method"]["name"]}}
        return controls.filled(starting_recipe(kept, name), keep=[("model",), METHOD, PICTURES, FLIP])

    @told
    def estimate(rows: Any, base: Any, *values: Any) -> str:
        recipe = page.recipe(values)
        found = page.studio.estimate(recipe, own_pairs(base, rows, recipe) or prompts_of(resolve(recipe)))
        return render("estimate", found=found)

    @told
    def begin(rows: Any, base: Any, *values: Any) -> str:
        recipe = page.recipe(values)
        return page.runner.submit(recipe, pairs=own_pairs(base, rows, recipe))

    def glance(name: str | None) -> Seen | None:
        try:
            job = page.runner.job(name) if name else None
        except UserError:
            job = None
        if name is None or job is None:
            return None
        run = page.access.run(name)
        count = (run.path / "events.jsonl").stat().st_size if (run.path / "events.jsonl").exists() else 0
        preview = AFTER if (run.path / "images" / AFTER).exists() else newest_preview(run.path)
        pictures = len(list((run.path / "images" / preview).iterdir())) if preview else 0
        return Seen(name, job.state, count, preview, pictures, status_html(page, name, job))

    @told
    def watch(now: Seen | None, before: Seen | None) -> list[Any]:
        if now is None:
            return [None, note("No run yet."), *_buttons(None), None, None, ""]
        last = before if before and before.name == now.name else None
        parts: list[Any] = [now, now.status, *_buttons(now.state)]
        if last and last.size == now.size:
            parts += [gr.skip(), gr.skip()]
        else:
            parts += _curves(page.runner.events(now.name))
        if last and (last.preview, last.pictures) == (now.preview, now.pictures):
            parts.append(gr.skip())
        else:
            run = page.access.run(now.name)
            parts.append(pairs(run.path, run.begun_with(), now.preview, limit=4) if now.preview else "")
        return parts

    @told
    def steer(what: str, name: str | None) -> None:
        if not name:
            raise UserError("expected a run, got none. Start one, or choose one from the list.")
        getattr(page.runner, what)(name)

    shared: dict[str, Any] = {"show_progress": "hidden"} | PRIVATE
    model = controls.components[("model",)]
    gr.on([model.input, method.input, preset.input], refill, [preset, *inputs], inputs, **shared).success(**page.remake)
    edits = [page.table, page.base, *inputs]
    measure.click(estimate, edits, estimated, concurrency_id=DEVICE, concurrency_limit=1, **PRIVATE)
    begun = start.click(begin, edits, page.run, trigger_mode="once", **PRIVATE)
    for button, what in ((pause, "pause"), (resume, "resume"), (cancel, "cancel")):
        button.click(lambda name, what=what: steer(what, name), page.run, None, **shared)
    glanced: dict[str, Any] = {"fn": glance, "inputs": page.run, "outputs": seen} | shared
    gr.on([page.timer.tick, page.run.change], **glanced, concurrency_limit=None, trigger_mode="always_last")
    begun.success(**glanced)
    gr.on(
        [seen.change, page.demo.load],
        watch,
        [seen, shown],
        [shown, *watched],
        concurrency_limit=None,
        trigger_mode="always_last",
        **shared,
    )


def status_html(page: Page, name: str, job: Job) -> str:
    """The status of a run in words and as a bar."""
    told_of, share = STATES[job.state], None
    if job.state == "queued":
        place = page.runner.queue().index(name)
        told_of += f" (number {place} in the queue)" if place else ""
    elif job.state in ("running", "stopping"):
        progress = page.runner.progress(name)
        if progress:
            share = progress["done"] / max(1, progress["total"])
            left = progress.get("seconds_left")
            told_of = f"{progress['stage']}: {progress['done']} of {progress['total']}"
            told_of += f", {duration(left)} left in this stage" if left is not None else ""
            told_of += "; stopping after this step" if job.state == "stopping" else ""
        else:
            told_of = "loading the model"
    if job.message:
        told_of += f": {job.message}"
    return render("status", name=name, state=job.state, text=told_of, share=share, warnings=job.warnings)


def _buttons(state: str | None) -> list[Any]:
    return [
        gr.update(interactive=state in ("queued", "running")),
        gr.update(interactive=state in RESUMABLE),
        gr.update(interactive=state in ("queued", "running", "paused", "failed")),
    ]


def _curves(events: Sequence[Event]) -> list[Any]:
    """Data frames of the losses and of the cosine, with at most `_POINTS` steps."""
    if not events:
        return [None, None]
    kept = events[:: -(-len(events) // _POINTS)]
    losses = [
        {"step": event.step + 1, "loss": loss, "term": term}
        for event in kept
        for term, loss in ((_forget_term(event), event.loss_forget), ("retain", event.loss_retain))
        if loss is not None
    ]
    cosines = [{"step": event.step + 1, "cosine": event.cosine} for event in kept if event.cosine is not None]
    share = sum(event.conflict for event in events) / len(events)
    title = f"Cosine of the gradients (conflict: {share:.0%})"
    return [pd.DataFrame(losses), gr.LinePlot(pd.DataFrame(cosines) if cosines else None, title=title)]


def _forget_term(event: Event) -> str:
    return "redirect" if event.redirects else "forget"
