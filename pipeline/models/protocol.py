"""The one interface behind which every model family stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ..support.progress import Progress

if TYPE_CHECKING:  # the schema names this module's types, and must load without torch
    import torch
    from torch import Tensor, nn

    from ..maths.objectives import Objective
    from .family import Place
    from .stages import Stages

Conditioning = dict[str, "Tensor"]
"""Inputs that a family's denoiser is conditioned on: name -> tensor with one row per prompt."""

Scheduler = Literal["own", "dpm-solver++"]
"""The model's own sampler, or DPM-Solver++."""


SamplePrecision = Literal["auto", "fp32", "bf16", "fp16"]
"""What the model draws and embeds prompts in; auto: what the device does best."""

BasePrecision = Literal["fp32", "bf16", "int8", "nf4", "fp8"]
"""What weights that don't train are held in."""

Offload = Literal["none", "model", "group", "sequential"]
"""Which weights leave the device while others compute: none; whole networks; groups of layers; every layer."""


@dataclass(frozen=True)
class Sampling:
    """How images are drawn.

    Attributes:
        num_inference_steps: denoising steps an image.
        guidance_scale: of classifier-free guidance; 1 = none.
        scheduler: the model's own sampler, or DPM-Solver++.
        batch_size: images drawn at once.
        image_size: side of the images in pixels; None for the model's own.
    """

    num_inference_steps: int = 50
    guidance_scale: float = 7.5
    scheduler: Scheduler = "own"
    batch_size: int = 8
    image_size: int | None = None


class Denoiser(Protocol):
    """A text-to-image model as the rest of the program sees it.

    Attributes:
        family: name of the adapter.
        component: where the pipeline keeps the network that is unlearned.
        name: what the user called the model.
        module: the network that is unlearned (UNet or transformer).
        objective: noising, target and weighting that it was trained with.
        pipeline: the diffusers pipeline that holds it.
        source: folder that released parts are loaded from again; None where they are moved to the CPU.
        stages: what each stage computes in, and where its weights wait.
        warnings: what the user should know about how the model was taken in.
    """

    family: str
    component: str
    name: str
    objective: Objective
    pipeline: Any
    source: str | None
    stages: Stages
    warnings: tuple[str, ...]

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        ...

    def checkpoint(self, pipeline: Any) -> Mapping[str, Place]:
        """Component -> its place in a complete checkpoint of the original layout; empty where there is none."""
        ...

    def checkpoint_marks(self, pipeline: Any) -> dict[str, Tensor]:
        """Tensors that such a checkpoint holds beside the weights."""
        ...

    def example_inputs(self, config: Any, batch_size: int, side: int | None) -> dict[str, Any]:
        """Arguments of the network's `forward` in training, see `Family.example_inputs`."""
        ...

    @property
    def module(self) -> nn.Module:
        """The network that is unlearned."""
        ...

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """Embed prompts; row i belongs to prompt i."""
        ...

    def read_prompts(self, prompts: Sequence[str]) -> list[str]:
        """The part of each prompt that the model reads: what stands behind its text encoders' limit is cut off.

        Where several encoders read to different places, the longest part counts. Needs the tokenizers alone.
        """
        ...

    def check_sampling(self, sampling: Sampling) -> None:
        """Refuse, before anything is drawn, what `sample` can't draw.

        Raises:
            UserError: an image size or a guidance scale that this model doesn't have.
        """
        ...

    def latent_shape(self, image_size: int | None = None) -> tuple[int, int, int]:
        """(C, H, W) of what `sample` gives for images with a side of so many pixels; None: the model's own size."""
        ...

    def drawing(self) -> AbstractContextManager[None]:
        """The model as it draws, for as long as the block runs; `sample` enters it where nobody else has."""
        ...

    def sample(
        self, prompts: Sequence[str], seeds: Sequence[int], sampling: Sampling, progress: Progress, stage: str
    ) -> Tensor:
        """Generate clean latents, (N, C, H, W), float32 on the CPU, at the scale that trains.

        Args:
            prompts: one for each image.
            seeds: as many; an image's seed alone decides it, whatever batch it is drawn in.
            sampling: steps, guidance, sampler, batch and image size.
            progress: told of each batch.
            stage: what the progress calls it.

        Raises:
            UserError: an image size that the model can't draw, or latents that are not numbers.
        """
        ...

    def encode_images(self, images: Tensor) -> Tensor:
        """Latents, (N, C, h, w), of images (N, 3, H, W) in [0, 1]."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Images, uint8, (N, H, W, 3) on the CPU, of latents as `sample` gives them, a few at a time (`stages`).

        Raises:
            UserError: what comes out are not numbers.
        """
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
