"""The one interface behind which every model family stands."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..maths.objectives import Objective
from ..support.progress import Progress

Conditioning = dict[str, Tensor]
"""What a family's denoiser is conditioned on: name -> tensor with one row per prompt."""


class Denoiser(Protocol):
    """A text-to-image model as the rest of the program sees it.

    Attributes:
        family: name of the adapter.
        component: where the pipeline keeps the network that is unlearned.
        name: what the user called the model.
        module: the network that is unlearned (UNet or transformer).
        objective: noising, target and weighting that it was trained with.
        pipeline: the diffusers pipeline that holds it.
        device: where it computes.
        warnings: what the user should know about how the model was taken in.
    """

    family: str
    component: str
    name: str
    objective: Objective
    pipeline: Any
    device: torch.device
    warnings: tuple[str, ...]

    @property
    def module(self) -> nn.Module:
        """The network that is unlearned."""
        ...

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """Embed prompts; row i belongs to prompt i."""
        ...

    def sample(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        num_inference_steps: int,
        guidance_scale: float,
        scheduler: str,
        batch_size: int,
        progress: Progress,
        stage: str,
        image_size: int | None = None,
    ) -> Tensor:
        """Generate clean latents, (N, C, H, W), float32 on the CPU, at the scale that trains.

        `image_size` is the side of the image in pixels; None is the model's own.
        """
        ...

    def encode_images(self, images: Tensor) -> Tensor:
        """Latents, (N, C, h, w), of images (N, 3, H, W) in [0, 1]."""
        ...

    def decode(self, latents: Tensor, batch_size: int = 16) -> Tensor:
        """Images, uint8, (N, H, W, 3) on the CPU, of latents as `sample` gives them."""
        ...

    def predict(self, noisy_samples: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """The network's output, shaped like `noisy_samples`; differentiable."""
        ...

    def release(self) -> None:
        """Take everything but `module` out of the device's memory, as training does not need it."""
        ...

    def restore(self) -> None:
        """Undo `release`."""
        ...

    def save(self, folder: Path, dtype: torch.dtype | None) -> None:
        """Write the whole pipeline as a diffusers folder (safetensors)."""
        ...
