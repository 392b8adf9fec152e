"""SampleSet: the model's own images of D_f and D_r, as clean latents with their conditioning.

The images are made by the model itself, so their latents are at hand without a round trip through
pixels; images are decoded only for people to look at.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from .errors import UserError
from .files import replacing
from .models import Conditioning, Denoiser
from .progress import Progress, Silent, batches
from .prompts import PromptSet
from .recipe import SampleSection


@dataclass(frozen=True)
class Samples:
    """Clean latents and the conditioning of the prompts that they were drawn from.

    Attributes:
        latents: (N, C, H, W), float32, on the CPU.
        conditioning: name -> (U, ...), one row per distinct prompt.
        rows: (N,), the conditioning row of each latent.
    """

    latents: Tensor
    conditioning: Conditioning
    rows: Tensor

    def __len__(self) -> int:
        return len(self.latents)

    def take(self, indices: Tensor, device: torch.device) -> tuple[Tensor, Conditioning]:
        """Latents and conditioning of some samples, on `device`."""
        return self.latents[indices].to(device), self.conditioning_of(indices, device)

    def conditioning_of(self, indices: Tensor, device: torch.device) -> Conditioning:
        """Conditioning of some samples, on `device`."""
        rows = self.rows[indices]
        return {name: value[rows].to(device) for name, value in self.conditioning.items()}


@dataclass(frozen=True)
class SampleSet:
    """D_f and D_r; sample i of one is paired with sample i of the other."""

    forget: Samples
    retain: Samples

    def __post_init__(self) -> None:
        if len(self.forget) != len(self.retain):
            raise UserError(
                f"expected as many forget as retain samples, got {len(self.forget)} and {len(self.retain)}."
            )

    def __len__(self) -> int:
        return len(self.forget)

    @classmethod
    def draw(
        cls,
        denoiser: Denoiser,
        prompts: PromptSet,
        spec: SampleSection | None = None,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> "SampleSet":
        """Let the model draw its own training images. Pairs share the seed of their noise."""
        spec, progress = spec or SampleSection(), progress or Silent()
        texts = {"forget": prompts.forget_train, "retain": prompts.retain_train}
        drawn = {
            term: draw_latents(denoiser, texts[term], spec, seed, progress, f"drawing {term} images") for term in texts
        }
        return cls(**{term: _samples(denoiser, drawn[term], texts[term]) for term in texts})

    def save(self, path: Path) -> None:
        """Write as safetensors."""
        tensors: dict[str, Tensor] = {}
        for term, samples in (("forget", self.forget), ("retain", self.retain)):
            tensors |= {f"{term}.latents": samples.latents, f"{term}.rows": samples.rows}
            tensors |= {f"{term}.conditioning.{name}": value for name, value in samples.conditioning.items()}
        with replacing(path) as partial:
            save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, partial)

    @classmethod
    def load(cls, path: Path) -> "SampleSet":
        """Read what `save` wrote."""
        tensors = load_file(path)

        def part(term: str) -> Samples:
            prefix = f"{term}.conditioning."
            conditioning = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            return Samples(tensors[f"{term}.latents"], conditioning, tensors[f"{term}.rows"])

        return cls(part("forget"), part("retain"))


def draw_latents(
    denoiser: Denoiser, prompts: Sequence[str], spec: SampleSection, seed: int, progress: Progress, stage: str
) -> Tensor:
    """Draw one image per prompt; image i has the seed `seed` + i."""
    return denoiser.sample(
        prompts,
        [seed + index for index in range(len(prompts))],
        num_inference_steps=spec.num_inference_steps,
        guidance_scale=spec.guidance_scale,
        scheduler=spec.scheduler,
        batch_size=spec.sample_batch_size,
        progress=progress,
        stage=stage,
        image_size=spec.image_size,
    )


def _samples(denoiser: Denoiser, latents: Tensor, prompts: Sequence[str]) -> Samples:
    distinct = sorted(set(prompts))
    row_of = {prompt: row for row, prompt in enumerate(distinct)}
    parts = [denoiser.encode_prompts(part) for part in batches(distinct, 64)]
    conditioning = {name: torch.cat([part[name].cpu() for part in parts]) for name in parts[0]}
    return Samples(latents, conditioning, torch.tensor([row_of[prompt] for prompt in prompts]))
