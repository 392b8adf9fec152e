"""How long a run will take and how much memory it needs, before it is started."""

import time
from dataclasses import dataclass

import psutil
import torch

from ..maths.choices import TrainableParameters
from ..maths.parameters import select_parameters
from ..models import Denoiser, Sampling
from ..prompts import PromptSet
from ..schema.recipe import Recipe, SampleSection
from ..support.progress import Silent
from .audit import audit_prompts, subject_of

_PROBE_STEPS, _PROBE_BATCH = 2, 8
_BACKWARD = 3  # a forward and a backward pass cost about three forward passes
_RUNTIME = 1_000_000_000  # bytes that Python, torch and the judges hold on a CPU
_GRADIENTS_AND_MOMENTS = 4  # two gradients and Adam's two moments, each as large as the weights that train


@dataclass(frozen=True)
class Estimate:
    """What a run will cost, roughly.

    Attributes:
        drawing: seconds to draw the training images.
        auditing: seconds to draw the audit images, before and after; the audits themselves come on top.
        training: seconds of fine-tuning.
        memory: bytes: the model, its gradients and optimizer; activations come on top.
        available: bytes that are free on the device.
    """

    drawing: float
    auditing: float
    training: float
    memory: int
    available: int

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.drawing + self.auditing + self.training


def estimate(denoiser: Denoiser, recipe: Recipe, prompts: PromptSet) -> Estimate:
    """Time a few denoising steps of the model and scale them up to the recipe.

    Args:
        denoiser: the recipe's model.
        recipe: what is to be run.
        prompts: the recipe's prompts.
    """
    evaluation = _seconds_per_evaluation(denoiser, recipe, prompts)

    def image(spec: SampleSection) -> float:
        return evaluation * spec.num_inference_steps * (2 if spec.guidance_scale > 1 else 1)

    audited = 2 * sum(map(len, audit_prompts(prompts, recipe.audits, subject_of(recipe)).values()))
    terms = len(recipe.method.terms)
    per_step = _BACKWARD * terms * recipe.training.batch_size * evaluation
    return Estimate(
        drawing=2 * len(prompts.train) * image(recipe.samples.for_training()),
        auditing=audited * image(recipe.samples),
        training=per_step * recipe.training.steps,
        memory=least_memory(denoiser, recipe.training.parameters),
        available=free_memory(denoiser.device),
    )


def least_memory(denoiser: Denoiser, parameters: TrainableParameters = "full") -> int:
    """Bytes of the model, of two gradients and of Adam's two moments; activations come on top."""
    parts = [part for part in denoiser.pipeline.components.values() if isinstance(part, torch.nn.Module)]
    held = sum(p.numel() * p.element_size() for part in parts for p in part.parameters())
    trained = select_parameters(denoiser.module, parameters).values()
    extra = _GRADIENTS_AND_MOMENTS * sum(p.numel() * p.element_size() for p in trained)
    return held + extra + (0 if denoiser.device.type == "cuda" else _RUNTIME)


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available


def _seconds_per_evaluation(denoiser: Denoiser, recipe: Recipe, prompts: PromptSet) -> float:
    """Of the network, on one sample, in a batch."""
    texts = (prompts.retain_train * _PROBE_BATCH)[:_PROBE_BATCH]

    def draw(steps: int) -> float:
        sampling = Sampling(steps, 1.0, recipe.samples.scheduler, _PROBE_BATCH)
        began = time.perf_counter()
        denoiser.sample(texts, list(range(len(texts))), sampling, Silent(), "timing")
        return time.perf_counter() - began

    draw(1)  # the first pass pays for set-up
    return max(draw(1 + _PROBE_STEPS) - draw(1), 1e-6) / _PROBE_STEPS / len(texts)
