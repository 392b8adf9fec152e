"""Step 4: see the figures and pictures of a run, and draw with both of its models."""

from pathlib import Path
from typing import Any

import gradio as gr
from pydantic import ValidationError

from ...pipeline.report import rows, verdict
from ...pipeline.report.sections import audit_section, figures_table, warnings_box
from ...pipeline.report.summary import audit_sections
from ...pipeline.schema.image_sets import AFTER, BEFORE
from ...pipeline.schema.results import AuditResult, Results
from ...pipeline.support.errors import UserError
from ...pipeline.support.pictures import load_picture
from ..access import short_text
from ..page import DEVICE, PRIVATE, Page, told, why
from ..pictures import enlarged, pairs, run_prompts, sensitive, shown
from ..render import note, render
from ..studio import seed_of
from .prompts import own_pairs

_BEFORE_AFTER = "before | after"
_FIRST_PROMPT = "a photo of an astronaut on a beach"
"""Gives way to a prompt of the run that is shown, unless the visitor wrote another."""


def build(page: Page) -> None:
    """Put the step on the page."""
    gr.Markdown("## Did it work?")
    why("audit")
    figures = gr.HTML(elem_id="figures")
    reveal = gr.Checkbox(
        label="Show flagged regions",
        info="regions that NudeNet flags are blurred until you tick this",
        elem_id="reveal",
    )
    with gr.Row(visible=False) as compared:
        chosen = gr.Dropdown(label="Prompt", choices=[], elem_id="pair", info="drag the line between before and after")
        slider = gr.ImageSlider(label=_BEFORE_AFTER, interactive=False, elem_id="slider", max_height=420, type="pil")
    gallery = gr.HTML(elem_id="gallery")
    gr.Markdown("### Draw a prompt with both models")
    with gr.Row():
        prompt = gr.Textbox(label="Prompt", value=_FIRST_PROMPT, elem_id="free-prompt", scale=3, max_length=500)
        seed = gr.Number(label="Seed", value=0, elem_id="free-seed")
        draw = gr.Button("Draw both", elem_id="free-draw")
    both = gr.ImageSlider(label=_BEFORE_AFTER, interactive=False, elem_id="free-images", max_height=420, type="pil")
    with gr.Accordion("Audit a model without unlearning", open=False, elem_id="audit-alone"):
        gr.Markdown("Uses the model of step 1, the prompts of step 2 and the audits of step 3 (Advanced, Audits).")
        alone = gr.Button("Audit the model", elem_id="audit-start")
    page.next_button(5)
    page.after_build(
        lambda: _wire(page, figures, (reveal, compared, chosen, slider, gallery), (draw, prompt, seed, both), alone)
    )


def _wire(page: Page, figures: Any, pictures: tuple[Any, ...], free: tuple[Any, ...], alone: Any) -> None:
    reveal, compared, chosen, slider, gallery = pictures
    draw, prompt, seed, both = free

    @told
    def show(name: str | None, written: str) -> tuple[Any, ...]:
        if not name:
            return note("No run yet."), *[gr.update(visible=False)] * 2, gr.Dropdown(choices=[], value=None), gr.skip()
        run = page.access.run(name)
        listed = [text for texts in run_prompts(run.path).values() for text in texts]
        choices = list(dict.fromkeys(listed)) if (run.path / "images" / AFTER).exists() else []
        flagged = gr.update(value=False, visible=sensitive(run.begun_with()))
        listing = gr.Dropdown(choices=choices, value=choices[0] if choices else None)
        own = choices[0] if choices and written == _FIRST_PROMPT else gr.skip()
        return figures_html(run.path), flagged, gr.update(visible=bool(choices)), listing, own

    @told
    def show_pictures(name: str | None, revealed: bool) -> str:
        if not name:
            return ""
        run = page.access.run(name)
        return pairs(run.path, run.begun_with(), reveal=revealed)

    @told
    def slide(name: str | None, text: str | None, revealed: bool) -> Any:
        files = pair_files(page.access.run(name).path, text) if name and text else None
        if name is None or files is None:
            return None
        recipe = page.access.run(name).begun_with()
        return tuple(enlarged(shown(load_picture(file), recipe, revealed)) for file in files)

    @told
    def draw_both(name: str | None, text: str, number: Any, revealed: bool) -> Any:
        text, number = short_text(text, "prompt"), seed_of(number)
        run = page.access.run(name or "")
        recipe = run.begun_with()
        models = page.access.model(recipe.model), page.access.model(f"run:{run.path.name}")
        drawn = [page.studio.draw(model, recipe.device, text, number, recipe.samples) for model in models]
        return tuple(enlarged(shown(image, recipe, revealed)) for image in drawn)

    @told
    def audit_alone(rows_: Any, base: Any, *values: Any) -> str:
        recipe = page.recipe(values)
        return page.runner.submit(recipe, "audit", own_pairs(base, rows_, recipe))

    page.follow(show, [figures, reveal, compared, chosen, prompt], [prompt])
    page.follow(lambda name: show_pictures(name, False), [gallery])
    shared: dict[str, Any] = {"show_progress": "hidden"} | PRIVATE
    reveal.input(show_pictures, [page.run, reveal], gallery, **shared)
    gr.on([chosen.change, reveal.input], slide, [page.run, chosen, reveal], slider, **shared)
    device: dict[str, Any] = {"concurrency_id": DEVICE, "concurrency_limit": 1} | PRIVATE
    gr.on([draw.click, prompt.submit], draw_both, [page.run, prompt, seed, reveal], both, **device)
    alone.click(audit_alone, [page.table, page.base, *page.controls.inputs], page.run, **PRIVATE)


def figures_html(run: Path) -> str:
    """The figures of a run: both audits and the verdict, or the audit of one model."""
    if (run / "results.json").exists():
        results = Results.load(run / "results.json")
        audits = results.audits
        return render(
            "figures",
            verdict=verdict(results).text,
            warnings=warnings_box(results.warnings),
            table=figures_table(rows(results)),
            sections=[audit_section(section, level=3) for section in audit_sections(audits.before, audits.after)],
        )
    if (run / "audit.json").exists():
        try:
            found = AuditResult.model_validate_json((run / "audit.json").read_bytes())
        except ValidationError:
            raise UserError(
                f"the figures in {run.name}/audit.json are damaged. Delete the run and audit again."
            ) from None
        return render("one_model", figures=_numbers(found))
    return note("This run has no figures yet. They appear when it is done.")


def _numbers(found: AuditResult) -> list[tuple[str, str, str]]:
    """Audit, name and text of every number of one model."""
    rows = []
    for audit, figures in found.model_dump(exclude_none=True).items():
        for name, value in figures.items():
            listed = (
                {f"{name}, {key}": each for key, each in value.items()} if isinstance(value, dict) else {name: value}
            )
            for each, number in listed.items():
                if isinstance(number, int | float) and not isinstance(number, bool):
                    text = f"{number:.3f}" if isinstance(number, float) else str(number)
                    rows.append((audit, each.replace("_", " "), text))
    return rows


def pair_files(run: Path, prompt: str) -> tuple[Path, Path] | None:
    """The two picture files of a prompt; None if one is missing."""
    for name, texts in run_prompts(run).items():
        if prompt in texts:
            file = f"{name}-{texts.index(prompt):03d}.png"
            found = run / "images" / BEFORE / file, run / "images" / AFTER / file
            return found if all(path.is_file() for path in found) else None
    return None
