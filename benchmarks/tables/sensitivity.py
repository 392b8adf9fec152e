"""Fig. 6: variation of RA and FID with alpha, for each lambda."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes

from ..digits import NAMES, cell
from ..show import figure, markdown
from ..table import Cell, Options, Record, Table

METHODS = ("grad_diff", "rg", "rgd")
LAMBDAS = (0.5, 1.0, 5.0)
ALPHAS = (0.1, 0.2, 0.5, 1.0)
CONCEPT = "3"


def cells(options: Options) -> list[Cell]:
    """Every method, lambda and alpha, on one class."""
    lambdas, alphas = (LAMBDAS[-1:], ALPHAS[:2]) if options.quick else (LAMBDAS, ALPHAS)
    return [
        cell(
            method, CONCEPT, seed, options, {"method": {"retain_weight": weight, "forget_limit": limit}},
            f"lambda {weight} alpha {limit}",
        )
        for seed in options.seeds
        for weight in lambdas
        for limit in alphas
        for method in METHODS
    ]  # fmt: skip


def page(records: Mapping[str, Record], folder: Path) -> str:
    """Write box plots over alpha, their medians and ranges, and the verdict."""
    lambdas = sorted({_setting(record, "retain_weight") for record in records.values()})
    alphas = sorted({_setting(record, "forget_limit") for record in records.values()})

    def of(method: str, weight: float, metric: str) -> list[float]:
        return [
            record.figures[metric]
            for record in records.values()
            if record.labels["method"] == method and _setting(record, "retain_weight") == weight
        ]

    def draw(axes: Sequence[Axes]) -> None:
        for axis, metric in zip(axes, ("FID", "RA"), strict=True):
            for place, method in enumerate(METHODS):
                positions = [column + 0.27 * (place - 1) for column in range(len(lambdas))]
                values = [of(method, weight, metric) for weight in lambdas]
                boxes = axis.boxplot(
                    values,
                    positions=positions,
                    widths=0.22,
                    patch_artist=True,
                    medianprops={"color": "black"},
                    whis=(0, 100),
                )
                for box in boxes["boxes"]:
                    box.set_facecolor(f"C{place}")
                axis.plot([], [], color=f"C{place}", linewidth=6, label=NAMES[method])
            axis.set_xticks(range(len(lambdas)), [f"λ = {weight:g}" for weight in lambdas])
            axis.set_title(f"{metric} {'↓' if metric == 'FID' else '↑'}")
        axes[0].legend()

    image = figure(folder / "sensitivity.svg", draw, columns=2)
    rows = []
    for weight in lambdas:
        for method in METHODS:
            figures = {metric: of(method, weight, metric) for metric in ("UA", "RA", "FID")}
            rows.append([f"λ = {weight:g}, {NAMES[method]}", *(
                f"{statistics.median(v):.3f} ({min(v):.3f} to {max(v):.3f})" for v in figures.values()
            )])  # fmt: skip
    return (
        f"The runs forget {CONCEPT!r}. Each box holds those with α ∈ {{{', '.join(f'{a:g}' for a in alphas)}}}, and "
        "its whiskers reach to the extremes. The paper's Fig. 6 shows the same for CIFAR-10, without figures in its "
        "text.\n\n"
        f"![Box plots of FID and RA]({image})\n\n"
        f"{markdown(['', 'UA: median (range)', 'RA: median (range)', 'FID: median (range)'], rows)}\n\n"
        f"{_verdict(lambdas, of)}"
    )


def _setting(record: Record, name: str) -> float:
    return record.settings["method"][name]


def _verdict(lambdas: Sequence[float], of: Callable[[str, float, str], list[float]]) -> str:
    def count(better: str, worse: str) -> int:
        return sum(
            statistics.median(of(better, w, "FID")) < statistics.median(of(worse, w, "FID"))
            and statistics.median(of(better, w, "RA")) >= statistics.median(of(worse, w, "RA"))
            for w in lambdas
        )

    def spread(method: str, metric: str) -> float:
        return statistics.fmean(max(of(method, w, metric)) - min(of(method, w, metric)) for w in lambdas)

    steady = {metric: min(METHODS, key=lambda method: spread(method, metric)) for metric in ("FID", "RA")}
    total = len(lambdas)
    holds = count("rg", "grad_diff") == count("rgd", "rg") == total and set(steady.values()) == {"rgd"}
    return (
        f"By medians, RG is better than GradDiff in FID and no worse in RA at {count('rg', 'grad_diff')} of {total} "
        f"values of λ, and RGD than RG at {count('rgd', 'rg')}. FID varies least over α with {NAMES[steady['FID']]} "
        f"and RA with {NAMES[steady['RA']]} (in the paper both with RGD). The paper's ordering "
        f"{'holds' if holds else 'does not hold in full'} here."
    )


TABLE = Table("Sensitivity to λ and α (Fig. 6)", cells, page)
