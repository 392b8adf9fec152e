"""The common part of the adapters of diffusers' text-to-image pipelines: drawing, coding, memory, saving."""

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from diffusers import DPMSolverMultistepScheduler
from torch import Tensor, nn

from ..maths.objectives import Objective
from ..support.errors import UserError
from ..support.progress import Progress, batches
from . import stages
from .components import component_of, load_network
from .device import lacks_told
from .family import Family, tokenizer_of
from .files import FAULTS, reason_of
from .pixels import check_latents, to_pixels
from .placing import fast_matmul, offloaded, recast, tiled
from .protocol import Conditioning, Sampling
from .stages import Stages


def drawn_in_batches(
    draw: Callable[[list[str], list[torch.Generator], Callable[[], None]], Tensor],
    pipeline: Any,
    component: str,
    prompts: Sequence[str],
    seeds: Sequence[int],
    batch_size: int,
    progress: Progress,
    stage: str,
) -> Tensor:
    """Draw in batches, the network in evaluation mode; each image has its own generator, so its seed alone decides it.

    Args:
        draw: gives the latents of a batch from its prompts and generators; calls what it is given as the
            third argument after each denoising step, so that the drawing can be cancelled.
        pipeline: whose scheduler draws.
        component: name of the network that draws; afterwards it is in the mode in which it was.
        prompts: one for each image.
        seeds: as many.
        batch_size: images at once.
        progress: told of each batch.
        stage: what the progress calls it.

    Returns:
        (N, C, h, w) in float32 on the CPU.

    Raises:
        UserError: a batch holds something that is no number.
    """
    module = getattr(pipeline, component)
    was_training = module.training
    module.eval()
    latents: list[Tensor] = []
    try:
        with progress.stage(stage, len(prompts)) as advance:
            for part in batches(zip(prompts, seeds, strict=True), batch_size):
                texts, generators = [text for text, _ in part], [torch.Generator("cpu").manual_seed(s) for _, s in part]
                latents.append(draw(texts, generators, lambda: advance(0)).float().cpu())
                check_latents(latents[-1], pipeline, component)
                advance(len(part))
    finally:
        module.train(was_training)
    return torch.cat(latents)


class PipelineDenoiser(Family, ABC):
    """`Denoiser` over a diffusers pipeline. A family says what it is conditioned on and how it predicts.

    Args:
        pipeline: the pipeline; it is used, and its denoiser trained, in place.
        name: what the user called the model.
        source: folder or hub id to load released components from again; without one they are only
            moved to the CPU.
        stages: in which its parts are held already; None: in float32, where the network is.
    """

    patch_size: ClassVar[int] = 1
    """Side of the square of latents that makes one token; image sizes must fit it."""
    call_options: Mapping[str, Any] = MappingProxyType({})
    """Further arguments with which the pipeline is called to draw."""

    def __init__(self, pipeline: Any, name: str, source: str | None = None, stages: Stages | None = None) -> None:
        self.pipeline, self.name, self.source = pipeline, name, source
        self.stages = stages or Stages(self.module.device)
        self.warnings: tuple[str, ...] = ()
        self.objective = self.build_objective()
        self._decoded = self._drawing = self._offloaded = False
        self._released: dict[str, nn.Module | None] = {}
        pipeline.set_progress_bar_config(disable=True)

    @property
    def module(self) -> Any:
        """The UNet or transformer."""
        return getattr(self.pipeline, self.component)

    @property
    def device(self) -> torch.device:
        """Where every stage computes."""
        return self.stages.device

    @abstractmethod
    def build_objective(self) -> Objective:
        """The objective that the model was trained with, read from its scheduler.

        Raises:
            ValueError: a scheduler that stands for no objective here.
        """

    @abstractmethod
    def encode(self, prompts: list[str]) -> Conditioning:
        """Embed a few prompts."""

    @abstractmethod
    def predict(self, noisy_samples: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """The network's output, shaped like `noisy_samples`; differentiable."""

    def unpack(self, latents: Tensor, image_size: int | None) -> Tensor:
        """Latents (B, C, H, W) from what the pipeline calls latents."""
        return latents

    def sampler(self, config: Any) -> Any:
        """DPM-Solver++ with the settings of the pipeline's own scheduler."""
        return DPMSolverMultistepScheduler.from_config(config)

    @torch.no_grad()
    def check_parts(self) -> None:
        """Embed, predict and decode once, as small as possible, so that parts of different models are told at once.

        Raises:
            UserError: they don't fit together, or what is decoded are no numbers.
        """
        vae, generator = self.pipeline.components.get("vae"), torch.Generator().manual_seed(0)
        if vae is None:  # a family that draws pixels, and says itself how
            return
        try:
            with self.drawing():
                latents = torch.zeros(1, vae.config.latent_channels, 8, 8, device=self.device)
                with lacks_told(self.device):
                    times = self.objective.sample_timesteps(1, generator).to(self.device)
                    self.predict(latents.to(self.stages.drawing), times, self.encode_prompts([""]))
                self.decode(latents)
        except (UserError, torch.OutOfMemoryError):
            raise
        except FAULTS as error:
            raise UserError(
                f"the parts of the model {self.name!r} don't fit together: {reason_of(error)}. Its text encoders, "
                f"{self.component} and vae must be of one model."
            ) from None

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """Embed prompts, a few at a time, in the number format that draws; row i belongs to prompt i."""
        encoders = [getattr(self.pipeline, name, None) for name in self.text_encoders]
        at_once = stages.prompts_at_once([each for each in encoders if each is not None])
        with self._onloaded():
            parts = [self.encode(part) for part in batches(prompts, at_once)]
        whole = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        return {n: rows.to(self.stages.drawing) if rows.is_floating_point() else rows for n, rows in whole.items()}

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """The network in the number format that draws, its own weights aside; the rest comes and goes as it is wanted.

        Whoever draws several times enters this once around all of it.
        """
        if self._drawing:
            yield
            return
        self._drawing = True
        aside = None if self.device.type == "cpu" else self.stages.aside
        try:
            with ExitStack() as undo:
                recast(self.module, self.stages.drawing, undo, aside)
                undo.enter_context(self._onloaded())
                undo.enter_context(fast_matmul(self.device))
                yield
        finally:
            self._drawing = False

    @contextmanager
    def _onloaded(self) -> Iterator[None]:
        """Parts that wait on the CPU come to the device when they are called."""
        if self._offloaded:
            yield
            return
        self._offloaded = True
        try:
            with offloaded(self.pipeline, self.stages):
                yield
        finally:
            self._offloaded = False

    def size_step(self) -> int:
        """What the side of its images must be a multiple of: what one token, or one latent, stands for."""
        return self.pipeline.vae_scale_factor * self.patch_size

    def latent_shape(self, image_size: int | None = None) -> tuple[int, int, int]:
        """(C, H, W) of what `sample` gives."""
        config = self.module.config
        if image_size:
            side = image_size // self.pipeline.vae_scale_factor
        else:
            side = config.sample_size or getattr(self.pipeline, "default_sample_size", None)
        height, width = (side, side) if isinstance(side, int) else side
        return config.in_channels, height, width

    def largest_size(self) -> float:
        """The largest side of an image that it can draw."""
        return math.inf

    def read_prompts(self, prompts: Sequence[str]) -> list[str]:
        """The part of each prompt that the text encoders read, the longest over the encoders.

        A pipeline that embeds prompts without text encoders of its own may say what it reads: `read_prompt(text)`.
        """
        if hasattr(self.pipeline, "read_prompt"):
            return [self.pipeline.read_prompt(prompt) for prompt in prompts]
        parts = []
        for encoder in self.text_encoders:
            tokenizer = getattr(self.pipeline, tokenizer_of(encoder), None)
            if tokenizer is not None:
                limit = min(self.prompt_tokens.get(encoder, tokenizer.model_max_length), tokenizer.model_max_length)
                parts.append(self._read_by(tokenizer, limit, prompts))
        return [max(each, key=len) for each in zip(*parts, strict=True)] if parts else list(prompts)

    def _read_by(self, tokenizer: Any, limit: int, prompts: Sequence[str]) -> list[str]:
        # a word that textual inversion has spread over several tokens
        if any(word.endswith("_1") for word in tokenizer.get_added_vocab()):
            prompts = [self.pipeline.maybe_convert_prompt(prompt, tokenizer) for prompt in prompts]
        room = limit - tokenizer.num_special_tokens_to_add()
        # without `verbose` transformers doesn't call it an error that a prompt is long
        found = tokenizer(list(prompts), add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return [
            prompt if len(places) <= room else prompt[: places[room - 1][1]]
            for prompt, places in zip(prompts, found["offset_mapping"], strict=True)
        ]

    def check_sampling(self, sampling: Sampling) -> None:
        """Refuse what the model can't draw.

        Raises:
            UserError: an image size that is no multiple of what the autoencoder and the network need, or too large; or
                a number of steps that the scheduler can't take.
        """
        image_size, step, largest = sampling.image_size, self.size_step(), self.largest_size()
        if image_size is not None and image_size % step:
            raise UserError(f"image_size must be a multiple of {step} for {self.family}, got {image_size}.")
        if image_size is not None and image_size > largest:
            raise UserError(f"image_size must be at most {largest:g} for this {self.family} model, got {image_size}.")
        self._check_steps(sampling)

    def _check_steps(self, sampling: Sampling) -> None:
        config = self.pipeline.scheduler.config
        own = sampling.scheduler != "dpm-solver++"
        scheduler = type(self.pipeline.scheduler).from_config(config) if own else self.sampler(config)
        shift = {"mu": 1.0} if scheduler.config.get("use_dynamic_shifting") else {}
        try:
            scheduler.set_timesteps(sampling.num_inference_steps, **shift)
        except FAULTS as error:
            raise UserError(
                f"{type(scheduler).__name__} can't draw in {sampling.num_inference_steps} steps "
                f"({reason_of(error)}). Choose another num_inference_steps (--num-inference-steps)."
            ) from None

    @torch.no_grad()
    def sample(
        self, prompts: Sequence[str], seeds: Sequence[int], sampling: Sampling, progress: Progress, stage: str
    ) -> Tensor:
        """Draw with the pipeline, its scheduler exchanged meanwhile if DPM-Solver++ is asked for.

        Raises:
            UserError: see `check_sampling`; or what is drawn holds something that is no number.
        """
        self.check_sampling(sampling)
        pipe, image_size = self.pipeline, sampling.image_size
        own_scheduler = pipe.scheduler
        if sampling.scheduler == "dpm-solver++":
            pipe.scheduler = self.sampler(own_scheduler.config)

        def draw(texts: list[str], generators: list[torch.Generator], keep_alive: Callable[[], None]) -> Tensor:
            def after_step(_pipe: Any, _step: int, _timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
                keep_alive()
                return kwargs

            result = pipe(
                prompt=texts,
                height=image_size,
                width=image_size,
                num_inference_steps=sampling.num_inference_steps,
                guidance_scale=sampling.guidance_scale,
                generator=generators,
                output_type="latent",
                callback_on_step_end=after_step,
                **self.call_options,
            )
            latents = self.unpack(result.images, image_size)
            if not self._decoded and latents.isfinite().all():
                self.decode(
                    latents[:1].float().cpu()
                )  # an autoencoder that overflows is told now, not after all images
                self._decoded = True
            return latents

        try:
            with self.drawing():
                return drawn_in_batches(
                    draw, pipe, self.component, prompts, seeds, sampling.batch_size, progress, stage
                )
        finally:
            pipe.scheduler = own_scheduler

    def _scale_and_shift(self) -> tuple[float, float]:
        config = self.pipeline.vae.config
        return config.scaling_factor, getattr(config, "shift_factor", None) or 0.0

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Tensor:
        """Mean of the autoencoder's posterior, shifted and scaled as the denoiser was trained."""
        vae = self.pipeline.vae
        scale, shift = self._scale_and_shift()
        means = []
        for part in self._coded(images, images.shape[-2] * images.shape[-1]):
            encoded = vae.encode((2 * part - 1).to(self._place_of(vae), vae.dtype))
            means.append(encoded.latent_dist.mean if hasattr(encoded, "latent_dist") else encoded.latents)
        return (torch.cat(means).float() - shift) * scale

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Images, uint8, (N, H, W, 3) on the CPU, of latents as `sample` gives them."""
        vae = self.pipeline.vae
        scale, shift = self._scale_and_shift()
        pixels = latents.shape[-2] * latents.shape[-1] * self.pipeline.vae_scale_factor**2
        images = []
        for part in self._coded(latents, pixels, stages.DECODED):
            scaled = (part / scale + shift).to(self._place_of(vae), vae.dtype)
            images.append(to_pixels(vae.decode(scaled, return_dict=False)[0], "the autoencoder (vae)"))
        return torch.cat(images)

    def _coded(self, whole: Tensor, pixels: int, most: int = sys.maxsize) -> Iterator[Tensor]:
        """Parts that the autoencoder takes at once; meanwhile it works in tiles where one picture is too large."""
        with self._onloaded(), tiled(self.pipeline.vae, pixels > stages.LARGEST):
            yield from whole.split(stages.pictures_at_once(pixels, most))

    def _place_of(self, part: Any) -> torch.device:
        """Where a part computes: it may wait elsewhere."""
        return part.device if self.stages.offload == "none" else self.device

    def release(self) -> None:
        """Drop the other networks where they can be loaded again, else move them to the CPU."""
        for name, part in self.pipeline.components.items():
            if name == self.component or not isinstance(part, nn.Module):
                continue
            self._released[name] = None if self.source else part.to("cpu")
            setattr(self.pipeline, name, None)

    def restore(self) -> None:
        """Put back what `release` took away, loaded again from the source where there is one."""
        for name, kept in self._released.items():
            part = kept
            if part is None:
                part = load_network(component_of(Path(self.source or ""), name), self.component, self.stages)
            # not `setattr`: once set to None, a component stays out of the pipeline's model_index.json
            self.pipeline.register_modules(**{name: part.to(self.stages.rest)})
        self._released = {}

    def save(self, folder: Path, dtype: torch.dtype | None) -> None:
        """Write the whole pipeline as a diffusers folder, in `dtype` or as it is; the pipeline stays as it is."""
        self.restore()
        save_as(self.pipeline, folder, dtype)


def save_as(pipeline: Any, folder: Path, dtype: torch.dtype | None) -> None:
    """Write a pipeline as a diffusers folder, its networks in `dtype` or as they are; it stays as it is."""
    with ExitStack() as undo:
        for part in pipeline.components.values():
            if isinstance(part, nn.Module) and dtype is not None:
                recast(part, dtype, undo)
        pipeline.save_pretrained(folder, safe_serialization=True)


def check_channels(network: Any) -> None:
    """Refuse a denoiser that takes more than noisy latents.

    Raises:
        UserError: more input than output channels (inpainting, depth, editing).
    """
    inputs, outputs = network.config.in_channels, network.config.out_channels
    if outputs is not None and inputs != outputs:
        raise UserError(
            f"expected a text-to-image {type(network).__name__} with as many input as output channels, got "
            f"{inputs} and {outputs} (an inpainting or editing model?)."
        )
