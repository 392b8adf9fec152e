"""The denoisers that `train_text_to_image` trains: tiny-canvas's UNet, and the transformer of tiny-canvas-dit.

A student knows its networks, its loss and the pipeline it ends up in; the script does the rest.
"""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import (
    AutoencoderTiny,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.models.attention_processor import JointAttnProcessor2_0
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer
from typing_extensions import override

from ...maths.objectives import denoising_loss, flow_matching_from_scheduler
from .joint_attention import WeightedJointAttention
from .loop import bfloat16_pays
from .tokenizer import train_tokenizer

MAX_LENGTH = 24
"""Tokens of a prompt."""

MOST_BLANKS = 512
"""The longest `max_sequence_length` that diffusers takes."""


class Student(ABC):
    """Networks in training.

    Attributes:
        networks: name -> network, all trained.
        call: what else the pipeline is called with, to draw.
    """

    name: ClassVar[str]
    """File name of its checkpoint."""
    peak: ClassVar[float]
    """Highest learning rate."""
    networks: dict[str, nn.Module]
    call: ClassVar[dict[str, Any]] = {}

    def __init__(self) -> None:
        self.tokenizer = train_tokenizer(MAX_LENGTH)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters that the optimizer holds."""
        return [parameter for network in self.networks.values() for parameter in network.parameters()]

    @abstractmethod
    def loss(self, clean: Tensor, captions: list[str]) -> Tensor:
        """The training loss, a scalar, of latents (B, 16, 8, 8) and one caption for each."""

    @abstractmethod
    def pipeline(self, autoencoder: AutoencoderTiny) -> Any:
        """The networks as they are, in the pipeline that users load."""

    def token_ids(self, captions: list[str]) -> Tensor:
        """Padded, (B, MAX_LENGTH)."""
        return self.tokenizer(
            captions, padding="max_length", max_length=MAX_LENGTH, truncation=True, return_tensors="pt"
        ).input_ids


class Unet(Student):
    """Epsilon prediction on Stable Diffusion's noise schedule, min-SNR-5 weighting (Hang et al. 2023)."""

    name = "text-to-image"
    peak = 1e-3
    schedule: ClassVar = {
        "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000
    }  # fmt: skip

    def __init__(self, base: Path) -> None:
        super().__init__()
        self.unet = UNet2DConditionModel(
            sample_size=8,
            in_channels=16,
            out_channels=16,
            block_out_channels=(80, 144),
            layers_per_block=1,
            cross_attention_dim=128,
            attention_head_dim=8,
            norm_num_groups=16,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        ).to(memory_format=torch.channels_last)
        self.text_encoder = CLIPTextModel(text_config(self.tokenizer, width=128, layers=3, heads=4))
        self.networks = {"unet": self.unet, "text_encoder": self.text_encoder}
        self.noising = DDPMScheduler(**self.schedule)
        self.signal_to_noise = self.noising.alphas_cumprod / (1 - self.noising.alphas_cumprod)

    @override
    def loss(self, clean: Tensor, captions: list[str]) -> Tensor:
        noise = torch.randn_like(clean)
        timesteps = torch.randint(0, 1000, (len(clean),))
        noisy = self.noising.add_noise(clean, noise, timesteps).to(memory_format=torch.channels_last)
        noise_pred = self.unet(noisy, timesteps, self.text_encoder(self.token_ids(captions)).last_hidden_state).sample
        ratio = self.signal_to_noise[timesteps]
        return (ratio.clamp(max=5) / ratio * (noise_pred - noise).square().mean((1, 2, 3))).mean()

    @override
    def pipeline(self, autoencoder: AutoencoderTiny) -> StableDiffusionPipeline:
        return StableDiffusionPipeline(
            vae=autoencoder, text_encoder=self.text_encoder, tokenizer=self.tokenizer, unet=self.unet,
            scheduler=DPMSolverMultistepScheduler(**self.schedule, steps_offset=1),
            safety_checker=None, feature_extractor=None, requires_safety_checker=False,
        )  # fmt: skip


class Transformer(Student):
    """Stable Diffusion 3's transformer by its flow matching (Esser et al. 2024).

    The first text encoder is that of a finished tiny-canvas and stays as it is; the second one,
    little more than a table of words, is trained. There is no T5. diffusers puts as many tokens of
    zeros in its place as it is asked for (256 if not asked), and the transformer is trained to
    draw the same with any number of them.
    """

    name = "transformer"
    peak = 8e-4
    call: ClassVar = {"max_sequence_length": 0}

    def __init__(self, base: Path) -> None:
        super().__init__()
        self.text_encoder = _with_projection(base / "text_encoder")
        width, width_2 = self.text_encoder.config.hidden_size, 32
        self.text_encoder_2 = CLIPTextModelWithProjection(text_config(self.tokenizer, width_2, layers=1, heads=2))
        self.transformer = SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=16,
            out_channels=16,
            num_layers=6,
            num_attention_heads=6,
            attention_head_dim=32,
            joint_attention_dim=width + width_2,
            pooled_projection_dim=width + width_2,
            caption_projection_dim=6 * 32,
            pos_embed_max_size=4,  # as many as there are patches: another size would move them closer together
            qk_norm="rms_norm",
        )
        _start_as_identity(self.transformer)
        self.transformer.set_attn_processor(WeightedJointAttention())
        self.networks = {"transformer": self.transformer, "text_encoder_2": self.text_encoder_2}
        self.scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
        self.objective = flow_matching_from_scheduler(self.scheduler.config, patch_size=2)

    def _embed(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """The embeddings that the pipeline makes of captions without any zeros: (B, MAX_LENGTH, D), (B, D)."""
        ids = self.token_ids(captions)
        with torch.no_grad():
            first = self.text_encoder(ids, output_hidden_states=True)
        second = self.text_encoder_2(ids, output_hidden_states=True)
        embeds = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
        return embeds, torch.cat([first.text_embeds, second.text_embeds], dim=-1)

    def loss(self, clean: Tensor, captions: list[str]) -> Tensor:
        """The flow-matching loss of a batch. Half the batches have no token of zeros, the others up to MOST_BLANKS."""
        generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        timesteps = self.objective.sample_timesteps(len(clean), generator)
        noise = torch.randn_like(clean)
        noisy = self.objective.add_noise(clean, noise, timesteps)
        embeds, pooled = self._embed(captions)
        place = 2 * torch.rand(()).item() - 1
        blanks = round(MOST_BLANKS**place) if place > 0 else 0
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16_pays()):
            velocity = self.predict(noisy, timesteps, embeds, pooled, blanks)
        target = self.objective.target(clean, noise, timesteps)
        return denoising_loss(velocity, target, self.objective.weight(timesteps))

    def predict(self, noisy: Tensor, timesteps: Tensor, embeds: Tensor, pooled: Tensor, blanks: int) -> Tensor:
        """The velocity with `blanks` tokens of zeros after the text, computed with one."""
        counts = torch.ones(self.transformer.pos_embed.pos_embed.shape[1] + embeds.shape[1] + min(blanks, 1))
        if blanks:
            embeds = torch.cat([embeds, torch.zeros_like(embeds[:, :1])], dim=1)
            counts[-1] = blanks
        return self.transformer(
            noisy,
            timestep=timesteps,
            encoder_hidden_states=embeds,
            pooled_projections=pooled,
            joint_attention_kwargs={"counts": counts},
            return_dict=False,
        )[0]

    @override
    def pipeline(self, autoencoder: AutoencoderTiny) -> StableDiffusion3Pipeline:
        return StableDiffusion3Pipeline(
            transformer=self.transformer, scheduler=self.scheduler, vae=autoencoder,
            text_encoder=self.text_encoder, tokenizer=self.tokenizer,
            text_encoder_2=self.text_encoder_2, tokenizer_2=self.tokenizer,
            text_encoder_3=None, tokenizer_3=None,
        )  # fmt: skip


STUDENTS: dict[str, Any] = {"tiny-canvas": Unet, "tiny-canvas-dit": Transformer}
"""Model -> what is trained for it."""


def text_config(tokenizer: CLIPTokenizer, width: int, layers: int, heads: int) -> CLIPTextConfig:
    """Of a text encoder for this tokenizer; its projection, where it has one, keeps the width."""
    return CLIPTextConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=width,
        intermediate_size=3 * width,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=MAX_LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )


def _with_projection(folder: Path) -> CLIPTextModelWithProjection:
    """A finished text encoder, frozen, in the class that Stable Diffusion 3 wants: its projection is the identity."""
    encoder = CLIPTextModel.from_pretrained(folder, dtype=torch.float32)
    encoder.config.projection_dim = encoder.config.hidden_size
    projected = CLIPTextModelWithProjection(encoder.config)
    projected.text_model.load_state_dict(encoder.state_dict())
    nn.init.eye_(projected.text_projection.weight)
    return projected.requires_grad_(False).eval()


@torch.no_grad()
def _start_as_identity(transformer: SD3Transformer2DModel) -> None:
    """Xavier weights; every block adds nothing at first (adaLN-Zero, Peebles & Xie 2023, Section 3.2)."""
    for name, module in transformer.named_modules():
        if isinstance(module, nn.Linear):
            zero = name == "proj_out" or ("norm" in name and name.endswith("linear"))
            nn.init.zeros_(module.weight) if zero else nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)


def plain(pipeline: Any) -> Any:
    """The pipeline with diffusers' own attention and memory layout, in which it is used."""
    if isinstance(pipeline, StableDiffusion3Pipeline):
        pipeline.transformer.set_attn_processor(JointAttnProcessor2_0())
    else:
        pipeline.unet.to(memory_format=torch.contiguous_format)
    return pipeline
