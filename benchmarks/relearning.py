"""How soon a forgotten concept comes back: UA after a few training steps on pictures of it.

The base model draws `SHOWN` pictures of the concept, and the unlearned one is trained on them by its own loss,
with Adam and nothing else, as somebody would who wants the concept back. What is drawn for held-out forget prompts
is judged after each of `STEPS` steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..pipeline.audits import ClipModel
from ..pipeline.audits.zero_shot import classify
from ..pipeline.data.samples import Samples, draw_latents
from ..pipeline.methods.base import Batch, noise_loss
from ..pipeline.models import Denoiser, Sampling
from ..pipeline.support.progress import Silent
from ..pipeline.worlds import find_world

STEPS = (5, 15, 50)
"""Training steps after which the concept is looked for."""
SHOWN, BATCH, RATE = 16, 8, 1e-4
"""Pictures of the concept, how many of them a step sees, and Adam's learning rate."""
DRAWN = 40
"""Pictures that a UA is of."""

_WORLD = find_world("tiny-canvas")
_SEED = 900_000  # of noise that no other picture starts from


@dataclass(frozen=True)
class Relearning:
    """What it takes to bring a concept of tiny-canvas back.

    Attributes:
        concept: its name.
        pictures: of it, drawn by the base model.
        prompts: held-out forget prompts.
        sampling: how their pictures are drawn.
        seed: decides noise, timesteps and the order of the pictures.
    """

    concept: str
    pictures: Samples
    prompts: Sequence[str]
    sampling: Sampling
    seed: int

    def __call__(self, denoiser: Denoiser) -> list[float]:
        """Train the unlearned model on the pictures; its weights are changed.

        Returns:
            UA, in [0, 1], after each of `STEPS` steps.
        """
        module = denoiser.module
        weights = list(module.parameters())
        optimizer, generator = torch.optim.Adam(weights, lr=RATE), torch.Generator().manual_seed(self.seed)
        found, done = [], 0
        for stop in STEPS:
            module.train().requires_grad_(True)
            while done < stop:
                optimizer.zero_grad()
                with torch.enable_grad():
                    noise_loss(denoiser, self._batch(denoiser, generator)).backward()
                optimizer.step()
                done += 1
            module.eval()
            found.append(self._unlearned(denoiser))
        return found

    def _batch(self, denoiser: Denoiser, generator: torch.Generator) -> Batch:
        chosen = torch.randperm(len(self.pictures), generator=generator)[:BATCH]
        latents, conditioning = self.pictures.take(chosen, denoiser.device)
        noise = torch.randn(latents.shape, generator=generator).to(denoiser.device)
        timesteps = denoiser.objective.sample_timesteps(len(chosen), generator).to(denoiser.device)
        return Batch(latents, conditioning, noise, timesteps)

    def _unlearned(self, denoiser: Denoiser) -> float:
        """UA of the model as it is now."""
        latents = draw_latents(denoiser, self.prompts, self.sampling, _SEED + self.seed, Silent(), "")
        judge = ClipModel.load(_WORLD.judge or "", "cpu")
        dimension, value = _WORLD.find_concept(self.concept)
        guesses = classify(
            judge.encode_images(denoiser.decode(latents).cpu().numpy()), judge.encode_texts, dimension, _WORLD
        )
        return sum(guess != value for guess in guesses) / len(guesses)
