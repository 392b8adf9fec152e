"""Step 5: export the weights, and see their card, their recipe and the command that repeats the run."""

import shlex
import shutil
import tempfile
from pathlib import Path
from typing import Any

import gradio as gr

from ...pipeline.run.folder import RunFolder
from ...pipeline.support.errors import UserError
from ...pipeline.support.files import file_name, replacing
from ...pipeline.support.text import size
from ..packing import packed
from ..page import PRIVATE, Page, told, why
from . import take_back


def build(page: Page) -> None:
    """Put the step on the page."""
    gr.Markdown("## Export the weights")
    why("export")
    weights = gr.Radio(
        label="Weights",
        choices=[],
        elem_id="weights",
        info="written when the run ends; choose the formats in step 3 (Advanced, Output)",
    )
    with gr.Row():
        prepare = gr.Button("Prepare the download", variant="primary", elem_id="prepare")
        download = gr.DownloadButton("Download", visible=False, elem_id="download")
    folders = list(page.access.exports)
    with gr.Row(visible=bool(folders)):
        folder = gr.Dropdown(
            folders, value=folders[0] if folders else None, label="Folder on the server", elem_id="export-folder"
        )
        copy = gr.Button("Copy to the folder", elem_id="copy")
    copied = gr.Markdown(elem_id="copied")
    command = gr.Code(
        label="Repeat this run from the command line",
        language="shell",
        interactive=False,
        lines=1,
        wrap_lines=True,
        elem_id="command",
    )
    with gr.Accordion("Model card", open=False):
        card = gr.Markdown(elem_id="card")
    with gr.Accordion("Recipe", open=False):
        recipe = gr.Code(language="yaml", interactive=False, elem_id="recipe")
    take_back.build(page)
    page.after_build(lambda: _wire(page, weights, prepare, download, folder, copy, copied, (command, card, recipe)))


def _wire(
    page: Page, weights: Any, prepare: Any, download: Any, folder: Any, copy: Any, copied: Any, texts: tuple[Any, ...]
) -> None:
    @told
    def show(name: str | None, chosen: str | None) -> tuple[Any, ...]:
        hidden = gr.update(visible=False)
        if not name:
            return gr.Radio(choices=[], value=None), hidden, "", "", ""
        run = page.access.run(name)
        choices = {file.path: f"{file.format} ({size(file.bytes)})" for file in _written(run)}
        kept = chosen if chosen in choices else next(iter(choices), None)
        card = run.path / "MODEL_CARD.md"
        return (
            gr.Radio(choices=[(label, path) for path, label in choices.items()], value=kept),
            hidden,
            command_line(run),
            _without_front_matter(card.read_text(encoding="utf-8", errors="replace"))
            if card.exists()
            else "The model card is written when the run ends.",
            run.begun_with().to_yaml(),
        )

    @told
    def offer(name: str | None, path: str | None) -> Any:
        run = page.access.run(name or "")
        file = packed(written(run, path), Path(tempfile.mkdtemp(prefix="turpentine-")))
        return gr.DownloadButton(f"Download {file.name} ({size(file.stat().st_size)})", value=str(file), visible=True)

    @told
    def put(name: str | None, path: str | None, where: str | None) -> str:
        run = page.access.run(name or "")
        target = copy_to(written(run, path), page.access.export_folder(where or ""), run.path.name)
        return f"Copied to `{where}` as `{target.name}`."

    page.follow(show, [weights, download, *texts], [weights])
    weights.input(lambda: gr.update(visible=False), None, download, **PRIVATE)
    prepare.click(offer, [page.run, weights], download, **PRIVATE)
    copy.click(put, [page.run, weights, folder], copied, **PRIVATE)


def _written(run: RunFolder) -> list[Any]:
    results = run.results()
    return list(results.weights) if results else []


def written(run: RunFolder, path: str | None) -> Path:
    """Find the weights of a run that a visitor chose.

    Raises:
        UserError: the run wrote no such weights.
    """
    known = [file.path for file in _written(run)]
    if path not in known:
        raise UserError(
            f"expected one of the weights {known}, got {str(path)[:80]!r}. The run writes them when it ends."
        )
    return run.path / str(path)


def copy_to(weights: Path, folder: Path, run: str) -> Path:
    """Copy weights into a configured folder without replacing anything there.

    Raises:
        UserError: the folder has a file of that name, or can't be written.
    """
    name = weights.name if weights.is_file() else file_name(f"{run}-{weights.name}")
    target = folder / name
    if target.exists():
        raise UserError(f"{name!r} is already in that folder. Remove it first.")
    with replacing(target) as partial:
        if weights.is_dir():
            shutil.rmtree(partial, ignore_errors=True)  # of a copy that was cut short
            shutil.copytree(weights, partial)
        else:
            shutil.copyfile(weights, partial)
    return target


def command_line(run: RunFolder) -> str:
    """The command that repeats a run."""
    job = "audit" if (run.path / "audit.json").exists() else "unlearn"
    return f"turpentine {job} --recipe {shlex.quote(str(run.path / 'recipe.yaml'))}"


def _without_front_matter(card: str) -> str:
    return card.split("---\n", 2)[2] if card.startswith("---\n") and card.count("---\n") >= 2 else card
