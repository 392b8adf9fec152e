"""Weights in another number format or another place for a while, and back, bit for bit."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from diffusers import ModelMixin
from torch import Tensor, nn

from .protocol import Denoiser
from .stages import Stages

_HOOKS = ("group_offloading", "layer_execution_tracker", "lazy_prefetch_group_offloading")
"""diffusers' hooks of group offloading."""

_GROUPS: dict[str, dict[str, Any]] = {
    "group": {"offload_type": "block_level", "num_blocks_per_group": 1},
    "sequential": {"offload_type": "leaf_level"},
}
"""How diffusers offloads groups. Single layers go so, too: accelerate's hooks put other parameters in their place."""


def recast(module: nn.Module, dtype: torch.dtype, undo: ExitStack, aside: torch.device | None = None) -> bool:
    """Cast the floating-point weights and buffers of a network in place; parameters stay the same objects.

    Quantised weights stay as they are.

    Args:
        module: the network.
        dtype: the new number format.
        undo: puts the old tensors back when it is closed, on the device on which the network is then.
        aside: where they wait; None: where they are.

    Returns:
        Whether anything had another format.
    """
    kept, cast = kept_in_float32(module, dtype), False
    for table, key, each in tensors_of(module):
        if id(each) not in kept and _plain(each) and each.dtype != dtype:
            before, cast = each.data, True
            each.data = before.to(dtype, memory_format=_layout(before, dtype))
            undo.callback(_put_back, table, key, before if aside is None else before.to(aside))
    return cast


def tensors_of(module: nn.Module) -> Iterator[tuple[dict[str, Any], str, Tensor]]:
    """Every parameter and buffer with its place: to move a network replaces its buffers, and some parameters."""
    for part in module.modules():
        tables: tuple[dict[str, Any], ...] = (part._parameters, part._buffers)
        for table in tables:
            yield from ((table, key, value) for key, value in list(table.items()) if value is not None)


def kept_in_float32(network: nn.Module, dtype: torch.dtype) -> set[int]:
    """The ids of tensors that stay in float32 where the others are in `dtype`.

    These are the modules that their class names, as T5 does for float16, and tables that are in no file, as those of
    rotary embeddings.
    """
    if dtype not in (torch.float16, torch.bfloat16):
        return set()
    kept = {
        id(module._buffers[name])
        for module in network.modules()
        for name in module._non_persistent_buffers_set
        if module._buffers[name] is not None
    }
    words = {*(getattr(network, "_keep_in_fp32_modules_strict", None) or ())}
    if dtype == torch.float16 or isinstance(network, ModelMixin):
        words |= {*(getattr(network, "_keep_in_fp32_modules", None) or ())}
    return kept | {id(each) for name, each in network.named_parameters() if not words.isdisjoint(name.split("."))}


def _put_back(table: dict[str, Any], key: str, before: Tensor) -> None:
    """Let a tensor have its old numbers again, on the device on which it is."""
    table[key].data = before.to(table[key].device)


def _layout(tensor: Tensor, dtype: torch.dtype) -> torch.memory_format:
    """The order in memory that convolutions want: on CUDA in half precision the channels come last."""
    half = tensor.is_cuda and tensor.ndim == 4 and dtype != torch.float32
    return torch.channels_last if half else torch.preserve_format


def _plain(tensor: Tensor) -> bool:
    """Whether a tensor holds floating-point numbers itself; torchao's quantised ones only say so."""
    return tensor.is_floating_point() and not tensor.is_meta and not type(tensor.data).__module__.startswith("torchao")


@contextmanager
def tiled(vae: Any, wanted: bool) -> Iterator[None]:
    """An autoencoder that works in overlapping tiles while the block runs, if that is wanted and it can."""
    able = wanted and hasattr(vae, "use_tiling") and hasattr(vae, "enable_tiling")
    before = getattr(vae, "use_tiling", False)
    if able:
        vae.enable_tiling()
    try:
        yield
    finally:
        if able:
            vae.use_tiling = before


@contextmanager
def offloaded(pipeline: Any, stages: Stages) -> Iterator[None]:
    """A pipeline whose weights come to the device when they are wanted and leave it again, as diffusers has it.

    Afterwards every network is where it was.
    """
    if stages.offload == "none":
        yield
        return
    parts = [part for part in pipeline.components.values() if isinstance(part, nn.Module)]
    places = [device_of(part) for part in parts]
    try:
        if stages.offload == "model":
            pipeline.enable_model_cpu_offload(device=stages.device)
        else:
            pipeline.enable_group_offload(stages.device, **_GROUPS[stages.offload], use_stream=False)
        yield
    finally:
        pipeline.remove_all_hooks()
        for part, place in zip(parts, places, strict=True):
            for module in part.modules():
                registry: Any = getattr(module, "_diffusers_hook", None)
                for hook in () if registry is None else _HOOKS:
                    registry.remove_hook(hook, recurse=False)
            nn.Module.to(part, place)


def device_of(part: nn.Module) -> torch.device:
    """Where a network is, by its first weight."""
    return next((each.device for each in part.parameters()), torch.device("cpu"))


@contextmanager
def staged(denoiser: Denoiser, stages: Stages) -> Iterator[None]:
    """A model whose parts are in the number formats and places that a run wants; afterwards as they were.

    Whatever is rounded waits on the CPU meanwhile. A model that was loaded so already stays untouched.
    """
    if denoiser.stages == stages:
        yield
        return
    parts = {name: part for name, part in denoiser.pipeline.components.items() if isinstance(part, nn.Module)}
    with ExitStack() as undo:
        undo.callback(setattr, denoiser, "stages", denoiser.stages)
        undo.callback(setattr, denoiser, "source", denoiser.source)
        for name, part in parts.items():
            undo.callback(nn.Module.to, part, device_of(part))
            if name != denoiser.component:
                dtype = stages.dtype_of(name, denoiser.component, torch.float32)
                if recast(part, dtype, undo, stages.aside):
                    denoiser.source = None  # its files can't give back what waits
            nn.Module.to(part, stages.rest)
        denoiser.stages = stages
        try:
            yield
        finally:
            denoiser.restore()


@contextmanager
def on_device(denoiser: Denoiser) -> Iterator[None]:
    """The network on the device for as long as it trains, wherever it waits otherwise."""
    before = device_of(denoiser.module)
    denoiser.module.to(denoiser.device)
    try:
        yield
    finally:
        denoiser.module.to(before)


@contextmanager
def fast_matmul(device: torch.device) -> Iterator[None]:
    """Products of float32 matrices in TF32 on CUDA while the block runs: several times faster, with 10 bits a factor.

    It is for passes through a network; what is solved or compared outside of them keeps all its bits.
    """
    if device.type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
