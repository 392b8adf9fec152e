"""A user's own pipeline on entry and on exit.

The rule: the state in which a pipeline comes is respected or refused in one line, before anything is drawn or
written. Number formats, `torch.compile`, modes and frozen weights are what the run's `Stages` want, and as they came
after it;
LoRA adapters are worked in as far as they are switched on; whatever else would be lost or would break the run
(offloading, quantised networks, IP-Adapters, a component that is missing) is refused by its name.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..support.errors import UserError
from .family import Family, tokenizer_of
from .peft_layers import fuse_adapters
from .placing import device_of, kept_in_float32, tensors_of
from .stages import Stages

_PLAIN = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_QUANTISED = re.compile(r"quant|bitsandbytes|torchao")
"""In the modules that the layers of quantised networks come from."""
_AUTOCAST = ("cpu", "cuda", "mps", "xpu")


@contextmanager
def calm() -> Iterator[None]:
    """Torch as the work expects it, whatever the caller has switched on; afterwards it is as it was.

    Gradients are allowed and tensors are normal ones (no `no_grad`, no `inference_mode`), no autocast is active, new
    tensors are float32 and on the CPU unless they say otherwise.
    """
    default = torch.get_default_dtype()
    with ExitStack() as modes:
        modes.enter_context(torch.inference_mode(False))
        modes.enter_context(torch.enable_grad())
        for device in _AUTOCAST:
            if torch.is_autocast_enabled(device):
                modes.enter_context(torch.autocast(device, enabled=False))
        if torch.get_default_device().type != "cpu":
            modes.enter_context(torch.device("cpu"))
        modes.callback(torch.set_default_dtype, default)
        torch.set_default_dtype(torch.float32)
        yield


def networks_of(pipeline: Any) -> dict[str, nn.Module]:
    """The components of a pipeline that hold weights, by name."""
    return {name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)}


def embeds_itself(pipeline: Any) -> bool:
    """Tell whether a pipeline's class brings its own way to embed prompts, as ComfyUI's bridge does."""
    embedding = getattr(pipeline, "encode_prompt", None)
    return embedding is not None and not embedding.__module__.startswith("diffusers.")


def uncompiled(module: Any) -> Any:
    """The network in what `torch.compile` gives for one; any other module is it itself."""
    return getattr(module, "_orig_mod", module)


def has_fused_attention(network: nn.Module) -> bool:
    """Tell whether copies of a network's weights draw instead of them, as `fuse_qkv_projections` makes."""
    return any(getattr(module, "fused_projections", False) for module in network.modules())


def check_state(pipeline: Any, family: type[Family]) -> None:
    """Refuse a pipeline that can't be trained as it is; looks only, and changes nothing.

    Raises:
        UserError: what is in the way, and how to take it away.
    """
    _check_components(pipeline, family)
    parts = networks_of(pipeline)
    _check_hooks(pipeline, parts)
    for name, part in parts.items():
        _check_weights(name, part)
    _check_network(family.component, parts[family.component], family)
    _check_tokenizers(pipeline, family)
    devices = {name: parameter.device for name, part in parts.items() for parameter in part.parameters()}
    if len({*devices.values()}) > 1:
        where = ", ".join(f"{name} on {device}" for name, device in devices.items())
        first = str(devices[family.component])
        raise UserError(f"expected all networks on one device, got {where}. Call pipe.to({first!r}) first.")


@contextmanager
def undone_on_error(undo: ExitStack) -> Iterator[None]:
    """Undo what was done so far if the block fails."""
    try:
        yield
    except BaseException:
        undo.close()
        raise


def make_trainable(pipeline: Any, component: str, stages: Stages) -> tuple[tuple[str, ...], ExitStack]:
    """Bring a pipeline that `check_state` let through into the one state in which everything works.

    All networks are in the number formats of `stages`, in evaluation mode and not compiled. LoRA adapters are fused as
    far as they are switched on, and all of them are taken off.

    Args:
        pipeline: the user's own.
        component: name of the network that is unlearned.
        stages: what each part is held in.

    Returns:
        What the user should know, and what puts the pipeline back as it came when it is closed: its dtypes, compiled
        modules, modes and frozen weights, but for the weights that changed meanwhile and the adapters.
    """
    undo = ExitStack()
    with undone_on_error(undo):
        warnings = _without_compilation(pipeline, undo)
        parts = networks_of(pipeline)
        came = {}
        for name, part in parts.items():
            came[name] = _in_format(part, partial(stages.dtype_of, name, component), undo, stages.aside)
        for part in parts.values():
            _in_evaluation(part, undo)
        _normal_scheduler(pipeline)
        warnings += fuse_adapters(pipeline, parts)
        for part in parts.values():
            undo.callback(nn.Module.to, part, device_of(part))
            nn.Module.to(part, stages.rest)
        quiet = getattr(pipeline, "_progress_bar_config", {})
        undo.callback(setattr, pipeline, "_progress_bar_config", quiet)
    changes = dict.fromkeys(change for change in came.values() if change[0] != change[1])
    for own, now in changes:
        names = ", ".join(name for name, change in came.items() if change == (own, now))
        warnings.append(f"the pipeline came in {_word(own)} ({names}); the run takes it to {_word(now)}.")
    if changes and len({own for own, _ in came.values()}) > 1:
        warnings.append(
            "the parts of the pipeline have different dtypes, so it can't draw by itself, before or after the run. "
            "Give from_pretrained a dtype, for example dtype=torch.float32."
        )
    return tuple(warnings), undo


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


# what is refused -----------------------------------------------------------------------------------


def _check_components(pipeline: Any, family: type[Family]) -> None:
    if pipeline.config.get("requires_aesthetics_score"):
        raise UserError(
            "this is an SDXL refiner, which goes on from pictures that another model has begun. Unlearn the base model."
        )
    held = {name for name, part in pipeline.components.items() if part is not None}
    lacking = [name for name in family.needs(held) if name not in held]
    if embeds_itself(pipeline):
        lacking = [name for name in lacking if name not in family.text_encoders and "tokenizer" not in name]
    if lacking:
        raise UserError(
            f"expected a whole {type(pipeline).__name__}, and it has no {' and no '.join(lacking)}. Load the pipeline "
            "with all its components: prompts are embedded and images are coded in the run."
        )


def _check_hooks(pipeline: Any, parts: dict[str, nn.Module]) -> None:
    """Offloading and caches: they move or replace what the run trains."""
    if getattr(pipeline, "hf_device_map", None) is not None:
        raise UserError(
            "expected a pipeline on one device, got one with a device_map. Call pipe.reset_device_map() and then "
            "pipe.to(device) first."
        )
    for name, part in parts.items():
        for module in part.modules():
            if hasattr(module, "_hf_hook"):
                raise UserError(
                    f"the {name} is offloaded (enable_model_cpu_offload or enable_sequential_cpu_offload). Call "
                    "pipe.remove_all_hooks() first, then pipe.to(device) or unlearn(pipe, …, offload='model')."
                )
            registry = getattr(module, "_diffusers_hook", None)
            if registry is not None and registry.hooks:
                kinds = ", ".join(sorted(registry.hooks))
                raise UserError(
                    f"the {name} carries hooks of diffusers ({kinds}), which come with enable_group_offload, caches "
                    "or layerwise casting. Load the pipeline again without them; unlearn(pipe, …, offload='group') "
                    "has its own."
                )
        if next((True for each in part.parameters() if each.is_meta), False):
            raise UserError(
                f"the weights of the {name} are not in memory (device 'meta'). Load the pipeline with its weights, "
                "without offloading, and put it on one device."
            )


def _check_weights(name: str, part: nn.Module) -> None:
    """Quantised and wrapped networks can't be trained or written; NaN gives black pictures."""
    method = getattr(part, "quantization_method", None)
    kinds = {
        type(each.data).__name__ if type(each.data) is not Tensor else str(each.dtype).removeprefix("torch.")
        for each in part.parameters()
        if type(each.data) is not Tensor or each.dtype not in _PLAIN
    }
    kinds |= {type(each).__name__ for each in part.modules() if _QUANTISED.search(type(each).__module__)}
    if method or kinds:
        found = str(getattr(method, "value", method)) if method else " and ".join(sorted(kinds))
        raise UserError(
            f"the {name} is quantised or sharded ({found}), and a run needs whole weights. Load it in float32, float16 "
            "or bfloat16, without a quantization_config; base_precision='nf4' quantises what a LoRA trains beside."
        )
    if hasattr(part, "merge_and_unload"):
        raise UserError(
            f"the {name} is wrapped in a {type(part).__name__} of peft. Set it to pipe.{name}.merge_and_unload() first."
        )
    bad = next((key for key, each in part.named_parameters() if not _finite(each)), None)
    if bad is not None:
        raise UserError(
            f"the weights of the {name} hold values that are not a number (NaN) or infinite, for example in {bad}: the "
            "file is damaged, or its training failed. Load another copy."
        )


@torch.no_grad()
def _finite(values: Tensor) -> bool:
    """Tell whether all values are numbers, without a tensor of the same size."""
    return values.numel() == 0 or all(bool(end.isfinite()) for end in torch.aminmax(values.detach()))


def _check_network(name: str, network: Any, family: type[Family]) -> None:
    network = uncompiled(network)
    if not family.owns(network):
        raise UserError(
            f"expected a {family.network.__name__} of the family {family.family} as the {name}, got "
            f"{type(network).__name__}{' of another' * isinstance(network, family.network)}. Give the network itself, "
            "without a wrapper."
        )
    if has_fused_attention(network):
        raise UserError(
            f"the attention of the {name} is fused (fuse_qkv_projections): it would train copies of the weights. Load "
            "the pipeline again without it."
        )
    if any("IPAdapter" in type(each).__name__ for each in getattr(network, "attn_processors", {}).values()):
        raise UserError(
            "the pipeline has an IP-Adapter, which wants a picture beside every prompt. Call pipe.unload_ip_adapter() "
            "first."
        )


def _check_tokenizers(pipeline: Any, family: type[Family]) -> None:
    """A tokenizer must go with its encoder: others end in an IndexError or an OverflowError."""
    for name in family.text_encoders:
        encoder, tokenizer = getattr(pipeline, name, None), getattr(pipeline, tokenizer_of(name), None)
        if encoder is None or tokenizer is None:
            continue
        rows, words = encoder.get_input_embeddings().num_embeddings, len(tokenizer)
        if words > rows:
            raise UserError(
                f"the {tokenizer_of(name)} has {words} tokens and the {name} knows {rows}: they are not of one model."
            )
        places = getattr(encoder.config, "max_position_embeddings", None)
        if places is not None and tokenizer.model_max_length > places:
            said = "says no length" if tokenizer.model_max_length > 2**31 else f"says {tokenizer.model_max_length}"
            raise UserError(
                f"the {name} reads {places} tokens, and its {tokenizer_of(name)} {said}: model_max_length in "
                f"{tokenizer_of(name)}/tokenizer_config.json is wrong or missing."
            )


# what is undone for the run ------------------------------------------------------------------------


def _without_compilation(pipeline: Any, undo: ExitStack) -> list[str]:
    """Take `torch.compile` off components and what is inside them, however it was put on."""
    compiled = set()
    for name, part in networks_of(pipeline).items():
        if uncompiled(part) is not part:
            compiled.add(name)
            undo.callback(setattr, pipeline, name, part)
            part = uncompiled(part)
            setattr(pipeline, name, part)
        for module in list(part.modules()):
            for key, child in module._modules.items():
                if uncompiled(child) is not child:
                    compiled.add(name)
                    undo.callback(module._modules.__setitem__, key, child)
                    module._modules[key] = uncompiled(child)
        for module in part.modules():
            if module._compiled_call_impl is not None:
                compiled.add(name)
                undo.callback(setattr, module, "_compiled_call_impl", module._compiled_call_impl)
                module._compiled_call_impl = None
            for key, function in list(vars(module).items()):  # module.forward = torch.compile(module.forward)
                if hasattr(function, "_torchdynamo_orig_callable"):
                    compiled.add(name)
                    undo.callback(setattr, module, key, function)
                    delattr(module, key)
    if not compiled:
        return []
    return [f"torch.compile was put on {' and '.join(sorted(compiled))}; the run works without it."]


def _in_evaluation(part: nn.Module, undo: ExitStack) -> None:
    training = [module for module in part.modules() if module.training]
    wants = [(parameter, parameter.requires_grad) for parameter in part.parameters()]

    def as_it_came() -> None:
        for module in training:
            module.training = True
        for parameter, wanted in wants:
            parameter.requires_grad_(wanted)

    undo.callback(as_it_came)
    part.eval()


def _in_format(
    part: nn.Module, wanted: Callable[[torch.dtype], torch.dtype], undo: ExitStack, aside: torch.device
) -> tuple[torch.dtype, torch.dtype]:
    """Take weights and buffers to a number format and out of inference mode; gives the format they came in, and it.

    What is rounded waits as it was; what is not is cast back, so that weights which trained meanwhile keep that.
    """
    taken: dict[int, Tensor] = {}  # tied weights stay tied
    others: list[tuple[dict[str, Any], str, torch.dtype, Tensor | None]] = []
    formats = [(torch.float32, torch.float32)]
    kept = kept_in_float32(part, wanted(torch.float32))

    def new(value: Tensor) -> torch.dtype:
        return torch.float32 if id(value) in kept else wanted(value.dtype)

    for places, key, value in tensors_of(part):
        if value.is_floating_point() and value.dtype != torch.float32:
            formats.append((value.dtype, new(value)))
        if value.is_floating_point() and value.dtype != new(value):
            rounds = new(value) in (torch.float16, torch.bfloat16)
            others.append((places, key, value.dtype, value.detach().to(aside, copy=True) if rounds else None))
        places[key] = taken.setdefault(id(value), _normal(value, new(value)))

    def as_it_came() -> None:
        for places, key, dtype, before in others:
            if (now := places.get(key)) is not None:
                now.data = now.data.to(dtype) if before is None else before.to(now.device)

    undo.callback(as_it_came)
    return formats[1] if len(formats) > 1 else formats[0]


def _normal(value: Tensor, dtype: torch.dtype) -> Any:
    """The same tensor, now in the format that is wanted and without a gradient; a copy if made in inference mode."""
    if value.is_inference():
        copy = value.detach().clone()
        value = nn.Parameter(copy, value.requires_grad) if isinstance(value, nn.Parameter) else copy
    value.grad = None
    if value.is_floating_point():
        value.data = value.data.to(dtype)
    return value


def _normal_scheduler(pipeline: Any) -> None:
    """Take the scheduler's tables out of inference mode: nothing can be differentiated through such tensors."""
    for key, value in list(vars(pipeline.scheduler).items()):
        if isinstance(value, Tensor) and value.is_inference():
            setattr(pipeline.scheduler, key, value.clone())
