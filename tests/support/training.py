"""Short trainings of a tiny pipeline."""

import torch
from turpentine.pipeline.data.samples import Samples, SampleSet
from turpentine.pipeline.methods import build_method, find
from turpentine.pipeline.models import wrap_pipeline
from turpentine.pipeline.schema.recipe import TrainingSection
from turpentine.pipeline.training.trainer import Trainer

from .tiny_models import build_tiny_pipeline


def make_samples(denoiser, count=6):
    conditioning = denoiser.encode_prompts(["a photo of a cat", "a photo of a dog"])
    generator = torch.Generator().manual_seed(0)
    rows = torch.tensor([0, 1] * (count // 2))
    latents = [torch.randn(count, 4, 8, 8, generator=generator) for _ in range(2)]
    return SampleSet.in_order(Samples(latents[0], conditioning, rows), Samples(latents[1], conditioning, 1 - rows))


def train(method="rgd", folder=None, prediction_type="epsilon", resume=False, progress=None, config=None, **spec):
    denoiser = wrap_pipeline(build_tiny_pipeline(prediction_type))
    section = TrainingSection(**{"steps": 4, "batch_size": 2, "learning_rate": 1e-3, **spec})
    quick = {"start_steps": 3} if method.startswith("esd") else {}
    built = build_method(find(method).config(**quick, **(config or {})))
    trainer = Trainer(denoiser, built, make_samples(denoiser), section, 0, folder, progress)
    if folder:
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    result = trainer.train(resume=resume)
    return denoiser.module, result, trainer


def weights(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)
