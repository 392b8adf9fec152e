"""Class-conditional models: a UNet on pixels with EDM preconditioning, conditioned on class labels.

A prompt is the name of a class; the empty prompt is "no class" where the model knows it. Latents are
the pixels themselves, in [-1, 1].
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import DiffusionPipeline, EDMDPMSolverMultistepScheduler, EDMEulerScheduler, ImagePipelineOutput
from diffusers import UNet2DModel as UNet
from PIL import Image
from torch import Tensor, nn

from ..maths.objectives import EDM, Objective
from ..maths.samplers import AfterStep, heun, karras_sigmas
from ..support.errors import UserError
from ..support.progress import Progress
from .base import drawn_in_batches, save_as
from .family import Family
from .pixels import to_pixels
from .protocol import Conditioning, Sampling
from .stages import Stages


class ClassConditionalPipeline(DiffusionPipeline):
    """A diffusers pipeline of a class-conditional EDM model.

    The folder is diffusers' own: `model_index.json`, `unet/`, `scheduler/`. The class is not one of
    diffusers, so that `ClassConditionalPipeline.from_pretrained(folder)` loads it.

    Args:
        unet: F of Karras et al. 2022, with `num_class_embeds` labels: one a class and, if there is one
            more, "no class".
        scheduler: EDMEulerScheduler, for sigma_data, sigma_min, sigma_max and rho.
        id2label: label -> class name.
        p_mean: mean of ln sigma in training.
        p_std: its standard deviation.
    """

    def __init__(
        self,
        unet: UNet,
        scheduler: EDMEulerScheduler,
        id2label: dict[str, str] | None = None,
        p_mean: float = -1.2,
        p_std: float = 1.2,
    ) -> None:
        super().__init__()
        names = {str(label): str(name) for label, name in (id2label or {}).items()}
        if not names:
            names = {str(label): str(label) for label in range(unet.config.num_class_embeds)}
        self.register_modules(unet=unet, scheduler=scheduler)
        self.register_to_config(id2label=names, p_mean=p_mean, p_std=p_std)
        levels = scheduler.config
        self.objective = EDM(levels.sigma_data, p_mean, p_std, levels.sigma_max, levels.rho)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, label by label."""
        return [self.config.id2label[str(label)] for label in range(len(self.config.id2label))]

    @property
    def null_label(self) -> int | None:
        """The label of "no class"."""
        labels, known = self.unet.config.num_class_embeds, len(self.config.id2label)
        return known if labels > known else None

    @property
    def sample_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        size = self.unet.config.sample_size
        height, width = size if isinstance(size, list | tuple) else (size, size)
        return self.unet.config.in_channels, height, width

    def labels(self, names: Sequence[str]) -> Tensor:
        """Labels of class names, shape (N,), int64.

        Raises:
            UserError: a name that is none of the classes.
        """
        known = {name: label for label, name in enumerate(self.class_names)}
        if self.null_label is not None:
            known[""] = self.null_label
        missing = sorted({name for name in names if name not in known})
        if "" in missing:
            raise UserError(
                'this model knows no "no class", which is its empty prompt. Leave proportion_empty_prompts at 0, and '
                "choose a method that asks for none, such as rgd."
            )
        if missing:
            raise UserError(
                f"expected the name of a class, one of {self.class_names}; got {missing[0]!r}. "
                "A class-conditional model knows no other prompts: unlearn it with --kind class."
            )
        return torch.tensor([known[name] for name in names])

    def check_guidance(self, guidance_scale: float) -> None:
        """Refuse guidance where there is nothing to start it from.

        Raises:
            UserError: a scale other than 1, and the model knows no "no class".
        """
        if guidance_scale != 1 and self.null_label is None:
            raise UserError(f'this model knows no "no class", so guidance_scale must be 1, got {guidance_scale}.')

    def denoise(self, noisy_samples: Tensor, sigmas: Tensor, class_labels: Tensor) -> Tensor:
        """D(x; sigma) of Karras et al. 2022, Eq. 7."""

        def network(scaled: Tensor, c_noise: Tensor) -> Tensor:
            return self.unet(scaled, c_noise, class_labels=class_labels, return_dict=False)[0]

        return self.objective.precondition(network, noisy_samples, sigmas)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str],
        num_inference_steps: int = 12,
        guidance_scale: float = 1.0,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        output_type: str = "pil",
        callback_on_step_end: Callable[[Any, int, float, dict[str, Any]], dict[str, Any]] | None = None,
        scheduler: Any = None,
    ) -> ImagePipelineOutput:
        """Draw one image of each class name in `prompt`.

        Args:
            prompt: class names.
            num_inference_steps: N of Algorithm 1; the network is called 2 N - 1 times.
            guidance_scale: 1 = none; other values need a model that knows "no class".
            generator: one for all images, or one an image.
            output_type: "pil", or "latent" for a tensor of pixels in [-1, 1].
            callback_on_step_end: called after each step as diffusers' pipelines call theirs, with the pipeline, the
                step, its sigma and {"latents": the samples}; "latents" in the dictionary that it returns, if any,
                take their place.
            scheduler: an EDM scheduler of diffusers, instead of Heun's method.
        """
        names = [prompt] if isinstance(prompt, str) else list(prompt)
        labels = self.labels(names).to(self.unet.device)
        self.check_guidance(guidance_scale)
        no_class = torch.full_like(labels, self.null_label or 0)
        shape, config = self.sample_shape, self.scheduler.config
        generators = list(generator) if isinstance(generator, Sequence) else None
        if generators:
            noise = torch.stack([torch.randn(shape, generator=one) for one in generators])
        else:
            noise = torch.randn((len(names), *shape), generator=generator)  # type: ignore[arg-type]
        noise = noise.to(self.unet.device, self.unet.dtype)

        def denoise(samples: Tensor, sigma: float) -> Tensor:
            sigmas = torch.full((len(samples),), sigma, device=samples.device, dtype=samples.dtype)
            denoised = self.denoise(samples, sigmas, labels)
            if guidance_scale == 1:
                return denoised
            free = self.denoise(samples, sigmas, no_class)
            return free + guidance_scale * (denoised - free)

        def after_step(step: int, sigma: float, samples: Tensor) -> Tensor:
            if callback_on_step_end is None:
                return samples
            kept = {"latents": samples}
            return (callback_on_step_end(self, step, sigma, kept) or kept).get("latents", samples)

        if scheduler is None:
            sigmas = karras_sigmas(num_inference_steps, config.sigma_min, config.sigma_max, config.rho)
            samples = heun(denoise, noise, sigmas, after_step)
        else:
            samples = _multistep(denoise, noise, scheduler, num_inference_steps, self.objective, after_step)
        samples = samples.clamp(-1, 1)
        if output_type == "latent":
            return ImagePipelineOutput(images=samples)
        return ImagePipelineOutput(images=[Image.fromarray(image.numpy()) for image in to_pixels(samples)])


def _multistep(
    denoise: Callable[[Tensor, float], Tensor],
    noise: Tensor,
    scheduler: Any,
    steps: int,
    objective: EDM,
    after_step: AfterStep,
) -> Tensor:
    """Sample with a scheduler of diffusers, which takes the raw network's output, not the denoiser's."""
    scheduler.set_timesteps(steps, device=noise.device)
    samples = noise * scheduler.init_noise_sigma
    for step, (timestep, level) in enumerate(zip(scheduler.timesteps, scheduler.sigmas.tolist()[:-1], strict=True)):
        scheduler.scale_model_input(samples, timestep)
        sigma = torch.tensor(level, dtype=samples.dtype)
        raw = (denoise(samples, level) - objective.c_skip(sigma) * samples) / objective.c_out(sigma)
        samples = after_step(step, level, scheduler.step(raw, timestep, samples, return_dict=False)[0])
    return samples


def class_inputs(config: Any, batch_size: int, side: int | None) -> dict[str, Any]:
    """Example inputs: pixels, noise levels and labels."""
    side = side or config.sample_size
    return {
        "sample": torch.zeros(batch_size, config.in_channels, side, side),
        "timestep": torch.zeros(batch_size),
        "class_labels": torch.zeros(batch_size, dtype=torch.long),
    }


class ClassConditional(Family):
    """`Denoiser` over a `ClassConditionalPipeline`.

    Args:
        pipeline: the pipeline; it is used, and its UNet trained, in place.
        name: what the user called the model.
        source: not needed: there is nothing to release.
    """

    family = "class-conditional"
    component = "unet"
    pipeline_class = ClassConditionalPipeline
    network = UNet
    defaults = ("class-conditional",)
    tiny: ClassVar = {
        "sample_size": 8,
        "in_channels": 1,
        "out_channels": 1,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "attention_head_dim": 8,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "num_class_embeds": 3,
    }
    example_inputs = staticmethod(class_inputs)
    warnings: tuple[str, ...] = ()

    def __init__(
        self, pipeline: ClassConditionalPipeline, name: str, source: str | None = None, stages: Stages | None = None
    ) -> None:
        self.pipeline: Any = pipeline
        self.name, self.source = name, source
        self.stages = stages or Stages(pipeline.unet.device)
        self.objective: Objective = pipeline.objective

    @property
    def module(self) -> nn.Module:
        """The UNet."""
        return self.pipeline.unet

    @property
    def device(self) -> torch.device:
        """Where every stage computes."""
        return self.stages.device

    def drawing(self) -> AbstractContextManager[None]:
        """Nothing: such a small network draws in float32, as it trains."""
        return nullcontext()

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """{"class_labels": (N,)}, of class names."""
        return {"class_labels": self.pipeline.labels(prompts).to(self.device)}

    def read_prompts(self, prompts: Sequence[str]) -> list[str]:
        """The prompts: a name of a class is read whole."""
        return list(prompts)

    def check_sampling(self, sampling: Sampling) -> None:
        """Refuse another size than that of the training images, and guidance of a model without "no class"."""
        size = self.pipeline.unet.config.sample_size
        if sampling.image_size not in (None, size):
            raise UserError(f"this model draws images of {size} pixels only, got image_size {sampling.image_size}.")
        self.pipeline.check_guidance(sampling.guidance_scale)

    def latent_shape(self, image_size: int | None = None) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        shape: tuple[int, int, int] = self.pipeline.sample_shape
        return shape

    @torch.no_grad()
    def sample(
        self, prompts: Sequence[str], seeds: Sequence[int], sampling: Sampling, progress: Progress, stage: str
    ) -> Tensor:
        """Draw images of the training images' size; the model's "own" sampler is Heun's method.

        Raises:
            UserError: another `image_size`.
        """
        self.check_sampling(sampling)
        pipe, chosen = self.pipeline, None
        if sampling.scheduler == "dpm-solver++":
            chosen = EDMDPMSolverMultistepScheduler.from_config(pipe.scheduler.config)

        def draw(texts: list[str], generators: list[torch.Generator], keep_alive: Callable[[], None]) -> Tensor:
            def after_step(_pipe: Any, _step: int, _timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
                keep_alive()
                return kwargs

            return pipe(
                texts,
                num_inference_steps=sampling.num_inference_steps,
                guidance_scale=sampling.guidance_scale,
                generator=generators,
                output_type="latent",
                callback_on_step_end=after_step,
                scheduler=chosen,
            ).images

        return drawn_in_batches(draw, pipe, self.component, prompts, seeds, sampling.batch_size, progress, stage)

    def encode_images(self, images: Tensor) -> Tensor:
        """Pixels in [-1, 1]; grey where the model has one channel."""
        pixels = 2 * images.to(self.device) - 1
        return pixels.mean(1, keepdim=True) if self.pipeline.unet.config.in_channels == 1 else pixels

    def decode(self, latents: Tensor) -> Tensor:
        """Images, uint8, (N, H, W, 3) on the CPU: the latents are the pixels already."""
        return to_pixels(latents)

    def predict(self, noisy_samples: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """The denoised image D; `timesteps` are sigmas."""
        return self.pipeline.denoise(noisy_samples, timesteps, conditioning["class_labels"])

    def release(self) -> None:
        """Do nothing: there is only the UNet."""

    def restore(self) -> None:
        """Do nothing: `release` took nothing away."""

    def save(self, folder: Path, dtype: torch.dtype | None) -> None:
        """Write the pipeline as a diffusers folder, in `dtype` or as it is; the pipeline stays as it is."""
        save_as(self.pipeline, folder, dtype)
