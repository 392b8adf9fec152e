"""Stable Diffusion 1.x and 2.x: a UNet on VAE latents, conditioned on one text encoder."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from torch import Tensor, nn

from ..errors import UserError
from ..objectives import objective_from_scheduler
from ..progress import Progress, batches
from .protocol import Conditioning

_UNUSED_IN_TRAINING = ("vae", "text_encoder", "safety_checker", "image_encoder")


class StableDiffusion:
    """`Denoiser` over a `StableDiffusionPipeline`.

    Args:
        pipeline: the pipeline; it is used, and its UNet trained, in place.
        name: what the user called the model.
        source: folder or hub id to load released components from again; without one they are only
            moved to the CPU.
    """

    family = "stable-diffusion"
    pipeline_class: Any = StableDiffusionPipeline

    def __init__(self, pipeline: StableDiffusionPipeline, name: str, source: str | None = None) -> None:
        self.pipeline, self.name, self.source = pipeline, name, source
        self.device = pipeline.unet.device
        scheduler = pipeline.scheduler
        self.objective = objective_from_scheduler(scheduler.config, scheduler.alphas_cumprod)
        self._released: dict[str, Any] = {}
        pipeline.set_progress_bar_config(disable=True)

    @property
    def module(self) -> nn.Module:
        """The UNet."""
        return self.pipeline.unet

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """{"prompt_embeds": (N, L, D)}."""
        pipe = self.pipeline
        embeds = [
            pipe.encode_prompt(part, self.device, 1, do_classifier_free_guidance=False)[0]
            for part in batches(prompts, 64)
        ]
        return {"prompt_embeds": torch.cat(embeds)}

    @torch.no_grad()
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
    ) -> Tensor:
        """See `Denoiser.sample`. Each image has its own generator, so its seed alone decides it."""
        pipe = self.pipeline
        own_scheduler, was_training = pipe.scheduler, pipe.unet.training
        if scheduler == "dpm-solver++":
            pipe.scheduler = DPMSolverMultistepScheduler.from_config(own_scheduler.config)
        pipe.unet.eval()
        latents: list[Tensor] = []
        try:
            with progress.stage(stage, len(prompts)) as advance:
                for part in batches(zip(prompts, seeds, strict=True), batch_size):
                    generators = [torch.Generator("cpu").manual_seed(seed) for _, seed in part]

                    def keep_alive(_pipe: Any, _step: int, _timestep: Any, kwargs: dict) -> dict:
                        advance(0)
                        return kwargs

                    result = pipe(
                        prompt=[prompt for prompt, _ in part],
                        num_inference_steps=num_inference_steps,
                        guidance_scale=guidance_scale,
                        generator=generators,
                        output_type="latent",
                        callback_on_step_end=keep_alive,
                    )
                    latents.append(result.images.float().cpu())
                    advance(len(part))
        finally:
            pipe.scheduler = own_scheduler
            pipe.unet.train(was_training)
        return torch.cat(latents)

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Tensor:
        """Mean of the autoencoder's posterior, scaled as the UNet was trained."""
        vae = self.pipeline.vae
        encoded = vae.encode((2 * images - 1).to(vae.device, vae.dtype))
        mean = encoded.latent_dist.mean if hasattr(encoded, "latent_dist") else encoded.latents
        return mean.float() * vae.config.scaling_factor

    @torch.no_grad()
    def decode(self, latents: Tensor, batch_size: int = 16) -> Tensor:
        """See `Denoiser.decode`."""
        vae = self.pipeline.vae
        images = []
        for part in latents.split(batch_size):
            scaled = part.to(vae.device, vae.dtype) / vae.config.scaling_factor
            image = vae.decode(scaled, return_dict=False)[0].float()
            images.append(image.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu())
        return torch.cat(images)

    def predict(self, noisy_samples: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """The UNet's output."""
        return self.pipeline.unet(
            noisy_samples, timesteps, encoder_hidden_states=conditioning["prompt_embeds"], return_dict=False
        )[0]

    def release(self) -> None:
        """Drop the other components where they can be loaded again, else move them to the CPU."""
        for name in _UNUSED_IN_TRAINING:
            component = getattr(self.pipeline, name, None)
            if component is None:
                continue
            self._released[name] = None if self.source else component
            if not self.source:
                component.to("cpu")
            setattr(self.pipeline, name, None)

    def restore(self) -> None:
        """See `Denoiser.restore`."""
        for name, component in self._released.items():
            if component is None:
                assert self.source is not None  # noqa: S101 - `release` dropped it only if there is one
                component = self._load_component(name)
            # not `setattr`: once set to None, a component stays out of the pipeline's model_index.json
            self.pipeline.register_modules(**{name: component.to(self.device)})
        self._released = {}

    def _load_component(self, name: str) -> nn.Module:
        loaded = type(self.pipeline).from_pretrained(
            self.source,
            torch_dtype=next(self.module.parameters()).dtype,
            **{other: None for other in self.pipeline.components if other not in (name, "scheduler")},
        )
        return getattr(loaded, name)

    def save(self, folder: Path, dtype: torch.dtype | None) -> None:
        """See `Denoiser.save`."""
        self.restore()
        with nullcontext() if dtype is None else _cast(self.pipeline, dtype):
            self.pipeline.save_pretrained(folder, safe_serialization=True)


class _cast:
    """The pipeline's networks in another dtype, and back, exactly as they were."""

    def __init__(self, pipeline: Any, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.modules = [part for part in pipeline.components.values() if isinstance(part, nn.Module)]

    def __enter__(self) -> None:
        self.kept = [{k: v for k, v in module.state_dict().items()} for module in self.modules]
        self.dtypes = [next(module.parameters()).dtype for module in self.modules]
        for module in self.modules:
            module.to(self.dtype)

    def __exit__(self, *_: object) -> None:
        for module, dtype, state in zip(self.modules, self.dtypes, self.kept, strict=True):
            module.to(dtype)
            module.load_state_dict(state)


def check_pipeline(pipeline: Any) -> None:
    """Refuse what the adapter can't train.

    Raises:
        UserError: a UNet that takes more than latents (inpainting, depth).
    """
    if pipeline.unet.config.in_channels != pipeline.unet.config.out_channels:
        raise UserError(
            f"expected a text-to-image UNet with as many input as output channels, got "
            f"{pipeline.unet.config.in_channels} and {pipeline.unet.config.out_channels} (an inpainting model?)."
        )
