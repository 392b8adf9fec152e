"""Step 2: the concept and its paired prompts."""

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from ...pipeline.data.pictures import find_pictures
from ...pipeline.prompts import PromptPair, PromptSet, tables
from ...pipeline.run.prompts import prompts_of
from ...pipeline.schema.idle import idle_options
from ...pipeline.schema.recipe import Recipe
from ...pipeline.schema.resolve import resolve
from ...pipeline.support.errors import UserError
from ...pipeline.support.files import file_name
from ...pipeline.support.text import counted
from ..access import upload
from ..page import PRIVATE, Page, told, why
from ..pictures import diversity
from ..render import render

HEADERS = ["split", "forget", "retain", "instead"]
_LARGEST_FILE = 5_000_000
_MOST_ROWS = 20_000
PICTURES, FLIP = ("data", "forget_images"), ("data", "flip_images")
_ASKED_LATER = "Press Make new prompts to ask the language model now. Otherwise it is asked when the run starts."


def build(page: Page) -> None:
    """Put the step on the page."""
    controls = page.controls
    gr.Markdown("## Name the concept to remove")
    why("prompts")
    with gr.Row():
        concept = controls.add(("concept",), label="Remove", max_length=60)
        controls.add(
            ("prompts", "replace_with"),
            label="Draw instead",
            info="e.g. 'a horse', 'clothed', 'a plain photo'; 'nothing': the scene without it; 'auto': one thing that "
            "fits",
            placeholder="empty: what the retain prompts show",
            max_length=200,
        )
        kind = controls.add(("kind",), choices=["object", "style", "nudity"], info="the sort of concept")
    with gr.Accordion("Or by pictures", open=False, elem_id="by-pictures"):
        gr.Markdown(
            "For what has no name: one person, a logo, a single artwork. Drop its pictures, and beside them a caption "
            "each as NAME.txt if you have them. *Remove* then says what they show. A file has at most 5 MB."
        )
        dropped = gr.File(
            label="Pictures to forget",
            file_count="multiple",
            file_types=["image", ".txt"],
            elem_id="forget-pictures",
        )
        told_of = gr.Markdown(elem_id="pictures-kept")
        controls.add(FLIP)
        pictures = controls.add(PICTURES, visible=False)
    with gr.Accordion("Prompt settings", open=False):
        controls.add(("prompts", "n"), label="Training pairs")
        controls.add(("prompts", "n_test"), label="Test pairs")
        controls.section("prompts", skip=() if page.access.llm_url else ("source", "llm_fallback"))
    checks = gr.HTML(elem_id="checks")
    page.table = gr.Dataframe(
        headers=HEADERS,
        type="array",
        datatype="str",
        interactive=True,
        wrap=True,
        max_height=420,
        show_search="search",
        column_widths=["70px", "30%", "30%", "30%"],
        column_count=len(HEADERS),
        elem_id="pairs",
        label="Prompt pairs: change, add or delete rows",
    )
    page.base = gr.State()
    with gr.Row():
        imported = gr.UploadButton(
            "Import .csv, .json or .txt", file_types=list(tables.SUFFIXES), elem_id="import", size="sm"
        )
        export = gr.Button("Export", elem_id="export-prompts", size="sm")
        again = gr.Button("Make new prompts", elem_id="remake", size="sm")
    exported = gr.File(label="Prompts to download", visible=False, interactive=False, elem_id="exported")
    with gr.Accordion("How diverse is the set?", open=False):
        picture = gr.HTML()
    page.next_button(3)
    fields = [component for path, component in controls.components.items() if path[0] == "prompts"]
    page.after_build(lambda: _wire(page, [concept, kind, *fields], checks, imported, export, again, exported, picture))
    page.after_build(lambda: _wire_pictures(page, dropped, pictures, told_of))


def _wire(
    page: Page, fields: list[Any], checks: Any, imported: Any, export: Any, again: Any, exported: Any, picture: Any
) -> None:
    inputs, made = page.controls.inputs, [page.table, page.base, checks, picture]

    def make(*values: Any, ask: bool = False) -> tuple[Any, ...]:
        empty = [[""] * len(HEADERS)], None  # a table needs a row
        try:
            recipe = page.recipe(values)
            if recipe.prompts.source == "llm" and not ask:
                return *empty, problem(_ASKED_LATER), ""
            setting = resolve(recipe)
            prompts = prompts_of(setting)
        except UserError as error:
            return *empty, problem(page.access.without_folders(str(error))), ""
        idle = idle_options(setting, ("prompts.replace_with",))
        return rows_of(prompts), prompts, verdict(prompts, idle), diversity(prompts)

    def check(rows: list[list[Any]], base: PromptSet | None) -> Any:
        if base is None:  # the checks already say why
            return gr.skip()
        try:
            return verdict(edited(base, rows))
        except UserError as error:
            return problem(str(error))

    @told
    def read(path: str, *values: Any) -> tuple[Any, ...]:
        recipe = page.recipe(values)
        file = upload(path, tables.SUFFIXES, _LARGEST_FILE)
        if recipe.kind == "class":
            prompts = PromptSet.load(file, concept=recipe.concept, seed=recipe.seed)
        else:
            own = recipe.prompts.model_copy(update={"file": str(file)})
            prompts = prompts_of(resolve(recipe.model_copy(update={"prompts": own})))
        prompts = prompts.model_copy(update={"source": "file"})
        return rows_of(prompts), prompts, verdict(prompts), diversity(prompts)

    @told
    def write(rows: list[list[Any]], base: PromptSet | None) -> Any:
        prompts = edited(base, rows)
        folder = Path(tempfile.mkdtemp(prefix="turpentine-"))
        files = [folder / f"{file_name(prompts.concept)}-prompts{suffix}" for suffix in (".csv", ".json")]
        for file in files:
            prompts.save(file)
        return gr.File(value=[str(file) for file in files], visible=True)

    shared: dict[str, Any] = {"trigger_mode": "always_last", "show_progress": "hidden"} | PRIVATE
    page.remake = {"fn": make, "inputs": inputs, "outputs": made} | shared
    gr.on([*(field.input for field in fields), page.demo.load], **page.remake)
    again.click(**page.remake | {"fn": partial(make, ask=True)})
    page.table.input(check, [page.table, page.base], checks, **shared)
    quiet: dict[str, Any] = {"show_progress": "hidden"} | PRIVATE  # otherwise an error covers the table
    imported.upload(read, [imported, *inputs], made, **quiet)
    export.click(write, [page.table, page.base], exported, **quiet)


def _wire_pictures(page: Page, dropped: Any, pictures: Any, told_of: Any) -> None:
    """Keep what is dropped, and name it in the recipe. What can't be kept leaves the page, so that none looks kept."""

    @told
    def keep(files: list[str] | None) -> tuple[str, str]:
        if not files:
            return "none", ""
        folder = page.access.keep_pictures(files)
        return str(folder), f"To be forgotten: {counted(len(find_pictures(folder)), 'picture')}."

    shared: dict[str, Any] = {"show_progress": "hidden"} | PRIVATE
    kept = gr.on([dropped.upload, dropped.clear, dropped.delete], keep, dropped, [pictures, told_of], **shared)
    kept.success(**page.remake)
    none = kept.failure(lambda: (None, "none", ""), None, [dropped, pictures, told_of], **shared)
    none.success(**page.remake)


def rows_of(prompts: PromptSet) -> list[list[str]]:
    """The rows of the table for a prompt set."""
    pairs = [("train", pair) for pair in prompts.train] + [("test", pair) for pair in prompts.test]
    return [[split, pair.forget, pair.retain, pair.anchor or ""] for split, pair in pairs]


def edited(base: PromptSet | None, rows: Any) -> PromptSet:
    """Read the prompt set from the table; return `base` itself if no cell was changed.

    Raises:
        UserError: a row is invalid.
    """
    if base is None:
        raise UserError("expected prompts, got none. Choose a concept that the model can draw.")
    if (
        not isinstance(rows, list)
        or len(rows) > _MOST_ROWS
        or any(not isinstance(row, list) or len(row) < 3 for row in rows)
    ):
        raise UserError(f"expected at most {_MOST_ROWS} rows of split, forget, retain and what is drawn instead.")
    cells = [[" ".join(str(cell or "").split()) for cell in (*row, "")[: len(HEADERS)]] for row in rows]
    numbered = [(number, row) for number, row in enumerate(cells, start=1) if any(row)]
    if [row for _, row in numbered] == rows_of(base):
        return base
    parts: dict[str, list[PromptPair]] = {"train": [], "test": []}
    for number, (split, forget, retain, anchor) in numbered:
        if split not in parts:
            raise UserError(f"row {number}: split must be train or test, got {split!r}.")
        parts[split].append(PromptPair(forget=forget, retain=retain, anchor=anchor or None))
    pairs = [*parts["train"], *parts["test"]]
    own = base.own_too or not {*pairs} <= {*base.train, *base.test}
    made = {"source": "file", "usual_anchor": False, "own_too": own and base.replace_with is not None}
    prompts = base.model_copy(update={name: tuple(pairs) for name, pairs in parts.items()} | made)
    prompts.check()
    unnamed = [number for number, (_, forget, *_) in numbered if not prompts.names_concept(forget)]
    warnings = tables.told(unnamed, "forget prompt", f"without {prompts.concept!r}", "row")
    return prompts.model_copy(update={"warnings": tuple(dict.fromkeys((*prompts.warnings, *warnings)))})


def own_pairs(base: PromptSet | None, rows: Any, recipe: Recipe) -> PromptSet | None:
    """The visitor's own prompts; None if the recipe makes the same ones.

    Raises:
        UserError: a row is invalid.
    """
    if base is None:
        return None
    prompts = edited(base, rows)
    if prompts.source == "template":
        return None
    if not prompts.test:
        raise UserError("expected some test rows for the audits, got none. Set the split of some rows to test.")
    return prompts


def verdict(prompts: PromptSet, more: Sequence[str] = ()) -> str:
    """Report a valid set, what is drawn instead, and the warnings about it and `more`."""
    instead = "" if more else prompts.drawn_instead
    counts = {"train": len(prompts.train), "test": len(prompts.test)}
    return render("checked", **counts, instead=instead, warnings=(*prompts.warnings, *more))


def problem(text: str) -> str:
    """Report an error in the prompts."""
    return render("problem", text=text)
