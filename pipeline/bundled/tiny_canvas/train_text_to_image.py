"""Train tiny-canvas's denoiser: `python -m turpentine.pipeline.bundled.tiny_canvas.train_text_to_image`.

`--model tiny-canvas` (UNet and text encoder) needs the autoencoder that `train_autoencoder` left in the
base folder; `--model tiny-canvas-dit` (a transformer) needs a finished tiny-canvas there. One caption in
ten is dropped for classifier-free guidance, and an average of the weights is the result.
"""

import argparse
import copy
import random
from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from PIL import Image
from safetensors.torch import load_file, save_file

from ...support.files import replacing
from ...worlds.tiny_canvas import PLACES, STYLES, SUBJECTS, TIMES, Scene, compose
from ..origin import mark_origin
from .dataset import load_or_draw, random_caption
from .loop import Average, arguments, cosine, run
from .students import STUDENTS, plain


def _more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", choices=STUDENTS, default="tiny-canvas")
    parser.add_argument(
        "--base",
        type=Path,
        help="folder with `vae`, and for tiny-canvas-dit `text_encoder` (default: where the weights go)",
    )
    parser.add_argument("--minutes", type=float, default=6, help="between checkpoints, each with a sheet of pictures")


@torch.no_grad()
def load_or_encode(autoencoder: AutoencoderTiny, options: argparse.Namespace) -> tuple[torch.Tensor, list[Scene]]:
    """Latents of the training pictures, (N, 16, 8, 8), from the work folder if they are there."""
    pictures, drawn = load_or_draw(options.work, per_scene=24, seed=options.seed)
    mark = sum(weight.double().sum().item() for weight in autoencoder.encoder.parameters())
    path = options.work / f"latents-24-{options.seed}-{mark:.6f}.safetensors"
    if not path.exists():
        parts = [torch.tensor(pictures[start : start + 128]) for start in range(0, len(pictures), 128)]
        latents = torch.cat(
            [autoencoder.encode(part.permute(0, 3, 1, 2).float().div(127.5).sub(1)).latents for part in parts]
        )
        with replacing(path) as partial:
            save_file({"latents": latents.contiguous()}, partial)
    return load_file(path)["latents"], drawn


def main() -> None:
    """Train, or go on training, and write the weights."""
    options = arguments(__doc__.splitlines()[0], steps=5_500, batch=64, more=_more)
    out = options.out or options.work
    base = options.base or out
    autoencoder = AutoencoderTiny.from_pretrained(base / "vae", dtype=torch.float32).eval()
    latents, drawn = load_or_encode(autoencoder, options)
    student = STUDENTS[options.model](base)
    parameters = student.parameters
    optimizer = torch.optim.AdamW(parameters, student.peak, betas=(0.9, 0.99), weight_decay=1e-2, fused=True)
    average = Average(parameters, decay=0.999)

    def one_step(step: int) -> float:
        for group in optimizer.param_groups:
            group["lr"] = cosine(step, options.steps, student.peak)
        rng = random.Random(options.seed * 1_000_003 + step)
        chosen = torch.randint(0, len(latents), (options.batch,)).tolist()
        captions = ["" if rng.random() < 0.1 else random_caption(drawn[index], rng) for index in chosen]
        loss = student.loss(latents[chosen], captions)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        average.update(step)
        return loss.item()

    def show(path: Path) -> None:
        average.swap()
        pipe = plain(copy.deepcopy(student.pipeline(autoencoder)))
        average.swap()
        prompts = [
            compose(style[index % 4], list(SUBJECTS.values())[index % 6][index % 4],
                    list(PLACES.values())[index % 5][index % 4], list(TIMES.values())[index % 3][index % 4])
            for style in STYLES.values()
            for index in range(12)
        ]  # fmt: skip
        pipe.set_progress_bar_config(disable=True)
        images = pipe(
            prompts, num_inference_steps=20, guidance_scale=3.0, generator=torch.Generator().manual_seed(0),
            **student.call,
        ).images  # fmt: skip
        sheet = Image.new("RGB", (12 * 128, len(STYLES) * 128))
        for index, image in enumerate(images):
            sheet.paste(image.resize((128, 128)), (index % 12 * 128, index // 12 * 128))
        sheet.save(path)
        pipe.to(torch.float16).save_pretrained(options.work / "preview")

    run(student.name, options, {**student.networks, "optimizer": optimizer, "average": average.values},
        one_step, show, options.minutes)  # fmt: skip
    average.swap()
    plain(student.pipeline(autoencoder)).to(torch.float16).save_pretrained(out)
    mark_origin(out, student.name)


if __name__ == "__main__":
    main()
