"""Table 1: class-wise forgetting, each class in turn."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes

from ..digits import CLASSES, NAMES, cell, methods
from ..show import figure, markdown, mean_sd, orderings
from ..table import Cell, Options, Record, Table

METRICS = ("UA", "RA", "FID")

PAPER = {
    "Finetune": {"UA": (0.211, 0.126), "RA": (0.791, 0.023), "FID": (4.252, 0.482)},
    "SalUn": {"UA": (0.512, 0.173), "RA": (0.434, 0.051), "FID": (14.40, 3.242)},
    "GradDiff": {"UA": (1.0, 0.0), "RA": (0.734, 0.021), "FID": (14.09, 2.531)},
    "RG": {"UA": (1.0, 0.0), "RA": (0.752, 0.018), "FID": (9.813, 1.863)},
    "RGD": {"UA": (1.0, 0.0), "RA": (0.771, 0.016), "FID": (6.539, 0.994)},
}
"""Ko et al. 2024, Table 1: mean and standard deviation over the ten classes of CIFAR-10."""


def cells(options: Options) -> list[Cell]:
    """Every method on every class."""
    concepts = CLASSES[3:4] if options.quick else CLASSES
    return [
        cell(method, concept, seed, options) for seed in options.seeds for concept in concepts for method in methods()
    ]


def by_method(records: Mapping[str, Record]) -> dict[str, list[Record]]:
    """Records by the method's name in the paper, in the paper's order."""
    return {
        shown: found
        for method, shown in NAMES.items()
        if (found := [record for record in records.values() if record.labels["method"] == method])
    }


def values(records: Sequence[Record], metric: str) -> list[float]:
    """One figure of each record."""
    return [record.figures[metric] for record in records]


def page(records: Mapping[str, Record], folder: Path) -> str:
    """Write the table beside the paper's, a figure with one dot a class, and the verdict."""
    grouped = by_method(records)
    rows = []
    for name, found in grouped.items():
        paper = PAPER[name]
        ours = [mean_sd(values(found, metric)) for metric in METRICS]
        theirs = [f"{paper[metric][0]:.3f} ± {paper[metric][1]:.3f}" for metric in METRICS]
        seconds = statistics.fmean(values(found, "training_seconds"))
        rows.append([name, *ours, f"{statistics.fmean(values(found, 'noise')):.2f}", f"{seconds:.1f}", *theirs])
    header = ["", "UA ↑", "RA ↑", "FID ↓", "noise", "seconds", "paper UA", "paper RA", "paper FID"]

    def draw(axes: Sequence[Axes]) -> None:
        for axis, metric in zip(axes, METRICS, strict=True):
            for place, found in enumerate(grouped.values()):
                points = values(found, metric)
                axis.scatter([place] * len(points), points, s=12, alpha=0.6)
                axis.plot([place - 0.3, place + 0.3], [statistics.fmean(points)] * 2, color="black", linewidth=1)
            axis.set_xticks(range(len(grouped)), list(grouped), rotation=45)
            axis.set_title(metric)

    image = figure(folder / "classes.svg", draw, columns=3, size=(8, 3))
    means = {name: {m: statistics.fmean(values(found, m)) for m in METRICS} for name, found in grouped.items()}
    paper_means = {name: {m: value[0] for m, value in row.items()} for name, row in PAPER.items()}
    concepts = len({record.labels["class"] for record in records.values()})
    return (
        f"Each method removes each of {concepts} classes of digits. Figures are the mean ± standard deviation over "
        "classes. The paper's columns are of CIFAR-10 with Inception's FID (Ko et al. 2024, Table 1): compare orders, "
        "not values.\n\n"
        "- UA: share of the class's images that the judge sees as something else.\n"
        "- RA: share of the other classes' images that the judge sees as the class that was asked for.\n"
        "- FID: Fréchet distance of the other classes' images from held-out real ones, in the judge's features.\n"
        "- noise: share of the forgotten class's images that the judge calls random noise.\n"
        "- seconds of training.\n\n"
        f"{markdown(header, rows)}\n\n![One dot a class, lines at the means]({image})\n\n"
        f"{orderings(paper_means, means)} {_claims(means)}"
    )


def _claims(means: Mapping[str, Mapping[str, float]]) -> str:
    """Check the paper's statements about its table on ours."""
    checks = []
    if {"GradDiff", "RG"} <= set(means):
        better = means["RG"]["RA"] > means["GradDiff"]["RA"] and means["RG"]["FID"] < means["GradDiff"]["FID"]
        checks.append(f"RG has a higher RA and a lower FID than GradDiff: {'yes' if better else 'no'}")
    if {"RG", "RGD"} <= set(means):
        better = means["RGD"]["RA"] > means["RG"]["RA"] and means["RGD"]["FID"] < means["RG"]["FID"]
        checks.append(f"RGD has a higher RA and a lower FID than RG: {'yes' if better else 'no'}")
    if "RGD" in means:
        best = max(row["UA"] for row in means.values())
        checks.append(f"RGD's UA is the highest: {'yes' if means['RGD']['UA'] >= best else 'no'}")
    return f"The paper's claims: {'; '.join(checks)}." if checks else ""


TABLE = Table("Class-wise forgetting (Table 1)", cells, page)
