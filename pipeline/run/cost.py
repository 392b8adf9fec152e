"""The cost of a run: memory, computed from the architecture alone, and time, from a few steps that are timed.

Peak memory while training = weights + optimizer + gradients (the forget gradient waits for the retain one) + what
a forward pass keeps for its backward pass. It is an upper bound: activations are freed while the second gradient
is computed. The network is built on fake tensors and run once under autograd, so no weights are needed and
nothing is allocated. Text encoders and VAE are not on the device while training. The CUDA context (about
0.5 GB), the kernels' workspaces and fragmentation come on top: leave a tenth free.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ..maths.parameters import select_parameters
from ..models import Denoiser, Sampling
from ..models.architectures import build_network, example_inputs, find_architecture, saved_bytes
from ..models.stages import bytes_of
from ..prompts import PromptSet
from ..schema.recipe import Recipe, SampleSection, TrainingSection
from ..schema.resolve import resolve
from ..support.errors import UserError
from ..support.progress import Silent
from ..training.edit import edited_tensors
from ..training.lora import inject
from ..training.tuning import tuned
from .audit import audit_prompts, subject_of
from .samples import drawn_terms

_PROBE_STEPS, _PROBE_BATCH = 2, 8
_BACKWARD = 3  # a forward and a backward pass cost about three forward passes
_RUNTIME = 1_000_000_000  # bytes that Python, torch and the judges hold on a CPU
_BLOCK = 256  # weights that share a scale in bitsandbytes' 8-bit Adam
_SMALL = 4096  # tensors with fewer weights keep moments of 32 bits there

SETTINGS = tuple(
    TrainingSection(**options)
    for options in (
        {},
        {"gradient_checkpointing": True},
        {"precision": "bf16"},
        {"forget_gradient": "bf16"},
        {"forget_gradient": "cpu"},
        {"optimizer": "adam8bit"},
        {"optimizer": "adam8bit", "gradient_checkpointing": True, "precision": "bf16", "forget_gradient": "cpu"},
        {"parameters": "xattn", "precision": "bf16"},
        {"parameters": "xattn", "precision": "bf16", "gradient_checkpointing": True},
        {"parameters": "lora", "precision": "bf16"},
        {"parameters": "lora", "precision": "bf16", "gradient_checkpointing": True},
    )
)
"""Settings that are worth trying: each option alone, and together."""


class NothingTrains(UserError):
    """The parameters that are to train are not in a network."""


@dataclass(frozen=True)
class Plan:
    """Bytes of one setting."""

    setting: TrainingSection
    weights: int
    optimizer: int
    gradients: int
    activations: int

    @property
    def total(self) -> int:
        """The peak while training."""
        return self.weights + self.optimizer + self.gradients + self.activations

    @property
    def name(self) -> str:
        """The options that decide memory, in words."""
        spec = self.setting
        said: list[str] = [spec.parameters, spec.precision]
        if spec.base_precision != "fp32":
            said.append(f"base {spec.base_precision}")
        if spec.gradient_checkpointing:
            said.append("checkpointing")
        if spec.optimizer != "adam":
            said.append(spec.optimizer)
        if spec.forget_gradient != "whole":
            said.append(f"forget gradient {spec.forget_gradient}")
        return ", ".join(said)


def plan(
    model: str, settings: Sequence[TrainingSection] = SETTINGS, batch_size: int = 1, side: int | None = None
) -> list[Plan]:
    """Compute the memory of each setting that the model's architecture allows.

    Args:
        model: a diffusers folder or one of `architectures.KNOWN`.
        settings: the options to try.
        batch_size: pairs that pass at once (a batch divided by the accumulation steps).
        side: height and width of the latents; None for what the model was trained at.

    Raises:
        UserError: unknown model.
    """
    kind, config = find_architecture(model)
    plans = []
    with FakeTensorMode():
        plain = build_network(kind, config)  # one for all, as a large one takes seconds to build
        for spec in settings:
            network = _with_lora(build_network(kind, config), spec) if spec.parameters == "lora" else plain
            try:
                plans.append(_plan(network, example_inputs(network, batch_size, side), spec, gradients=2))
            except NothingTrains:  # for example the cross-attention of a network that has none
                continue
    return plans


def plan_network(
    kind: type[nn.Module],
    config: Mapping[str, Any],
    spec: TrainingSection,
    batch_size: int = 1,
    side: int | None = None,
    gradients: int = 2,
    teacher: bool = False,
) -> Plan:
    """Compute the memory of one setting.

    Args:
        kind: class of the network.
        config: its configuration.
        spec: the options.
        batch_size: pairs that pass at once.
        side: height and width of the latents; None for what the model was trained at.
        gradients: how many the method computes in a step: with two, the first one waits.
        teacher: whether the weights that train are kept as they were, too.

    Raises:
        NothingTrains: the parameters that are to train are not in this network.
    """
    with FakeTensorMode():
        network = build_network(kind, dict(config))
        if spec.parameters == "lora":
            network = _with_lora(network, spec)
        return _plan(network, example_inputs(network, batch_size, side), spec, gradients, teacher)


def changed_tensors(module: Any, recipe: Recipe) -> dict[str, Tensor]:
    """The weights of a loaded network that a run will change; those of a LoRA are not there yet, and have no values.

    Raises:
        MissingExtra: peft is not installed.
        UserError: the parameters that are to train, or what a closed form edits, are not in this network.
    """
    if recipe.method.closed_form:
        return dict(edited_tensors(module, recipe.method))
    spec = recipe.training
    try:
        if spec.parameters != "lora":
            return dict(select_parameters(module, spec.parameters))
        with FakeTensorMode():
            return dict(select_parameters(_with_lora(build_network(type(module), dict(module.config)), spec), "lora"))
    except ValueError as error:
        raise error if isinstance(error, UserError) else NothingTrains(str(error)) from None


def _with_lora(network: Any, spec: TrainingSection) -> nn.Module:
    """Put the recipe's LoRA into a network of fake tensors.

    peft moves layers, which fake parameters don't allow, so the network is of meta tensors meanwhile.
    """
    _replace_tensors(network, "meta")
    with torch.device("meta"):
        inject(network, spec.adapter_rank, spec.adapter_alpha, spec.adapter_targets, 0)
    _replace_tensors(network, "cpu")
    return network


def _replace_tensors(network: nn.Module, device: str) -> None:
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(torch.empty_like(parameter, device=device)))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, torch.empty_like(buffer, device=device))


def _plan(
    network: nn.Module, inputs: dict[str, Any], spec: TrainingSection, gradients: int, teacher: bool = False
) -> Plan:
    try:
        trained = select_parameters(network, spec.parameters)
    except ValueError as error:
        raise NothingTrains(str(error)) from None
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in trained)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=spec.precision == "bf16", cache_enabled=False)
    network.train()
    layout = spec.model_copy(update={"torch_compile": False, "channels_last": False})  # which take no memory
    with tuned(network, layout), autocast:
        activations = saved_bytes(network, inputs)
    base = spec.base_precision
    weights = sum(
        round(p.numel() * bytes_of(base, name in trained, p.ndim == 2)) for name, p in network.named_parameters()
    )
    gradient = sum(p.numel() * p.element_size() for p in trained.values())
    waiting = {"whole": gradient, "bf16": gradient // 2, "cpu": 0}[spec.forget_gradient] if gradients > 1 else 0
    moments = sum(moment_bytes(p, spec) for p in trained.values())
    return Plan(spec, weights + (gradient if teacher else 0), moments, gradient + waiting, activations)


def moment_bytes(parameter: Tensor, spec: TrainingSection) -> int:
    """Bytes of the moments that the optimizer keeps of one parameter."""
    count = parameter.numel()
    if spec.optimizer == "adam8bit" and count >= _SMALL:
        return 2 * (count + 4 * -(-count // _BLOCK))
    return (1 if spec.metric == "adam" else 2) * 4 * count


@dataclass(frozen=True)
class Estimate:
    """Time and memory of a run, roughly.

    Attributes:
        drawing: seconds to draw the training images.
        auditing: seconds to draw the audit images, before and after; the audits themselves come on top.
        training: seconds of fine-tuning.
        memory: bytes that it needs at most while it trains, and at least to hold the model.
        available: bytes that are free on the device.
    """

    drawing: float
    auditing: float
    training: float
    memory: int
    available: int

    @property
    def seconds(self) -> float:
        """The whole run, without what comes on top."""
        return self.drawing + self.auditing + self.training


def estimate(denoiser: Denoiser, recipe: Recipe, prompts: PromptSet) -> Estimate:
    """Time a few denoising steps of the model and scale them up to the recipe.

    Args:
        denoiser: the recipe's model.
        recipe: what is to be run.
        prompts: the recipe's prompts.

    Raises:
        UserError: the parameters that are to train are not in this model.
    """
    method, size = recipe.method, recipe.samples.image_size
    terms, edits = len(method.terms), method.closed_form
    if edits:
        memory = _held(denoiser)
    else:
        memory = memory_needed(denoiser, recipe.training, size, method.gradients, method.has_teacher)
    evaluation = _seconds_per_evaluation(denoiser, recipe, prompts)

    def image(spec: SampleSection) -> float:
        return evaluation * spec.num_inference_steps * (2 if spec.guidance_scale > 1 else 1)

    audited = 2 * sum(map(len, audit_prompts(prompts, recipe.audits, subject_of(resolve(recipe))).values()))
    targets = recipe.method.redirects + recipe.method.has_teacher  # predictions that are not differentiated
    per_step = (_BACKWARD * terms + targets) * recipe.training.batch_size * evaluation
    return Estimate(
        drawing=len(drawn_terms(recipe)) * len(prompts.train) * image(recipe.samples.for_training()),
        auditing=audited * image(recipe.samples),
        training=_seconds_of_reading(denoiser, prompts) if edits else per_step * recipe.training.steps,
        memory=memory,
        available=free_memory(denoiser.device),
    )


def memory_needed(
    denoiser: Denoiser,
    spec: TrainingSection,
    image_size: int | None = None,
    gradients: int = 2,
    teacher: bool = False,
) -> int:
    """Bytes on the device that unlearning with a loaded model takes.

    Args:
        denoiser: the model.
        spec: how it trains.
        image_size: side of the training images in pixels; None for the model's own.
        gradients: see `plan_network`.
        teacher: likewise.

    Raises:
        UserError: the parameters that are to train are not in this model.
    """
    module: Any = denoiser.module
    scale = getattr(denoiser.pipeline, "vae_scale_factor", 1)
    side = image_size // scale if image_size else None
    micro_batch = spec.batch_size // spec.gradient_accumulation_steps
    planned = plan_network(type(module), module.config, spec, micro_batch, side, gradients, teacher)
    held = _held(denoiser)
    if denoiser.device.type == "cuda":  # the other parts leave it while the model trains
        return max(held, planned.total)
    return held - _bytes(module) + planned.total


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available


def _held(denoiser: Denoiser) -> int:
    """Bytes on the device of all networks of a model, and on a CPU of what computes with them."""
    networks = [part for part in denoiser.pipeline.components.values() if isinstance(part, nn.Module)]
    return sum(map(_bytes, networks)) + (0 if denoiser.device.type == "cuda" else _RUNTIME)


def _seconds_of_reading(denoiser: Denoiser, prompts: PromptSet) -> float:
    """Seconds to embed the prompts, which is most of an edit in closed form."""
    texts = sorted({*prompts.forget_train, *prompts.anchor_train, *prompts.retain_train})
    probe = texts[:_PROBE_BATCH]
    began = time.perf_counter()
    denoiser.encode_prompts(probe)
    return (time.perf_counter() - began) / len(probe) * len(texts)


def _bytes(module: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters())


def _seconds_per_evaluation(denoiser: Denoiser, recipe: Recipe, prompts: PromptSet) -> float:
    """Seconds that the network takes for one sample of a batch."""
    texts = (prompts.retain_train * _PROBE_BATCH)[:_PROBE_BATCH]

    def draw(steps: int) -> float:
        sampling = Sampling(steps, 1.0, recipe.samples.scheduler, _PROBE_BATCH)
        began = time.perf_counter()
        denoiser.sample(texts, list(range(len(texts))), sampling, Silent(), "timing")
        return time.perf_counter() - began

    draw(1)  # the first pass pays for set-up
    return max(draw(1 + _PROBE_STEPS) - draw(1), 1e-6) / _PROBE_STEPS / len(texts)
