"""In step 5: what was removed from a run's model, and one of it taken back."""

import tempfile
from pathlib import Path
from typing import Any

import gradio as gr

from ...pipeline.models.lineage import Removal, lineage_of
from ...pipeline.prompts.concepts import join_concepts
from ...pipeline.run.undo import undo_to_folder
from ...pipeline.support.errors import UserError
from ...pipeline.support.files import file_name
from ...pipeline.support.text import size
from ..packing import packed
from ..page import DEVICE, PRIVATE, Page, told


def build(page: Page) -> None:
    """Put the section on the page."""
    with gr.Accordion("Take a concept back", open=False, elem_id="take-back"):
        removed = gr.Radio(
            label="Removed from this model, the last first",
            choices=[],
            elem_id="removed",
            info="gives a model to download, and leaves this run as it is. The last one comes back bit for bit; of an "
            "earlier one the change alone is subtracted",
        )
        with gr.Row():
            take = gr.Button("Take it back", elem_id="take")
            download = gr.DownloadButton("Download", visible=False, elem_id="taken-download")
        said = gr.Markdown(elem_id="taken")
    page.after_build(lambda: _wire(page, removed, take, download, said))


def _wire(page: Page, removed: Any, take: Any, download: Any, said: Any) -> None:
    @told
    def show(name: str | None) -> tuple[Any, ...]:
        choices = list(removals(page, name)) if name else []
        return gr.Radio(choices=choices, value=choices[0] if choices else None), gr.update(visible=False), ""

    @told
    def give(name: str | None, concept: str | None) -> tuple[Any, ...]:
        file, text = taken_back(page, name or "", concept or "", Path(tempfile.mkdtemp(prefix="turpentine-")))
        button = gr.DownloadButton(f"Download {file.name} ({size(file.stat().st_size)})", value=str(file), visible=True)
        return button, text

    page.follow(show, [removed, download, said])
    take.click(give, [page.run, removed], [download, said], concurrency_id=DEVICE, concurrency_limit=1, **PRIVATE)


def removals(page: Page, name: str) -> dict[str, str]:
    """What can be taken back from a run's model, the last first: concepts -> the run that removed them.

    What other runs removed is listed only if they are still there.
    """
    run = page.access.run(name)
    if not (run.path / "results.json").exists():
        return {}
    ends = {_last(page, other): other for other in page.runner.names() if other != name} | {_last(page, name): name}
    found = {each: ends[each] for each in reversed(lineage_of(str(run.path)).removals) if each in ends}
    return {join_concepts(each.concepts): other for each, other in found.items()}


def _last(page: Page, name: str) -> Removal | None:
    """What a run removed itself."""
    history = lineage_of(str(page.access.run(name).path)).removals
    return history[-1] if history else None


def taken_back(page: Page, name: str, concept: str, folder: Path) -> tuple[Path, str]:
    """A file with the model of a run in which a concept is back, and what is to be said of it.

    Raises:
        UserError: it was not removed from that model, or can't be taken back.
    """
    known = removals(page, name)
    if concept not in known:
        raise UserError(f"expected one of {list(known)}, which were removed from this model, got {concept[:80]!r}.")
    out = folder / file_name(f"{name}-with-{concept}") / "weights" / "diffusers"
    own = known[concept] == name
    model = None if own else str(page.access.run(name).path)
    undone = undo_to_folder(page.access.run(known[concept]).path, out, model, "cpu")
    return packed(undone.folder, folder), undone.taken.told
