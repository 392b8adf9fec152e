"""The rendered training pictures: drawn once by all cores, then kept as one array on disk."""

import multiprocessing
import random
from pathlib import Path

import numpy as np

from ...support.files import replacing
from ...worlds.tiny_canvas import DIMENSIONS, Scene, compose, scenes
from .render import SIZE, render, render_noise


def _draw(job: tuple[int, list[Scene]]) -> np.ndarray:
    seed, wanted = job
    rng = random.Random(seed)
    return np.stack([np.asarray(render(scene, rng)) for scene in wanted])


def draw_scenes(wanted: list[Scene], seed: int, processes: int = 2) -> np.ndarray:
    """Render scenes in parallel; the result depends on `seed` and not on `processes`.

    Returns:
        Pictures, uint8, shape (N, SIZE, SIZE, 3).
    """
    chunks = [wanted[start : start + 256] for start in range(0, len(wanted), 256)]
    jobs = [(seed * 100_003 + index, chunk) for index, chunk in enumerate(chunks)]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        return np.concatenate(pool.map(_draw, jobs, chunksize=1))


def training_scenes() -> list[Scene]:
    """The cells that training may show."""
    return [scene for scene in scenes() if not scene.held_out]


def load_or_draw(folder: Path, per_scene: int, seed: int) -> tuple[np.ndarray, list[Scene]]:
    """Give `per_scene` pictures of every training scene, from `folder` if they are there."""
    wanted = training_scenes() * per_scene
    path = folder / f"rendered-{per_scene}-{seed}.npy"
    if not path.exists():
        with replacing(path) as partial:
            np.save(partial, draw_scenes(wanted, seed))
    return np.load(path, mmap_mode="r"), wanted


def draw_noise(count: int, seed: int) -> np.ndarray:
    """Pictures of nothing, uint8, shape (count, SIZE, SIZE, 3)."""
    rng = random.Random(seed)
    return np.stack([np.asarray(render_noise(rng)) for _ in range(count)]).reshape(count, SIZE, SIZE, 3)


def random_caption(scene: Scene, rng: random.Random) -> str:
    """One of the scene's prompts. One in eight leaves the time or the place unsaid."""
    style, subject, place, time = (
        rng.choice(DIMENSIONS[dimension][getattr(scene, dimension)])
        for dimension in ("style", "subject", "place", "time")
    )
    left_out = rng.random()
    if left_out < 1 / 16:
        place = ""
    elif left_out < 1 / 8:
        time = ""
    return " ".join(compose(style, subject, place, time).split())
