"""Train tiny-canvas's UNet and text encoder: `python -m turpentine.pipeline.tiny_canvas.train_text_to_image`.

Needs the autoencoder that `train_autoencoder` left in the output folder. Epsilon prediction on
Stable Diffusion's noise schedule, min-SNR-5 weighting (Hang et al. 2023), one caption in ten
dropped for classifier-free guidance, and an average of the weights as the result.
"""

import copy
import random
from pathlib import Path

import torch
from diffusers import (
    AutoencoderTiny,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel

from .dataset import load_or_draw, random_caption
from .loop import Average, arguments, cosine, run
from .tokenizer import train_tokenizer
from .world import PLACES, STYLES, SUBJECTS, TIMES, compose

MAX_LENGTH = 24
SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}


def build(vocab_size: int, eos_id: int, bos_id: int) -> tuple[UNet2DConditionModel, CLIPTextModel]:
    """The untrained UNet and text encoder."""
    unet = UNet2DConditionModel(
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
    )
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocab_size,
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=MAX_LENGTH,
            bos_token_id=bos_id,
            eos_token_id=eos_id,
            pad_token_id=eos_id,
        )
    )
    return unet, text_encoder


def main() -> None:
    """Train, or go on training, and write the weights."""
    options = arguments(__doc__.splitlines()[0], steps=5_500, batch=64)
    out = options.out or options.work
    tokenizer = train_tokenizer(MAX_LENGTH)
    autoencoder = AutoencoderTiny.from_pretrained(out / "vae", torch_dtype=torch.float32).eval()
    pictures, drawn = load_or_draw(options.work, per_scene=24, seed=options.seed)
    with torch.no_grad():
        parts = [torch.tensor(pictures[start : start + 128]) for start in range(0, len(pictures), 128)]
        latents = torch.cat(
            [autoencoder.encode(part.permute(0, 3, 1, 2).float().div(127.5).sub(1)).latents for part in parts]
        )
    unet, text_encoder = build(tokenizer.vocab_size, tokenizer.eos_token_id, tokenizer.bos_token_id)
    unet.to(memory_format=torch.channels_last)
    parameters = [*unet.parameters(), *text_encoder.parameters()]
    optimizer = torch.optim.AdamW(parameters, 1e-3, betas=(0.9, 0.99), weight_decay=1e-2, fused=True)
    average = Average(parameters, decay=0.999)
    schedule = DDPMScheduler(**SCHEDULE)
    signal_to_noise = schedule.alphas_cumprod / (1 - schedule.alphas_cumprod)

    def token_ids(captions: list[str]) -> torch.Tensor:
        return tokenizer(
            captions, padding="max_length", max_length=MAX_LENGTH, truncation=True, return_tensors="pt"
        ).input_ids

    def one_step(step: int) -> float:
        for group in optimizer.param_groups:
            group["lr"] = cosine(step, options.steps, 1e-3)
        rng = random.Random(options.seed * 1_000_003 + step)
        chosen = torch.randint(0, len(latents), (options.batch,)).tolist()
        captions = ["" if rng.random() < 0.1 else random_caption(drawn[index], rng) for index in chosen]
        clean = latents[chosen]
        noise = torch.randn_like(clean)
        timesteps = torch.randint(0, 1000, (options.batch,))
        noisy = schedule.add_noise(clean, noise, timesteps).to(memory_format=torch.channels_last)
        noise_pred = unet(noisy, timesteps, text_encoder(token_ids(captions)).last_hidden_state).sample
        ratio = signal_to_noise[timesteps]
        loss = (ratio.clamp(max=5) / ratio * (noise_pred - noise).square().mean((1, 2, 3))).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        average.update(step)
        return loss.item()

    def pipeline() -> StableDiffusionPipeline:
        return StableDiffusionPipeline(
            vae=autoencoder, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet,
            scheduler=DPMSolverMultistepScheduler(**SCHEDULE, steps_offset=1),
            safety_checker=None, feature_extractor=None, requires_safety_checker=False,
        )  # fmt: skip

    def show(path: Path) -> None:
        average.swap()
        prompts = [
            compose(style[index % 4], list(SUBJECTS.values())[index % 6][index % 4],
                    list(PLACES.values())[index % 5][index % 4], list(TIMES.values())[index % 3][index % 4])
            for style in STYLES.values()
            for index in range(12)
        ]  # fmt: skip
        pipe = pipeline()
        pipe.set_progress_bar_config(disable=True)
        images = pipe(
            prompts, num_inference_steps=20, guidance_scale=3.0, generator=torch.Generator().manual_seed(0)
        ).images
        sheet = Image.new("RGB", (12 * 128, len(STYLES) * 128))
        for index, image in enumerate(images):
            sheet.paste(image.resize((128, 128)), (index % 12 * 128, index // 12 * 128))
        sheet.save(path)
        save(options.work / "preview")
        average.swap()

    def save(folder: Path) -> None:
        halves = copy.deepcopy(pipeline()).to(torch.float16)
        halves.unet.to(memory_format=torch.contiguous_format)
        halves.save_pretrained(folder)

    run("text-to-image", options, {"unet": unet, "text_encoder": text_encoder, "optimizer": optimizer,
        "average": average.values}, one_step, show, minutes_between_shows=6)  # fmt: skip
    average.swap()
    save(out)


if __name__ == "__main__":
    main()
