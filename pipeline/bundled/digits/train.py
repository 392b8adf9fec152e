"""Train a class-conditional EDM model and its judge: `python -m turpentine.pipeline.bundled.digits.train`.

On scikit-learn's digits it takes minutes on one thread. Resumable: run the same command again.
`--dataset` takes CIFAR-10 or a folder with one folder per class; give the network more `--channels` then.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import EDMEulerScheduler, UNet2DModel
from PIL import Image
from torch import Tensor

from ...audits.class_judge import NOISE, ClassJudge
from ...audits.features import fidelity, load_features
from ...data.datasets import LabelledImages, load_images
from ...maths.objectives import denoising_loss
from ...models import Sampling
from ...models.class_conditional import ClassConditional, ClassConditionalPipeline
from ...models.pixels import to_pixels
from ...support.files import write_text
from ...support.progress import Silent
from ..origin import mark_origin
from ..tiny_canvas.loop import Average, arguments, console, cosine, run

_WITHOUT_CLASS = 0.1
"""Share of images that train "no class", as classifier-free guidance needs (Ho and Salimans 2022)."""


def build_pipeline(data: LabelledImages, channels: tuple[int, ...]) -> ClassConditionalPipeline:
    """An untrained model for a dataset.

    sigma_data is the data's own standard deviation. The noise distribution keeps its place relative to
    it: Karras et al. 2022 have P_mean = -1.2 for sigma_data = 0.5. Their sigma_max of 80 is for images of
    32 pixels a side and more; noise hides a smaller image sooner, in proportion to its side.
    """
    deviation = round(data.images.std().item(), 2)
    blocks = len(channels)
    unet = UNet2DModel(
        sample_size=data.images.shape[-1],
        in_channels=data.images.shape[1],
        out_channels=data.images.shape[1],
        block_out_channels=channels,
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=16,
        down_block_types=("DownBlock2D",) * blocks,
        up_block_types=("UpBlock2D",) * blocks,
        num_class_embeds=len(data.names) + 1,
    )
    p_mean = round(-1.2 + torch.tensor(deviation / 0.5).log().item(), 2)
    scheduler = EDMEulerScheduler(sigma_data=deviation, sigma_max=min(80.0, 80 * data.images.shape[-1] / 32))
    return ClassConditionalPipeline(unet, scheduler, {str(i): name for i, name in enumerate(data.names)}, p_mean)


def shifted(images: Tensor) -> Tensor:
    """Each image moved by up to one pixel in both directions, the border repeated."""
    size, padded = images.shape[-1], F.pad(images, (1, 1, 1, 1), mode="replicate")
    offsets = torch.randint(0, 3, (len(images), 2)).tolist()
    return torch.stack([image[:, y : y + size, x : x + size] for image, (y, x) in zip(padded, offsets, strict=True)])


def wreckage(images: Tensor) -> Tensor:
    """Pictures for the judge to call "random noise", made without any model: (N, C, H, W) in [-1, 1].

    Gaussian and uniform noise, flat grey, pixels and patches of real images shuffled, and averages of
    several real images.
    """
    kinds: list[Tensor] = []
    size = images.shape[-1]
    for index, image in enumerate(images):
        kind = index % 6
        if kind == 0:
            made = torch.randn_like(image) * torch.empty(()).uniform_(0.3, 1.5) + torch.empty(()).uniform_(-1, 1)
        elif kind == 1:
            made = torch.rand_like(image) * 2 - 1
        elif kind == 2:
            made = torch.empty(()).uniform_(-1, 1) + 0.1 * torch.randn_like(image)
        elif kind == 3:
            made = image.flatten(1)[:, torch.randperm(size * size)].reshape(image.shape)
        elif kind == 4:
            patch = size // 4
            patches = F.unfold(image[None], patch, stride=patch)[..., torch.randperm((size // patch) ** 2)]
            made = F.fold(patches, (size // patch * patch,) * 2, patch, stride=patch)[0]
            made = F.interpolate(made[None], size=size)[0]
        else:
            made = images[torch.randint(0, len(images), (6,))].mean(0) + 0.1 * torch.randn_like(image)
        kinds.append(made.clamp(-1, 1))
    return torch.stack(kinds)


def train_judge(data: LabelledImages, test: LabelledImages, options: argparse.Namespace) -> ClassJudge:
    """The judge, from the training split and synthetic wreckage; never from generated images."""
    judge = ClassJudge(data.names, data.images.shape[-1], data.images.shape[1])
    optimizer = torch.optim.AdamW(judge.parameters(), 2e-3, weight_decay=0.05)
    steps = options.judge_steps

    def one_step(step: int) -> float:
        for group in optimizer.param_groups:
            group["lr"] = cosine(step, steps, 2e-3, warmup=50)
        chosen = torch.randint(0, len(data), (options.batch,))
        real = shifted(data.images[chosen])
        real = real + 0.15 * torch.rand(len(real), 1, 1, 1) * torch.randn_like(real)
        noise = wreckage(data.images[torch.randint(0, len(data), (options.batch // 4,))])
        labels = torch.cat([data.labels[chosen], torch.full((len(noise),), len(data.names))])
        loss = F.cross_entropy(judge(torch.cat([real, noise])), labels, label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    def show(_: Path) -> None:
        console.print(f"judge on held-out real images: {measure_judge(judge, test)}")

    judge_options = argparse.Namespace(**{**vars(options), "steps": steps})
    run("judge", judge_options, {"judge": judge, "optimizer": optimizer}, one_step, show)
    return judge.eval()


def measure_judge(judge: ClassJudge, test: LabelledImages) -> dict:
    """Accuracy on held-out real images, and on wreckage of them."""
    judge.eval()
    guesses = judge.classify(test.images)
    right = [guess == test.names[label] for guess, label in zip(guesses, test.labels.tolist(), strict=True)]
    noise = judge.classify(wreckage(test.images))
    judge.train()
    return {
        "held_out_images": len(test),
        "accuracy": round(sum(right) / len(right), 4),
        "noise_accuracy": round(sum(guess == NOISE for guess in noise) / len(noise), 4),
    }


def train_model(data: LabelledImages, options: argparse.Namespace) -> ClassConditionalPipeline:
    """The EDM model; what is kept is the average of its weights."""
    pipeline = build_pipeline(data, tuple(int(width) for width in options.channels.split(",")))
    unet, objective = pipeline.unet, pipeline.objective
    denoiser = ClassConditional(pipeline, "training")
    parameters = list(unet.parameters())
    optimizer = torch.optim.Adam(parameters, 2e-3, fused=True)
    average = Average(parameters, decay=0.998)

    def one_step(step: int) -> float:
        for group in optimizer.param_groups:
            group["lr"] = cosine(step, options.steps, 2e-3, warmup=100)
        chosen = torch.randint(0, len(data), (options.batch,))
        images, labels = data.images[chosen], data.labels[chosen].clone()
        labels[torch.rand(len(labels)) < _WITHOUT_CLASS] = len(data.names)
        generator = torch.Generator().manual_seed(int(torch.randint(0, 2**31, ())))
        sigmas = objective.sample_timesteps(len(images), generator)
        noise = torch.randn(images.shape, generator=generator)
        noisy = objective.add_noise(images, noise, sigmas)
        loss = denoising_loss(
            denoiser.predict(noisy, sigmas, {"class_labels": labels}), images, objective.weight(sigmas)
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        average.update(step)
        return loss.item()

    def show(path: Path) -> None:
        average.swap()
        sheet(pipeline, 10).save(path)
        average.swap()

    state = {"unet": unet, "optimizer": optimizer, "average": average.values}
    run("model", options, state, one_step, show, minutes_between_shows=2)
    average.swap()
    return pipeline


def draw(pipeline: ClassConditionalPipeline, names: list[str], seed: int = 0) -> Tensor:
    """Images (N, C, H, W) in [-1, 1]."""
    seeds = [seed + index for index in range(len(names))]
    return ClassConditional(pipeline, "").sample(names, seeds, Sampling(18, 1.0, batch_size=500), Silent(), "drawing")


def sheet(pipeline: ClassConditionalPipeline, rows: int, scale: int = 6) -> Image.Image:
    """A picture with one class a column."""
    names = pipeline.class_names
    pixels = to_pixels(draw(pipeline, names * rows))
    side = pixels.shape[1]
    grid = pixels.reshape(rows, len(names), side, side, 3).permute(0, 2, 1, 3, 4).reshape(rows * side, -1, 3)
    return Image.fromarray(grid.numpy()).resize(
        (grid.shape[1] * scale, grid.shape[0] * scale), Image.Resampling.NEAREST
    )


def measure_model(pipeline: ClassConditionalPipeline, judge: ClassJudge, test: LabelledImages, each: int) -> dict:
    """Judge's accuracy per class on generated images, and their distances from held-out real images."""
    names = list(_repeat(pipeline.class_names, each))
    images = draw(pipeline, names, seed=7_000_000)
    guesses = judge.classify(images)
    accuracy = {
        name: round(sum(g == n for g, n in zip(guesses, names, strict=True) if n == name) / each, 3)
        for name in pipeline.class_names
    }
    distances = fidelity(load_features(None, judge), images, test.images)
    return {"generated_images": len(names), "accuracy": accuracy, **distances}


def _repeat(names: list[str], each: int) -> Iterator[str]:
    for name in names:
        yield from [name] * each


def main() -> None:
    """Train, or go on training, and write the weights."""

    def more(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--dataset", default="digits", help="'digits', 'cifar10' or a folder with one per class")
        parser.add_argument("--channels", default="24,48", help="widths of the UNet's levels (default 24,48)")
        parser.add_argument("--judge-steps", type=int, default=800, help="optimizer steps of the judge (default 800)")

    options = arguments(__doc__.splitlines()[0], steps=5_000, batch=64, work="digits-training", more=more)
    data, test = load_images(options.dataset, "train"), load_images(options.dataset, "test")
    out = options.out or options.work / "weights"
    judge = train_judge(data, test, options)
    judge.save(
        out / "judge", {**measure_judge(judge, test), "training_images": len(data), "steps": options.judge_steps}
    )
    judge = ClassJudge.load(str(out / "judge"))
    pipeline = train_model(data, options)
    pipeline.unet.half()
    pipeline.save_pretrained(out)
    if options.dataset == "digits":
        mark_origin(out, "digits")
    pipeline.unet.float()  # the rounded weights are the ones that are measured
    results = {"steps": options.steps, "batch": options.batch, **measure_model(pipeline, judge, test, 100)}
    reference = fidelity(load_features(None, judge), data.images, test.images)
    results["training images against held-out ones"] = reference
    write_text(out / "results.json", json.dumps(results, indent=2) + "\n")
    sheet(pipeline, 12).save(options.work / "generated.png")
    console.print_json(json.dumps(results))


if __name__ == "__main__":
    main()
