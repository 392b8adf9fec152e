"""UnlearnCanvas's accuracies: every subject and every style, by every method."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from matplotlib.axes import Axes

from ..canvas import STORE, cell, every_concept, mean, mean_text, methods, pick, score, shown, step_shares
from ..show import claims, figure, markdown
from ..table import Cell, Options, Record, Table

METRICS = ("UA", "IRA", "CRA")


def cells(options: Options) -> list[Cell]:
    """The base model and every method, on every subject and style."""
    concepts = ["cat"] if options.quick else every_concept()
    return [
        cell(row, concept, seed, options)
        for seed in options.seeds
        for concept in concepts
        for row in ("none", *methods())
    ]


def page(records: Mapping[str, Record], folder: Path) -> str:
    """Write means over concepts, a mean for every concept, a figure, and the verdict."""
    grouped = {row: pick(records.values(), row=row) for row in methods()}
    means = {shown(row): {m: mean(found, m) for m in METRICS} for row, found in grouped.items()}
    scores = {name: score(row) for name, row in means.items()}
    concepts = list(dict.fromkeys(record.labels["concept"] for record in records.values()))
    lost = {row: _lost(found, pick(records.values(), row="none")) for row, found in grouped.items()}
    table = []
    for row, found in grouped.items():
        table.append([
            shown(row),
            *(f"{means[shown(row)][metric]:.3f}" for metric in METRICS),
            f"{scores[shown(row)]:.3f}",
            mean_text(found, "scene"),
            f"{mean(found, 'forget'):.3f}",
            f"{fmean(lost[row].values()):.1f}",
            f"{mean(found, 'hurt'):.1f}",
            step_shares(row, found)[1],
            f"{mean(found, 'seconds'):.0f}",
            f"{mean(found, 'peak_memory') / 1e6:.0f}",
        ])  # fmt: skip
    header = [
        "",
        *(f"{m} ↑" for m in METRICS),
        "mean ↑",
        "scene kept ↑",
        "D_f,test ↓",
        "lost, % ↓",
        "hurt",
        "raises L_f / L_r",
        "seconds",
        "memory, MB",
    ]
    return (
        f"Each method removes each of {len(concepts)} concepts. tiny-canvas's judge decides UA, IRA and CRA (Zhang et "
        "al. 2024). The judge can mistake artefacts for the concept, so D_f,test stands beside UA as a graded figure. "
        "Ko et al. have no such table; the page checks the claims of their Section 4.\n\n"
        "- UA: share of forget images in which the judge no longer sees the concept.\n"
        "- IRA, CRA: accuracy of the other values of the concept's domain (subject or style), and of the other "
        "domain.\n"
        "- scene kept: share of what else the forget prompts name (style and place for a subject, subject and place "
        "for a style) that the judge still sees in their pictures; near 0, what is drawn is wreckage.\n"
        "- D_f,test: mean image-text cosine of the forget prompts.\n"
        "- lost: relative fall of the mean image-text cosine of held-out retain prompts against the base model.\n"
        "- hurt: mean number of other subjects, styles and places whose accuracy fell by more than 2 points.\n"
        "- raises: share of steps whose real update raises the method's own forget or retain loss to first order.\n"
        "- seconds of training; memory of tensors beyond the model.\n\n"
        f"{markdown(header, table)}\n\n"
        f"![Mean of UA, IRA and CRA of every concept]({_map(grouped, concepts, folder)})\n\n"
        f"{markdown(['mean of UA, IRA, CRA', *map(shown, grouped)], _by_concept(grouped, concepts))}\n\n"
        f"{markdown(['alignment lost, %', *map(shown, grouped)], _losses(lost, concepts))}\n\n"
        f"{_worst(grouped)}\n\n{verdict(means)}"
    )


def verdict(means: Mapping[str, Mapping[str, float]]) -> str:
    """Check the paper's expectations on means of UA, IRA and CRA; rows by their names in the paper."""
    scores = {name: score(row) for name, row in means.items()}
    ranked = sorted(scores, key=scores.__getitem__, reverse=True)
    checks = {
        "RGD's UA is the highest": "RGD" in means and means["RGD"]["UA"] >= max(row["UA"] for row in means.values())
    }
    for better, worse in (("RG", "GradDiff"), ("RGD", "RG"), ("RGD", "GradDiffD"), ("GradDiffD", "GradDiff")):
        if {better, worse} <= set(means):
            checks[f"{better} is above {worse}"] = scores[better] > scores[worse]
    return f"By the mean of the three: {', '.join(f'{name} {scores[name]:.3f}' for name in ranked)}. {claims(checks)}"


def _lost(found: Sequence[Record], base: Sequence[Record]) -> dict[str, float]:
    """Concept -> relative fall of alignment on held-out retain prompts against the base model, in percent."""
    concepts = dict.fromkeys(record.labels["concept"] for record in found)
    kept = {name: mean(pick(found, concept=name), "retain_test") for name in concepts}
    return {name: 100 * (1 - kept[name] / mean(pick(base, concept=name), "retain_test")) for name in concepts}


def _losses(lost: Mapping[str, Mapping[str, float]], concepts: Sequence[str]) -> list[list[str]]:
    return [[concept, *(f"{row[concept]:.1f}" for row in lost.values())] for concept in concepts]


def _by_concept(grouped: Mapping[str, list[Record]], concepts: Sequence[str]) -> list[list[str]]:
    return [
        [concept, *(f"{_score(found, concept):.3f}" for found in grouped.values())] for concept in concepts
    ]  # fmt: skip


def _score(found: Sequence[Record], concept: str) -> float:
    own = pick(found, concept=concept)
    return score({metric: mean(own, metric) for metric in METRICS})


def _worst(grouped: Mapping[str, list[Record]]) -> str:
    parts = []
    for row, found in grouped.items():
        names = [record.figures["worst"] for record in found if record.figures["hurt"]]
        if names:
            most = max(dict.fromkeys(names), key=names.count)
            parts.append(f"{shown(row)} {most} ({names.count(most)} of {len(found)} runs)")
    return f"Most frequent worst case: {'; '.join(parts)}." if parts else "No method hurt another value."


def _map(grouped: Mapping[str, list[Record]], concepts: Sequence[str], folder: Path) -> str:
    values = [[_score(found, concept) for found in grouped.values()] for concept in concepts]

    def draw(axes: Sequence[Axes]) -> None:
        (axis,) = axes
        drawn = axis.imshow(values, cmap="viridis", vmin=0, vmax=1, aspect="auto")
        axis.set_xticks(range(len(grouped)), [shown(row) for row in grouped], rotation=45, ha="right")
        axis.set_yticks(range(len(concepts)), concepts)
        for y, line in enumerate(values):
            for x, value in enumerate(line):
                axis.text(
                    x, y, f"{value:.2f}", ha="center", va="center", size=7, color="white" if value < 0.6 else "black"
                )
        axis.figure.colorbar(drawn, ax=axis)

    return figure(folder / "canvas.svg", draw, size=(7, 1.6 + 0.3 * len(concepts)))


TABLE = Table("Every subject and style (UnlearnCanvas)", cells, page, STORE)
