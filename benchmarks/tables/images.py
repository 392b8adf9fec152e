"""Forgetting by pictures: a few renderings of one scene, given as files, and what becomes of it and its siblings."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...pipeline.audits import BUNDLED_JUDGE, ClipModel
from ...pipeline.audits.zero_shot import classify
from ...pipeline.bundled.tiny_canvas.render import render
from ...pipeline.run.audit import audit_prompts, subject_of
from ...pipeline.run.prompts import prompts_of
from ...pipeline.schema.defaults import build_recipe, merge
from ...pipeline.schema.image_sets import FORGET_TEST, RETAIN_TEST
from ...pipeline.schema.resolve import resolve
from ...pipeline.support.files import file_name, replacing, write_text
from ...pipeline.worlds import find_world
from ...pipeline.worlds.tiny_canvas import Scene
from ..canvas import QUICK, bench, figures, mean, pick, recipe_of
from ..show import markdown
from ..table import Cell, Figures, Options, Record, Table

GIVEN = Path("runs") / "bench-given"
"""Where the renderings are put; not part of the repository."""

RENDERED = 4
"""Renderings of each scene, which differ in place, size and position of the subject."""

SCENES = (
    Scene("cat", "meadow", "noon", "photo"),
    Scene("rocket", "space", "night", "pop art"),
)

ROWS: dict[str, dict[str, Any]] = {
    "none": {},
    "ascend": {"method": {"name": "rgd", "forget": "ascend"}},
    "redirect": {"method": {"name": "rgd", "forget": "redirect"}},
}
"""Row -> what it changes in the recipe; "none" is the base model."""

NAMES = {"none": "tiny-canvas", "ascend": "RGD, ascend", "redirect": "RGD, redirect"}

SIZE: dict[str, Any] = {
    "prompts": {"n": 128, "n_test": 64},
    "training": {"steps": 200},
    "audits": {"images": 64, "retain_train_images": 8},
}
"""A quarter of the recipe's pairs, as a scene is less than a concept. With 80 steps siblings were hurt."""


def cells(options: Options) -> list[Cell]:
    """Every row on every scene; one scene when quick."""
    scenes = SCENES[:1] if options.quick else SCENES
    return [_cell(row, scene, seed, options) for seed in options.seeds for scene in scenes for row in ROWS]


def _cell(row: str, scene: Scene, seed: int, options: Options) -> Cell:
    name = file_name("-".join((scene.subject, scene.place, scene.time, scene.style)))
    chosen = merge(SIZE | {"data": {"forget_images": (GIVEN / name).as_posix()}}, ROWS[row])
    recipe = recipe_of("my picture", merge(chosen, QUICK if options.quick else {}), seed=seed, device="cpu")
    settings = recipe.model_dump(mode="json")
    labels = {"row": row, "scene": next(scene.phrases()), "tag": ""}
    return Cell(f"{row}/{name}/seed {seed}", labels, seed, settings, lambda _: _measure(scene, settings, row != "none"))


def _measure(scene: Scene, settings: Mapping[str, Any], train: bool) -> Figures:
    recipe = build_recipe(settings)
    give(scene, Path(str(recipe.data.forget_images)))
    shared = bench(recipe.model)
    found = shared.run(recipe) if train else figures(shared.before(recipe))
    setting = resolve(recipe)
    texts = audit_prompts(prompts_of(setting), recipe.audits, subject_of(setting))
    judge = ClipModel.load(str(BUNDLED_JUDGE))
    whole = {name: whole_scenes(judge, shared.images[name], texts[name]) for name in (FORGET_TEST, RETAIN_TEST)}
    return found | {"drawn": whole[FORGET_TEST], "siblings": whole[RETAIN_TEST]}


def give(scene: Scene, folder: Path) -> None:
    """Render a scene a few times into a folder, each rendering with its caption beside it."""
    rng = random.Random(folder.name)
    for number in range(RENDERED):
        with replacing(folder / f"{number}.png") as partial:
            render(scene, rng).save(partial, "PNG")
        write_text(folder / f"{number}.txt", next(scene.phrases()) + "\n")


def whole_scenes(judge: ClipModel, images: np.ndarray, prompts: Sequence[str]) -> float:
    """Share of images in which the judge sees every value that the prompt names.

    Args:
        judge: of the tiny-canvas world.
        images: uint8 RGB, (N, H, W, 3).
        prompts: as many.
    """
    world, labels = find_world("tiny-canvas"), [find_world("tiny-canvas").labels_of(prompt) for prompt in prompts]
    features, right = judge.encode_images(images), np.ones(len(images), dtype=bool)
    for dimension in world.words:
        seen = classify(features, judge.encode_texts, dimension, world)
        right &= np.array([said.get(dimension, each) == each for said, each in zip(labels, seen, strict=True)])
    return float(right.mean())


def page(records: Mapping[str, Record], folder: Path) -> str:
    """Write a line for each scene and row."""
    scenes = list(dict.fromkeys(record.labels["scene"] for record in records.values()))
    table = []
    for scene in scenes:
        for row, name in NAMES.items():
            found = pick(records.values(), scene=scene, row=row)
            nearest = [float(np.mean([record.figures["resemblance"][place] for record in found])) for place in (0, 1)]
            numbers = [mean(found, key) for key in ("drawn", "copies", "closest")]
            kept = [mean(found, key) for key in ("siblings", "retain_test")]
            table.append([f"{scene}, {name}", *(f"{number:.3f}" for number in (*numbers, *nearest, *kept))])
    header = ["", "drawn ↓", "copies ↓", "closest ↓", "forget ↓", "siblings' own", "siblings drawn ↑", "alignment ↑"]
    first = next(iter(records.values())).settings
    return (
        f"{RENDERED} renderings of one scene are given as files, each with its caption beside it; the model draws the "
        f"rest: {first['prompts']['n']} neighbours of the caption, which differ from it in one or two of subject, "
        f"place, time and style. {first['training']['steps']} steps. The test prompts say the same in all its words."
        "\n\n"
        f"{markdown(header, table)}\n\n"
        "Drawn: share of forget test images in which the judge sees subject, place, time and style of the scene; "
        "siblings drawn: the same of the neighbours, which should stay. Copies: share of forget test images nearer to "
        "one of the files than 95 % of the neighbours' images are, in the judge's image features, so that 0.05 are "
        "false alarms. Closest: the largest cosine of a forget test image with a file; forget: the mean of their "
        "cosines with the nearest file; siblings' own: the same of the neighbours, to compare with. Alignment: of the "
        "neighbours with their prompts."
    )


TABLE = Table("Forgetting by pictures", cells, page)
