"""Figs 1, 3, 5 and 8 to 11: pictures by each method for the same prompts and seeds."""

from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ...pipeline.run.audit import audit_prompts, subject_of
from ...pipeline.run.prompts import prompts_of
from ...pipeline.schema.defaults import stored_recipe
from ...pipeline.schema.image_sets import TEST_SETS
from ...pipeline.schema.resolve import resolve
from ...pipeline.support.files import file_name, replacing
from ..canvas import CONCEPTS, PICTURED, PICTURES, STORE, cell, pick, pictured, rows, shown
from ..table import Cell, Options, Record, Table

GAP, HEAD, MARGIN = 4, 56, 24


def cells(options: Options) -> list[Cell]:
    """The base model and every row on each concept, one seed: pictures, not means."""
    concepts = list(CONCEPTS)[:1] if options.quick else list(CONCEPTS)
    return [
        pictured(cell(row, concept, options.seeds[0], options)) for concept in concepts for row in ("none", *rows())
    ]


def page(records: Mapping[str, Record], folder: Path) -> str:
    """Draw a picture for each concept, and write its prompts below."""
    concepts = dict.fromkeys(record.labels["concept"] for record in records.values())
    parts = [
        "Each column is a method. Each row is one held-out prompt and seed, the same for all methods: F1 to "
        f"F{PICTURED} ask for the removed concept, R1 to R{PICTURED} for the same scenes without it. They are the "
        "first test prompts and were not selected. Figs 1, 3 and 5 of the paper show removed and kept pictures, Figs 8 "
        "to 11 kept ones."
    ]
    for concept in concepts:
        found = pick(records.values(), concept=concept)
        name = f"grid-{file_name(concept)}.jpg"
        tiles = {shown(record.labels["row"]): PICTURES / record.figures["picture"] for record in found}
        with replacing(folder / name) as partial:
            grid(tiles).save(partial, quality=82, optimize=True)
        prompts = "\n".join(f"- {label}: {text}" for label, text in _prompts(found[0]).items())
        parts.append(f"## {concept}\n\n![{concept} removed by each method]({name})\n\n{prompts}")
    return "\n\n".join([*parts, _verdict(records)])


def grid(columns: Mapping[str, Path]) -> Image.Image:
    """Join all columns into one picture, with forget prompts above retain prompts.

    Args:
        columns: heading -> the pictures of a cell, see `canvas.save_pictures`.
    """
    tiles = {name: _tiles(path) for name, path in columns.items()}
    lines = next(iter(tiles.values()))
    side, count = lines[0].height, len(lines)
    halves = GAP * 3  # between forget and retain prompts
    sheet = Image.new("RGB", (MARGIN + len(tiles) * (side + GAP), HEAD + count * (side + GAP) + halves), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    tops = [HEAD + place * (side + GAP) + halves * (place >= count // 2) for place in range(count)]
    for place, top in enumerate(tops):
        term = "F" if place < count // 2 else "R"
        label = f"{term}{place % (count // 2) + 1}"
        pen.text((2, top + side / 2), label, "black", font, anchor="lm")
    for column, (name, pictures) in enumerate(tiles.items()):
        left = MARGIN + column * (side + GAP)
        pen.multiline_text((left, HEAD - 4), name.replace(", ", ",\n").replace(" ", "\n"), "black", font, anchor="ld")
        for picture, top in zip(pictures, tops, strict=True):
            sheet.paste(picture, (left, top))
    return sheet


def _tiles(path: Path) -> list[Image.Image]:
    with Image.open(path) as strip:
        side = strip.height // 2
        places = [(x, y) for y in (0, side) for x in range(0, strip.width, side)]
        return [strip.crop((x, y, x + side, y + side)) for x, y in places]


def _prompts(record: Record) -> dict[str, str]:
    recipe = stored_recipe(record.settings)
    texts = audit_prompts(prompts_of(resolve(recipe)), recipe.audits, subject_of(resolve(recipe)))
    return {
        f"{letter}{place + 1}": texts[name][place]
        for letter, name in zip("FR", TEST_SETS, strict=True)
        for place in range(PICTURED)
    }


def _verdict(records: Mapping[str, Record]) -> str:
    """Write the figures of the runs that are shown, because four pictures prove little."""
    parts = []
    for concept in dict.fromkeys(record.labels["concept"] for record in records.values()):
        found = pick(records.values(), concept=concept)
        trained = [record for record in found if record.labels["row"] != "none"]
        gone = max(trained, key=lambda record: record.figures["UA"])
        kept = max(trained, key=lambda record: record.figures["retain_test"])
        parts.append(
            f"{concept}: most forgotten by {shown(gone.labels['row'])} (UA {gone.figures['UA']:.3f}), most alignment "
            f"kept by {shown(kept.labels['row'])} ({kept.figures['retain_test']:.3f})"
        )
    return f"By the figures of these runs (in the paper RGD leads in both): {'; '.join(parts)}."


TABLE = Table("What the methods draw (Figs 1, 3, 5, 8 to 11)", cells, page, STORE)
