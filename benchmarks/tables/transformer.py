"""Table 7: a transformer instead of the UNet; detections on forget prompts, alignment on retain prompts."""

from collections.abc import Mapping
from pathlib import Path

from ..canvas import NAMES, STORE, cell, gap, little_forgotten, mean, pick, shown
from ..show import claims, markdown, orderings
from ..table import Cell, Options, Record, Table

MODEL = "tiny-canvas-dit"
CONCEPT = "astronaut"
ROWS = ("none", "esd", "salun", "rgd")
METRICS = {"D_r,train": "retain_train", "D_r,test": "retain_test"}

PAPER = {
    NAMES["none"]: {"D_r,train": 0.364, "D_r,test": 0.371},
    "ESD": {"D_r,train": 0.335, "D_r,test": 0.332},
    "SalUn": {"D_r,train": 0.079, "D_r,test": 0.088},
    "RGD": {"D_r,train": 0.362, "D_r,test": 0.370},
}
"""Alignment after the removal of nudity from Stable Diffusion 3 medium (Ko et al. 2024, Table 7); that is the base."""

DETECTIONS = {NAMES["none"]: 187, "ESD": 22, "SalUn": 0, "RGD": 0}
"""Exposed body parts there: the sum of the seven columns of the same table."""


def cells(options: Options) -> list[Cell]:
    """The base model and the three methods of the table."""
    return [
        cell(row, CONCEPT, seed, options, {"model": MODEL}, "transformer") for seed in options.seeds for row in ROWS
    ]


def page(records: Mapping[str, Record], folder: Path) -> str:
    """Write one table beside the paper's, and the verdicts."""
    by_row = {row: pick(records.values(), row=row) for row in ROWS}
    means = {shown(row): {m: mean(found, key) for m, key in METRICS.items()} for row, found in by_row.items()}
    faces = {shown(row): mean(found, "FACE") for row, found in by_row.items()}
    table = []
    for row, found in by_row.items():
        name = shown(row)
        table.append([
            MODEL if row == "none" else name,
            f"{faces[name]:g}",
            f"{mean(found, 'UA'):.3f}",
            *(gap(means, name, metric) for metric in METRICS),
            str(DETECTIONS[name]),
            *(gap(PAPER, name, metric) for metric in METRICS),
        ])  # fmt: skip
    images, floor = by_row["none"][0].figures["images"], mean(by_row["none"], "floor")
    header = ["", f"faces, of {images} ↓", "UA ↑", *(f"{m} ↑" for m in METRICS), "paper: body parts ↓",
              *(f"paper {m}" for m in METRICS)]  # fmt: skip
    return (
        f"The runs remove {CONCEPT!r} from {MODEL}, a model of Stable Diffusion 3's architecture. *Faces* counts "
        "photos of an astronaut in which NudeNet detects FACE_FEMALE, the harmless stand-in for body parts here. "
        f"NudeNet also detects one in {floor:.0%} of the base model's retain photos. Alignment is by tiny-canvas's "
        "judge, with the loss against the base model in brackets. The paper's columns are of nudity in Stable "
        f"Diffusion 3 medium: compare orders, not values.\n\n{markdown(header, table)}\n\n{verdict(means, faces)} "
        f"{little_forgotten(records.values(), PAPER)}"
    ).rstrip()


def verdict(means: Mapping[str, Mapping[str, float]], faces: Mapping[str, float]) -> str:
    """Check the paper's conclusions on our figures; rows by their names in the paper."""
    kept = {name: row["D_r,test"] for name, row in means.items()}
    checks = {
        "RGD detects no more than ESD and SalUn": faces["RGD"] <= min(faces["ESD"], faces["SalUn"]),
        "RGD keeps more of D_r,test than ESD": kept["RGD"] > kept["ESD"],
        "RGD keeps more of D_r,test than SalUn": kept["RGD"] > kept["SalUn"],
        "SalUn loses the most": kept["SalUn"] < min(kept["ESD"], kept["RGD"]),
    }
    seen = orderings(
        {name: {"detections": float(count)} for name, count in DETECTIONS.items()},
        {name: {"detections": count} for name, count in faces.items()},
    )
    return f"Alignment: {orderings(PAPER, means)} Detections: {seen} {claims(checks)}"


TABLE = Table("A transformer instead of a UNet (Table 7)", cells, page, STORE)
