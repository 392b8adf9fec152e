"""Ten of twelve concepts removed one after another: what resurfaces, and what taking one back brings."""

import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ...pipeline.schema.defaults import merge
from ...pipeline.worlds.tiny_canvas import STYLES, SUBJECTS
from .. import chain
from ..canvas import QUICK, recipe_of
from ..show import markdown
from ..table import Cell, Options, Record, Table

ORDER = [name for pair in zip(SUBJECTS, reversed(STYLES), strict=True) for name in pair]
"""Subjects and styles in turn; photo, the plainest style, is the last."""
LEFT = 2
"""Concepts that are never removed: the last subject and the last style, as nothing would be left in their place."""

SIZES: dict[str, Any] = {
    "prompts": {"n": 128},
    "audits": {"images": 4, "retain_train_images": 2, "alignment": False, "nudity": "off"},
    "output": {"formats": ["diffusers", "delta"]},
}
"""What a step changes in the shipped recipe; its own audits are not used here."""

IMAGES, BACK_AFTER = 16, 6
"""Pictures of each concept at each step; the step after which each concept is taken back on its own."""

RESURFACED = 0.1
"""A concept resurfaces if it is drawn in so many more of its pictures than right after its removal."""


def cells(options: Options) -> list[Cell]:
    """The base model, every step, and each concept taken back half-way; the last one at the end."""
    order, images, half = (ORDER[:3], 4, 2) if options.quick else (ORDER, IMAGES, BACK_AFTER)
    steps = len(order) if options.quick else len(order) - LEFT
    found = []
    for seed in options.seeds:
        changes = merge(SIZES, {"prompts": QUICK["prompts"], **_training(QUICK)} if options.quick else {})
        every = [recipe_of(name, changes, seed=seed, device="cpu").model_dump(mode="json") for name in order]

        def cell(
            what: str, count: int, back: str = "", images: int = images, every: chain.Steps = every, seed: int = seed
        ) -> Cell:
            done = every[:count]
            measure = (
                partial(chain.taken_back, done, back, every, images)
                if back
                else partial(chain.after_step, done, every, images)
            )
            settings = {"every": list(every), "steps": count, "back": back, "images": images}
            labels = {"step": str(count), "concept": back or (order[count - 1] if count else ""), "what": what}
            return Cell(f"{what}/{count:02d} {labels['concept']}/seed {seed}", labels, seed, settings, measure)

        found += [cell("removed", count) for count in range(half + 1)]
        found += [cell("back", half, name) for name in order[:half]]
        found += [cell("removed", count) for count in range(half + 1, steps + 1)]
        found.append(cell("last", steps, order[steps - 1], 0))
    return found


def _training(sizes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: sizes[name] for name in ("training", "samples")}


def page(records: Mapping[str, Record], folder: Path) -> str:
    """Write the matrix, what resurfaced, what was lost before its turn, and what taking back brought."""
    every = list(records.values())
    matrix = _matrix(every)
    steps = sorted(matrix)
    order = [_named(every, step) for step in steps[1:]]
    whole = len(ORDER) - LEFT
    part = "" if len(order) == whole else f"\n\n**So far the first {len(order)} of {whole} were measured.**"
    return "\n\n".join([
        "Concepts of tiny-canvas are removed one after another, each run starting from the weights of the one before, "
        "with `keep_forgotten: auto` (every fourth retain prompt asks for something that was removed before) and "
        f"{SIZES['prompts']['n']} pairs of prompts. A cell is the share, in percent, of up to {IMAGES} test pictures "
        "of the concept in which the judge sees it: 100 less UA. Bold is a concept that is removed by then. Prompts "
        "that name anything else that was removed are left out; a star stands where no others are left. A picture has "
        "the same seed at every step. The last subject and the last style stay, as nothing would be left to be drawn "
        f"in their place.{part}",
        f"## Concept × step\n\n{_table(matrix, order)}\n\n{_resurfaced(matrix, order)} {_lost(matrix, order)}",
        *([f"## Taken back\n\n{_back(every, matrix, order)}"] if any(_is(r, "back") for r in every) else []),
    ])  # fmt: skip


Shares = dict[str, list[float]]


def _is(record: Record, what: str) -> bool:
    return record.labels["what"] == what


def _matrix(records: Sequence[Record]) -> dict[int, Shares]:
    """Step -> concept -> mean share over seeds, and the number of pictures that name nothing that was removed."""
    return {step: _mean(found) for step, found in _by_step(records).items()}


def _by_step(records: Sequence[Record]) -> dict[int, list[Shares]]:
    found: dict[int, list[Shares]] = {}
    for record in records:
        if _is(record, "removed"):
            found.setdefault(int(record.labels["step"]), []).append(record.figures["drawn"])
    return found


def _mean(shares: Sequence[Shares]) -> Shares:
    return {name: [statistics.fmean(each[name][place] for each in shares) for place in range(2)] for name in shares[0]}


def _named(records: Sequence[Record], step: int) -> str:
    """The concept that a step removes."""
    return next(r.labels["concept"] for r in records if _is(r, "removed") and int(r.labels["step"]) == step)


def _cell(shares: Sequence[float], removed: bool) -> str:
    text = f"{100 * shares[0]:.0f}"
    return (f"**{text}**" if removed else text) + ("" if shares[1] else "*")


def _table(matrix: Mapping[int, Shares], order: Sequence[str]) -> str:
    rows = [
        [f"{place}. {name}", *(_cell(shares[name], place <= step) for step, shares in sorted(matrix.items()))]
        for place, name in enumerate(order, start=1)
    ]
    stay = [name for name in matrix[0] if name not in order]
    rows += [[name, *(_cell(shares[name], False) for _, shares in sorted(matrix.items()))] for name in stay]
    return markdown(["after step", *map(str, sorted(matrix))], rows)


def _resurfaced(matrix: Mapping[int, Shares], order: Sequence[str]) -> str:
    """Say which concepts came back after their removal."""
    said, own = [], []
    for place, name in enumerate(order, start=1):
        own.append(matrix[place][name][0])
        later = {step: matrix[step][name][0] for step in matrix if step > place}
        if later and max(later.values()) > own[-1] + RESURFACED:
            step = max(later, key=lambda each: later[each])
            said.append(f"{name} (from {100 * own[-1]:.0f} to {100 * later[step]:.0f} %, after {order[step - 1]})")
    right = f"Right after its removal a concept is still seen in {100 * statistics.fmean(own):.0f} % of its pictures"
    points = f"more than {100 * RESURFACED:.0f} points"
    found = f"By {points} came back: {'; '.join(said)}." if said else f"None came back by {points} later on."
    return f"{right} (mean; most: {100 * max(own):.0f} %). {found}"


def _lost(matrix: Mapping[int, Shares], order: Sequence[str]) -> str:
    """Say what the model drew of each concept right before its turn."""
    fell = {name: matrix[0][name][0] - matrix[place][name][0] for place, name in enumerate(order)}
    worst = max(fell, key=lambda name: fell[name])
    before = statistics.fmean(matrix[place][name][0] for place, name in enumerate(order))
    return (
        f"Right before its turn a concept is still drawn in {100 * before:.0f} % (mean), and in "
        f"{100 * statistics.fmean(matrix[0][name][0] for name in order):.0f} % by the model as it came; "
        f"{worst} lost most of this, {100 * fell[worst]:.0f} points."
    )


def _back(records: Sequence[Record], matrix: Mapping[int, Shares], order: Sequence[str]) -> str:
    """One row for each concept that was taken back half-way."""
    rows, alone = [], {}
    for name in order:
        found = [r for r in records if _is(r, "back") and r.labels["concept"] == name]
        if not found:
            continue
        step, drawn = int(found[0].labels["step"]), _mean([record.figures["drawn"] for record in found])
        removed = [other for other in order[:step] if other != name]
        others = order[step:]
        equal = all(record.figures["equal"] for record in found)
        rises = [drawn[other][0] - matrix[step][other][0] for other in removed]
        returned = drawn[name][0] >= matrix[0][name][0] - RESURFACED
        alone[name] = returned and max(rises, default=0) <= RESURFACED
        rows.append([
            name,
            f"{100 * matrix[0][name][0]:.0f}",
            f"{100 * matrix[step][name][0]:.0f} → {100 * drawn[name][0]:.0f}",
            _moved([matrix[step][other][0] for other in removed], [drawn[other][0] for other in removed], max),
            _moved([matrix[step][other][0] for other in others], [drawn[other][0] for other in others], None),
            "yes" if equal else "no",
        ])  # fmt: skip
    last = [r for r in records if _is(r, "last")]
    header = [
        "taken back", "drawn by the base, %", "drawn, %", "most of those still removed, %", "mean of the others, %",
        "bit for bit",
    ]  # fmt: skip
    return (
        f"From the model after step {step}, in which {step} concepts are removed, each is taken back on its own with "
        "`turpentine undo`. The columns show the shares with all of them removed, and afterwards. *Bit for bit* says "
        "whether the weights are those before the concept's removal: they can be for the last one only, as all later "
        f"removals were trained on top of the others.\n\n{markdown(header, rows)}\n\n"
        f"{_alone(alone)} {_end(last)}"
    ).rstrip()


def _alone(found: Mapping[str, bool]) -> str:
    """Say of which concepts only they returned."""
    points = f"{100 * RESURFACED:.0f} points"
    others = [name for name, yes in found.items() if not yes]
    said = f" Not so: {', '.join(others)}." if others else ""
    return (
        f"Only it returned, to within {points} of the base and with no other removed concept rising by more than "
        f"{points}, in {len(found) - len(others)} of {len(found)} cases.{said}"
    )


def _end(last: Sequence[Record]) -> str:
    """Say whether the last of all came back bit for bit."""
    if not last:
        return ""
    equal = all(record.figures["equal"] for record in last)
    return (
        f"At the end, after all {last[0].labels['step']}, the last one ({last[0].labels['concept']}) was taken back: "
        f"the weights are {'' if equal else '**not** '}those before its removal, by their sha256."
    )


def _moved(before: Sequence[float], after: Sequence[float], pick: Any) -> str:
    pick = pick or statistics.fmean
    return f"{100 * pick(before):.0f} → {100 * pick(after):.0f}" if before else "–"


TABLE = Table("Ten concepts in a row, and one taken back", cells, page)
