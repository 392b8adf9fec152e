"""Drawing prompts with a model, each with the seed and guidance that its source says to use."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from ..data.samples import draw_latents
from ..models import Denoiser, Sampling
from ..prompts import EvaluationPrompt
from ..support.progress import Progress, Within, batches

Keep = Callable[[int, np.ndarray], None]
"""Gets the place of a picture and the picture, uint8 RGB (H, W, 3), as soon as it is drawn."""


@dataclass(frozen=True)
class Plan:
    """What one picture is drawn from, with nothing left open."""

    prompt: str
    seed: int
    guidance_scale: float


def plans_of(rows: Sequence[EvaluationPrompt], sampling: Sampling, seed: int) -> list[Plan]:
    """Decide what the rows leave open.

    Args:
        rows: prompts; their own seeds and guidance win over the next two arguments.
        sampling: has the guidance of rows that name none.
        seed: row i has the seed `seed` + i where it names none.
    """
    return [
        Plan(
            row.prompt,
            seed + index if row.seed is None else row.seed,
            sampling.guidance_scale if row.guidance_scale is None else row.guidance_scale,
        )
        for index, row in enumerate(rows)
    ]


def check_plans(denoiser: Denoiser, plans: Sequence[Plan], sampling: Sampling) -> None:
    """Refuse what the model can't draw with.

    Raises:
        UserError: an image size or a guidance scale.
    """
    for scale in dict.fromkeys(plan.guidance_scale for plan in plans):
        denoiser.check_sampling(replace(sampling, guidance_scale=scale))


def draw_plans(
    denoiser: Denoiser,
    plans: Sequence[Plan],
    sampling: Sampling,
    progress: Progress,
    keep: Keep,
    have: Collection[int] = (),
) -> None:
    """Draw a picture for each plan, those of equal guidance together.

    Args:
        denoiser: the model.
        plans: see `plans_of`.
        sampling: how to draw, guidance aside.
        progress: told about each picture; may cancel between batches and inside of one.
        keep: gets each picture.
        have: places of pictures that are there already. A batch of which one is missing is drawn as a whole, so that a
            picture is the same bit for bit whenever the work was stopped.

    Raises:
        UserError: see `check_plans`; nothing is drawn then.
    """
    check_plans(denoiser, plans, sampling)
    groups = [
        [place for batch in batches(group, sampling.batch_size) if not set(batch) <= set(have) for place in batch]
        for group in _by_guidance(plans)
    ]
    with progress.stage("drawing", sum(map(len, groups))) as advance:
        for places in filter(None, groups):

            def seen(first: int, latents: Tensor, places: Sequence[int] = places) -> None:
                images = denoiser.decode(latents).numpy()
                for place, image in zip(places[first : first + len(images)], images, strict=True):
                    keep(place, image)
                advance(len(images))

            draw_latents(
                denoiser,
                [plans[place].prompt for place in places],
                replace(sampling, guidance_scale=plans[places[0]].guidance_scale),
                [plans[place].seed for place in places],
                Within(advance),
                "drawing",
                seen=seen,
            )


def generate(
    denoiser: Denoiser, rows: Sequence[EvaluationPrompt], sampling: Sampling, seed: int, progress: Progress
) -> np.ndarray:
    """Draw one image for each row into memory; see `plans_of` and `draw_plans`.

    Returns:
        uint8 RGB, (N, H, W, 3), in the order of `rows`.

    Raises:
        UserError: an image size or a guidance scale that the model can't draw with; nothing is drawn then.
    """
    drawn: dict[int, np.ndarray] = {}
    draw_plans(denoiser, plans_of(rows, sampling, seed), sampling, progress, drawn.__setitem__)
    return np.stack([drawn[index] for index in range(len(rows))])


def _by_guidance(plans: Sequence[Plan]) -> Iterator[list[int]]:
    for scale in dict.fromkeys(plan.guidance_scale for plan in plans):
        yield [place for place, plan in enumerate(plans) if plan.guidance_scale == scale]
