"""Fig. 7: similarity of the classes to each other."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes

from ...pipeline.audits import ClassJudge
from ...pipeline.data.datasets import load_images
from ...pipeline.data.samples import most_similar
from ...pipeline.maths.metrics import class_similarity
from ..show import figure, markdown
from ..table import Cell, Figures, Options, Record, Table


def cells(options: Options) -> list[Cell]:
    """One cell: the whole matrix."""
    settings = {"dataset": "digits", "judge": "digits"}
    return [Cell("digits", {}, 0, settings, lambda progress: _measure("digits", "digits"))]


def _measure(dataset: str, judge_name: str) -> Figures:
    judge = ClassJudge.load(judge_name)
    data = load_images(dataset, "train", judge.size, judge.channels)
    similarity = class_similarity(judge.features(data.images), data.labels)
    return {
        "names": list(data.names),
        "similarity": [[round(value, 4) for value in row] for row in similarity.tolist()],
        "most_similar": {
            name: [data.names[other] for other in most_similar(similarity, label, 2)]
            for label, name in enumerate(data.names)
        },
    }


def page(records: Mapping[str, Record], folder: Path) -> str:
    """Write the heat map, and the two most similar classes of each class."""
    (record,) = records.values()
    names, matrix = record.figures["names"], record.figures["similarity"]
    label = {name: place for place, name in enumerate(names)}

    def draw(axes: Sequence[Axes]) -> None:
        (axis,) = axes
        shown = axis.imshow(matrix, cmap="viridis", vmin=0, vmax=1)
        axis.set_xticks(range(len(names)), names)
        axis.set_yticks(range(len(names)), names)
        for y, row in enumerate(matrix):
            for x, value in enumerate(row):
                axis.text(
                    x, y, f"{value:.2f}", ha="center", va="center", color="white" if value < 0.6 else "black", size=7
                )
        axis.figure.colorbar(shown, ax=axis)

    image = figure(folder / "similarity.svg", draw, size=(5, 4))
    near = record.figures["most_similar"]
    rows = [[name, *(f"{other} ({matrix[label[name]][label[other]]:.3f})" for other in near[name])] for name in names]
    mutual = sum(names_of[0] in near and name in near[names_of[0]] for name, names_of in near.items())
    least, most = (
        min(min(row) for row in matrix),
        max(v for y, row in enumerate(matrix) for x, v in enumerate(row) if x != y),
    )
    return (
        "The figures are cosine similarities between the classes' mean features of real training images, by the "
        "digits judge. The paper's Fig. 7 shows them by CLIP on CIFAR-10. Case 1 of the table `diversity` comes from "
        "this page.\n\n"
        f"![Heat map of class similarities]({image})\n\n{markdown(['class', 'most similar', 'second'], rows)}\n\n"
        f"Similarities of different classes run from {least:.3f} to {most:.3f}. {mutual} of {len(names)} classes are "
        "among the two most similar of their own most similar class. The paper's figure is of other classes, so there "
        "is no ordering to compare."
    )


TABLE = Table("Similarity of classes (Fig. 7)", cells, page)
