"""Train tiny-canvas's judge: `python -m turpentine.pipeline.bundled.tiny_canvas.train_judge`.

A small CLIP in open_clip's own format, trained with open_clip's loss on *rendered* pictures and
on noise, never on generated pictures, so that it can judge those. It writes `results.json` with
its zero-shot accuracy on scenes that it never saw.
"""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torchvision.transforms import v2

from ...audits.zero_shot import accuracies, hits
from ...worlds.tiny_canvas import DIMENSIONS, NOISE_CAPTION, Scene, TinyCanvas, compose, scenes
from .dataset import draw_noise, draw_scenes, load_or_draw, random_caption
from .loop import Average, arguments, console, cosine, run
from .tokenizer import train_tokenizer

_CONTEXT_LENGTH = 24


def model_config(vocab_size: int, eos_id: int) -> dict[str, Any]:
    """open_clip's `model_cfg` of the judge."""
    return {
        "embed_dim": 128,
        "vision_cfg": {"image_size": 64, "layers": 4, "width": 128, "head_width": 32, "patch_size": 8},
        "text_cfg": {
            "context_length": _CONTEXT_LENGTH,
            "vocab_size": vocab_size,
            "hf_tokenizer_name": "tiny-canvas-judge",
            "width": 96,
            "heads": 3,
            "layers": 2,
            "pool_type": "eos",
            "eos_id": eos_id,
        },
    }


def caption_variants(scene: Scene, rng: random.Random) -> str:
    """A caption for contrastive training: whole, or naming some of the dimensions only."""
    if rng.random() < 0.4:
        return random_caption(scene, rng)
    phrase = {name: rng.choice(values[getattr(scene, name)]) for name, values in DIMENSIONS.items()}
    return rng.choice((
        compose(rng.choice(("a photo of", phrase["style"])), phrase["subject"], "", ""),
        compose(phrase["style"], phrase["subject"], rng.choice(("", phrase["place"])), ""),
        f"{phrase['style']} something {phrase['place']}",
        f"{phrase['style']} something {phrase['time']}",
        f"something {phrase['place']} {rng.choice(('', phrase['time']))}",
    )).strip()  # fmt: skip


@torch.no_grad()
def accuracy(model: open_clip.CLIP, tokenizer: Callable, images: torch.Tensor, labels: dict[str, list[str]]) -> dict:
    """Zero-shot accuracy of each dimension; `images` as the model takes them, (N, 3, 64, 64)."""
    features = F.normalize(torch.cat([model.encode_image(part) for part in images.split(250)]), dim=-1)

    def encode_texts(prompts: list[str]) -> torch.Tensor:
        return F.normalize(model.encode_text(tokenizer(prompts)), dim=-1)

    return accuracies(hits(features, encode_texts, labels, TinyCanvas()))


def main() -> None:
    """Train, or go on training, and write the weights."""
    options = arguments(__doc__.splitlines()[0], steps=3_000, batch=64)
    pictures, drawn = load_or_draw(options.work, per_scene=24, seed=options.seed)
    data = torch.from_numpy(pictures[:].copy()).permute(0, 3, 1, 2)
    noise = torch.from_numpy(draw_noise(2_000, options.seed + 1)).permute(0, 3, 1, 2)
    out = (options.out or options.work) / "judge"
    train_tokenizer(_CONTEXT_LENGTH).save_pretrained(out)
    eos_id = json.loads((out / "tokenizer.json").read_text())["model"]["vocab"]["<|endoftext|>"]
    config = {
        "model_cfg": model_config(train_tokenizer(_CONTEXT_LENGTH).vocab_size, eos_id),
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"},
    }
    (out / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{out}")
    model = open_clip.CLIP(**config["model_cfg"])
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, 1e-3, betas=(0.9, 0.98), weight_decay=0.05, fused=True)
    average = Average(parameters, decay=0.995)
    contrastive = open_clip.ClipLoss()
    augment = v2.Compose([v2.RandomResizedCrop(64, (0.8, 1.0), (0.95, 1.05)), v2.GaussianBlur(3, (0.05, 1.2)),
                          v2.ColorJitter(0.1, 0.1, 0.05)])  # fmt: skip

    def one_step(step: int) -> float:
        for group in optimizer.param_groups:
            group["lr"] = cosine(step, options.steps, 1e-3)
        rng = random.Random(options.seed * 1_000_003 + step)
        blank = max(1, options.batch // 16)
        chosen = torch.randint(0, len(data), (options.batch - blank,)).tolist()
        images = torch.cat([augment(data[chosen]), noise[torch.randint(0, len(noise), (blank,))]])
        images = images.float().div(127.5).sub(1)
        images = images + torch.rand(()) * 0.12 * torch.randn_like(images)
        captions = [caption_variants(drawn[index], rng) for index in chosen] + [NOISE_CAPTION] * blank
        image_features, text_features, scale = model(images, tokenizer(captions))
        loss = contrastive(image_features, text_features, scale)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=4.6)
        average.update(step)
        return loss.item()

    test = [scene for scene in scenes() if scene.held_out] * 10
    test_images = torch.from_numpy(draw_scenes(test, seed=991)).permute(0, 3, 1, 2).float().div(127.5).sub(1)
    test_labels = {name: [getattr(scene, name) for scene in test] for name in DIMENSIONS}

    def show(_: Path) -> None:
        average.swap()
        model.eval()
        console.print(f"held-out renderings ({len(test)}): {accuracy(model, tokenizer, test_images, test_labels)}")
        model.train()
        average.swap()

    run("judge", options, {"model": model, "optimizer": optimizer, "average": average.values}, one_step, show, 3)
    average.swap()
    model.eval()
    save_file({k: v.half().contiguous() for k, v in model.state_dict().items()}, out / "open_clip_model.safetensors")
    results = {
        "held_out_renderings": len(test),
        "zero_shot_accuracy": accuracy(model, tokenizer, test_images, test_labels),
        "steps": options.steps,
    }
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
