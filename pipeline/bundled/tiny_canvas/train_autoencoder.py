"""Train tiny-canvas's autoencoder: `python -m turpentine.pipeline.bundled.tiny_canvas.train_autoencoder`.

64x64 pixels to 8x8 latents of 16 channels and back. While training, the latents are whitened per
channel (batch statistics, folded into the encoder's last convolution at the end) and a little
noise is added, so that they are easy to diffuse and forgiving to decode. Photo-like faces, the
finest detail of this world, are drawn FACE_WEIGHT times as often as the rest. The last REFINE steps
train the decoder alone, on the latents as they then are, with faces weighted REFINE_FACE_WEIGHT.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from PIL import Image

from .dataset import load_or_draw
from .loop import Average, arguments, bfloat16_pays, cosine, run

LATENT_NOISE = 0.08
"""Standard deviation of the noise on whitened latents."""

FACE_WEIGHT = 6.0
REFINE = 2_500
REFINE_FACE_WEIGHT = 20.0


def build() -> AutoencoderTiny:
    """The untrained autoencoder (f = 8, 16 channels)."""
    return AutoencoderTiny(
        encoder_block_out_channels=(32,) * 4,
        decoder_block_out_channels=(64,) * 4,
        num_encoder_blocks=(0, 1, 2, 2),
        num_decoder_blocks=(3, 2, 1, 0),
        latent_channels=16,
    )


def _edges(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return images[..., 1:] - images[..., :-1], images[..., 1:, :] - images[..., :-1, :]


def loss_function(decoded: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """L1 + squared error + L1 of edges at two scales; pixels in [-1, 1], shape (B, 3, H, W)."""
    loss = F.l1_loss(decoded, images) + F.mse_loss(decoded, images)
    for scale in (1, 2):
        small, wanted = (F.avg_pool2d(each, scale) for each in (decoded, images))
        loss = loss + 0.5 * sum(F.l1_loss(a, b) for a, b in zip(_edges(small), _edges(wanted), strict=True))
    return loss


@torch.no_grad()
def fold_whitening(autoencoder: AutoencoderTiny, whitening: torch.nn.BatchNorm2d) -> None:
    """Make the encoder itself give whitened latents."""
    last = autoencoder.encoder.layers[-1]
    mean, variance = whitening.get_buffer("running_mean"), whitening.get_buffer("running_var")
    scale = (variance + whitening.eps).rsqrt()
    last.weight.mul_(scale[:, None, None, None])
    bias = last.bias if last.bias is not None else torch.zeros_like(scale)
    last.bias = torch.nn.Parameter((bias - mean) * scale)


def main() -> None:
    """Train, or go on training, and write the weights."""
    options = arguments(__doc__.splitlines()[0], steps=16_000 + REFINE, batch=16)
    pictures, drawn = load_or_draw(options.work, per_scene=24, seed=options.seed)
    data = torch.from_numpy(pictures[:].copy()).permute(0, 3, 1, 2)
    autoencoder = build().to(memory_format=torch.channels_last)
    whitening = torch.nn.BatchNorm2d(16, affine=False, momentum=0.01)
    parameters = list(autoencoder.parameters())
    optimizer = torch.optim.AdamW(parameters, 2e-3, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    average = Average(parameters, decay=0.998)
    faces = [scene.subject == "astronaut" and scene.style in ("photo", "vintage") for scene in drawn]
    weights, refine_weights = (
        torch.tensor([weight if face else 1.0 for face in faces]) for weight in (FACE_WEIGHT, REFINE_FACE_WEIGHT)
    )
    first = options.steps - REFINE

    def load(indices: torch.Tensor) -> torch.Tensor:
        return data[indices].float().div(127.5).sub(1).to(memory_format=torch.channels_last)

    def one_step(step: int) -> float:
        refining = step >= first
        for group in optimizer.param_groups:
            group["lr"] = cosine(step - first, REFINE, 8e-4) if refining else cosine(step, first, 2e-3)
        whitening.train(not refining)
        images = load(torch.multinomial(refine_weights if refining else weights, options.batch))
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16_pays()):
            with torch.set_grad_enabled(not refining):
                latents = whitening(autoencoder.encoder(images).float())
            decoded = autoencoder.decoder(latents + LATENT_NOISE * torch.randn_like(latents))
        loss = loss_function(decoded.float(), images)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        average.update(step)
        return loss.item()

    @torch.no_grad()
    def show(path: Path) -> None:
        average.swap()
        whitening.eval()
        images = load(torch.arange(0, len(data), len(data) // 47)[:48])
        latents = whitening(autoencoder.encoder(images))
        decoded = autoencoder.decoder(latents).clamp(-1, 1)
        print(f"squared error {F.mse_loss(decoded, images):.5f} (pixels in [-1, 1])", flush=True)
        rows = [
            torch.cat(list(each), dim=-1)
            for pair in zip(images.split(12), decoded.split(12), strict=True)
            for each in pair
        ]
        sheet = torch.cat(rows, dim=-2).add(1).mul(127.5).byte().permute(1, 2, 0)
        Image.fromarray(sheet.numpy()).resize((12 * 128, len(rows) * 128)).save(path)
        whitening.train()
        average.swap()

    run("autoencoder", options,
        {"model": autoencoder, "whitening": whitening, "optimizer": optimizer, "average": average.values},
        one_step, show, minutes_between_shows=4)  # fmt: skip
    average.swap()
    fold_whitening(autoencoder, whitening)
    autoencoder.half().save_pretrained((options.out or options.work) / "vae")


if __name__ == "__main__":
    main()
