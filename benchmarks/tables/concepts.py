"""Table 2 and Fig. 4: alignment on retain prompts, and detections on forget prompts."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes

from ..canvas import (
    CONCEPTS,
    GRACEFUL,
    STORE,
    accuracies,
    cell,
    change,
    gap,
    little_forgotten,
    mean,
    mean_text,
    pick,
    rows,
    shown,
    step_shares,
)
from ..show import claims, figure, markdown, orderings
from ..table import Cell, Options, Record, Table

METRICS = {"D_r,train": "retain_train", "D_r,test": "retain_test"}

PAPER = {
    "object": {
        "tiny-canvas": {"D_r,train": 0.357, "D_r,test": 0.352},
        "ESD": {"D_r,train": 0.327, "D_r,test": 0.329},
        "ESD-u": {"D_r,train": 0.327, "D_r,test": 0.329},
        "SalUn": {"D_r,train": 0.305, "D_r,test": 0.312},
        "GradDiffD": {"D_r,train": 0.342, "D_r,test": 0.348},
        "RGD": {"D_r,train": 0.354, "D_r,test": 0.350},
    },
    "style": {
        "tiny-canvas": {"D_r,train": 0.349, "D_r,test": 0.348},
        "ESD": {"D_r,train": 0.300, "D_r,test": 0.298},
        "ESD-x": {"D_r,train": 0.333, "D_r,test": 0.330},
        "SalUn": {"D_r,train": 0.279, "D_r,test": 0.280},
        "GradDiffD": {"D_r,train": 0.334, "D_r,test": 0.333},
        "RGD": {"D_r,train": 0.355, "D_r,test": 0.352},
    },
}
"""Ko et al. 2024, Table 2: nudity stands beside our objects, Van Gogh's style beside our style; SD is the base."""

DETECTIONS = {"tiny-canvas": 598, "ESD-u": 48, "SalUn": 3, "RGD": 0}
"""Exposed body parts that NudeNet found for the I2P prompts (Ko et al. 2024, Section 1, of Fig. 4)."""

DETECTED = "astronaut"


def cells(options: Options) -> list[Cell]:
    """The base model and every row, on each concept."""
    concepts = [DETECTED] if options.quick else list(CONCEPTS)
    return [
        cell(row, concept, seed, options)
        for seed in options.seeds
        for concept in concepts
        for row in ("none", *rows())
    ]  # fmt: skip


def page(records: Mapping[str, Record], folder: Path) -> str:
    """Write a table for each kind of concept, detections, violations, and the verdicts."""
    kinds = sorted({CONCEPTS[record.labels["concept"]] for record in records.values()})
    return "\n\n".join([
        "Alignment is the mean image-text cosine by tiny-canvas's judge, on retain prompts of the training set "
        "(D_r,train) and on held-out ones (D_r,test); the loss against the base model stands in brackets. All rows are "
        "measured on the same prompts and seeds. Scene kept is the share of what else the forget prompts name (style "
        "and place for an object, subject and place for a style) that the judge still sees in their pictures. The "
        "paper's columns (Ko et al. 2024, Table 2) are of Stable Diffusion 1.4 and another judge: compare orders, not "
        "values. They are empty for rows that the paper does not have.",
        f"## In short\n\n{headline(records)}",
        *(_alignment(kind, records) for kind in kinds),
        _detections(records, folder),
        _steps(records),
    ])  # fmt: skip


_OPTIONS = {
    "rgd": "rgd --forget ascend",
    GRACEFUL: "rgd",
    "rgd, metric adam": "rgd --forget ascend --metric adam",
    "rgd, guard": "rgd --forget ascend --guard true",
}
"""Rows by the words that a user would write."""


def headline(records: Mapping[str, Record]) -> str:
    """Write one line a method for the README: accuracies, and the change of alignment on held-out retain prompts."""
    concepts = list(dict.fromkeys(record.labels["concept"] for record in records.values()))
    header = ["method", *(text for name in concepts for text in (f"{name}: UA / IRA / CRA ↑", "alignment"))]
    table = []
    for row in rows():
        line = [f"`{_OPTIONS.get(row, row)}`"]
        for concept in concepts:
            found = pick(records.values(), concept=concept)
            own, base = pick(found, row=row), pick(found, row="none")
            line += [accuracies(own), change(mean(own, "retain_test"), mean(base, "retain_test"))]
        table.append(line)
    return markdown(header, table)


def _alignment(kind: str, records: Mapping[str, Record]) -> str:
    ours = [r for r in records.values() if CONCEPTS[r.labels["concept"]] == kind]
    present = [row for row in ("none", *rows()) if pick(ours, row=row)]
    means = {shown(row): {m: mean(pick(ours, row=row), key) for m, key in METRICS.items()} for row in present}
    table = []
    for row in present:
        found, name = pick(ours, row=row), shown(row)
        paper = PAPER[kind].get(name)
        table.append([
            name,
            f"{mean(found, 'UA'):.3f}",
            mean_text(found, "scene"),
            f"{mean(found, 'forget'):.3f}",
            *(gap(means, name, metric) for metric in METRICS),
            *(gap(PAPER[kind], name, metric) if paper else "" for metric in METRICS),
        ])  # fmt: skip
    concepts = ", ".join(dict.fromkeys(record.labels["concept"] for record in ours))
    width = sum((high - low) / 2 for low, high in (r.figures["retain_test_interval"] for r in ours)) / len(ours)
    header = ["", "UA ↑", "scene kept ↑", "D_f,test ↓", *(f"{m} ↑" for m in METRICS), *(f"paper {m}" for m in METRICS)]
    claimed = {
        f"{better} keeps more of D_r,test than {worse}": means[better]["D_r,test"] > means[worse]["D_r,test"]
        for better, worse in (("RGD", "GradDiffD"), ("RGD", "SalUn"), ("RGD", "ESD"))
        if {better, worse} <= set(means)
    }
    return (
        f"## Removing {'a' if kind == 'style' else 'an'} {kind}: {concepts}\n\n{markdown(header, table)}\n\n"
        f"{orderings(PAPER[kind], means)} Half the 95 % interval of D_r,test is {width:.3f} on average. "
        f"{claims(claimed)} {little_forgotten(ours, PAPER[kind])}"
    ).rstrip()


def _detections(records: Mapping[str, Record], folder: Path) -> str:
    ours = pick(records.values(), concept=DETECTED)
    present = [row for row in ("none", *rows()) if pick(ours, row=row)]
    found = {shown(row): mean(pick(ours, row=row), "FACE") for row in present}
    images = ours[0].figures["images"]

    def draw(axes: Sequence[Axes]) -> None:
        (axis,) = axes
        bars = axis.barh(list(found), list(found.values()), color="C0")
        axis.bar_label(bars, fmt="%g", padding=3)
        axis.invert_yaxis()
        axis.set_xlabel(f"photos of an astronaut with a face, of {images}")

    image = figure(folder / "detections.svg", draw, size=(6, 3.4))
    floor = mean(pick(ours, row="none"), "floor")
    table = [[name, f"{count:g}", str(DETECTIONS.get(name, ""))] for name, count in found.items()]
    verdict = orderings(
        {name: {"detections": float(count)} for name, count in DETECTIONS.items()},
        {name: {"detections": count} for name, count in found.items()},
    )
    return (
        "## Detections (Fig. 4)\n\nThe table counts photos of an astronaut in which NudeNet detects FACE_FEMALE, the "
        f"harmless stand-in for body parts here. NudeNet also detects one in {floor:.0%} of the base model's retain "
        "photos. The paper's column counts exposed body parts for the I2P prompts.\n\n"
        f"![Detections by method]({image})\n\n{markdown(['', f'faces, of {images}', 'paper'], table)}\n\n{verdict}"
    )


def _steps(records: Mapping[str, Record]) -> str:
    present = [row for row in rows() if pick(records.values(), row=row)]
    table = []
    for row in present:
        found = pick(records.values(), row=row)
        table.append([
            shown(row),
            *step_shares(row, found),
            f"{mean(found, 'truncated'):.0%}",
            f"{mean(found, 'seconds'):.0f}",
            f"{mean(found, 'peak_memory') / 1e6:.0f}",
        ])  # fmt: skip
    header = ["", "conflict", "raises L_f / L_r", "truncated", "seconds", "memory, MB"]
    return (
        "## Conflicts and violations\n\nThe columns show the shares of steps in which the gradients conflict, in which "
        "Adam's actual update raises the method's own forget or retain loss to first order, and in which the forget "
        "loss was truncated. `metric: adam` and `guard` are two ways to keep the guarantee of the restricted gradient "
        "under Adam. Seconds are of training; memory is of tensors beyond the model.\n\n"
        f"{markdown(header, table)}\n\n{_kept(records)}"
    )


def _kept(records: Mapping[str, Record]) -> str:
    worst = {
        shown(row): max(sum(record.figures["violations"]) for record in found)
        for row in rows()
        if (found := pick(records.values(), row=row)) and row.startswith("rgd")
    }
    clean = [name for name, share in worst.items() if share == 0]
    broken = [f"{name} (up to {share:.0%} of the steps)" for name, share in worst.items() if share > 0]
    return " ".join([
        f"No step of these raises a loss to first order: {'; '.join(clean)}." if clean else "",
        f"Adam breaks the guarantee of Theorem 4 for {'; '.join(broken)}." if broken else "",
    ]).strip()  # fmt: skip


TABLE = Table("Alignment after removal (Table 2) and detections (Fig. 4)", cells, page, STORE)
