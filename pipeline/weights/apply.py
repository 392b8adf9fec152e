"""Putting unlearned weights into a pipeline that somebody already has, and taking them out again."""

import math
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from diffusers import ModelMixin
from torch import Tensor, nn

from ..models.entry import has_fused_attention, uncompiled
from ..models.lineage import COMPONENTS
from ..support.errors import Caution, UserError, given
from ..support.numbers import finite
from ..support.places import user_path
from .change import Change, check_fit
from .provenance import BaseHashes, Kinship, check_tensors, kinship, read_header
from .read import read_changes
from .rest import FORTH, put_rest, read_rest

_ORIGINALS: "WeakKeyDictionary[nn.Module, dict[str, Tensor]]" = WeakKeyDictionary()
"""Network -> what its changed tensors were, on the CPU."""


@torch.no_grad()
def apply(pipe: Any, path: str | Path, strength: float = 1.0, *, any_base: bool = False) -> Any:
    """Put the weights of a denoiser, LoRA or delta file into a diffusers pipeline, in place.

    Several files may be applied one after another; their changes add up. The pipeline must have the weights that
    the file was made from, or their float16 or bfloat16 copy; and a file made from such a copy goes onto the
    original. A float32 delta at strength 1, alone on its base, gives the unlearned weights bit for bit. A pipeline is
    left as it was where anything is refused.

    Args:
        pipe: a pipeline with a `unet` or `transformer`.
        path: a .safetensors file of the formats denoiser, lora, lora_diffusers or delta.
        strength: 0 = as it was, 1 = as unlearned; between and beyond, any finite number, the change is scaled.
        any_base: go on, with a warning, if the file was not made from this pipeline's weights.

    Returns:
        The same pipeline.

    Raises:
        UserError: another base, another network, a file that is none of these, a strength that is no finite number,
            or values that are not finite, in the file or in the result.

    Example:
        >>> pipe = apply(pipe, "weights/sd-without-cat-lora.safetensors", strength=0.8)  # doctest: +SKIP
        >>> pipe = remove(pipe)  # doctest: +SKIP
    """
    strength = finite("strength", strength)
    if not isinstance(path, str | Path):
        raise UserError(f"expected the path of a .safetensors file, got {given(path)}.")
    module, path = denoiser_of(pipe), user_path(path)
    originals = _ORIGINALS.get(module, {})
    kin, doubt, remedy = _kin(module, originals, path)
    if doubt and not any_base:
        raise UserError(f"{doubt}. {remedy}, or go on all the same with any_base=True (--any-base).")
    exact = kin == "same" and strength == 1 and not originals
    change(module, read_changes(path, module), strength, read_rest(path, FORTH) if exact else None)
    if doubt:
        warnings.warn(f"{doubt}; applied all the same.", Caution, stacklevel=3)
    return pipe


@torch.no_grad()
def change(
    module: nn.Module, changes: Iterable[Change], strength: float, rest: Mapping[str, Tensor] | None = None
) -> None:
    """Put changes into a network, whole or not at all; `remove` undoes them.

    Args:
        module: the network.
        changes: of its tensors.
        strength: -1 takes them back.
        rest: values that are put there afterwards, see `put_rest`.

    Raises:
        UserError: a result that is no number, or too large for the network's number format; see also `read_changes`.
    """
    originals = _ORIGINALS.get(module, {})
    state = module.state_dict()
    replaced: dict[str, Tensor] = {}
    try:
        for each in changes:
            current = state[each.name]
            if each.name not in replaced:
                replaced[each.name] = current.to("cpu", copy=True)
            original = originals.get(each.name, replaced[each.name])
            result = each.apply(current, original, strength)
            limit = torch.finfo(current.dtype).max if current.is_floating_point() else math.inf
            if not (result.abs() <= limit).all():  # NaN is not, either
                raise UserError(
                    f"{each.name}: at strength {strength:g} its values become NaN or too large for {current.dtype}. "
                    "Take a lower strength, or a model in float32."
                )
            current.copy_(result)
        put_rest(state, rest or {})
    except BaseException:
        for name, tensor in replaced.items():
            state[name].copy_(tensor)
        raise
    _ORIGINALS[module] = {**replaced, **originals}


@torch.no_grad()
def remove(pipe: Any) -> Any:
    """Undo every `apply` and `undo`, bit for bit; gives the same pipeline.

    Raises:
        UserError: nothing was applied.
    """
    module = denoiser_of(pipe)
    if module not in _ORIGINALS:
        raise UserError("nothing to remove: no weights were applied to this pipeline with turpentine.apply.")
    state = module.state_dict()
    for name, tensor in _ORIGINALS.pop(module).items():
        state[name].copy_(tensor)
    return pipe


_USE_THE_BASE = "Use that base"


def denoiser_of(pipe: Any) -> nn.Module:
    """The UNet or transformer of a diffusers pipeline, itself where it was compiled.

    Raises:
        UserError: it has none, or its weights are not there, not numbers that can be added to, or not those that draw.
    """
    for component in COMPONENTS:
        module = getattr(pipe, component, None)
        if isinstance(module, nn.Module):
            original: nn.Module = uncompiled(module)
            _check_state(component, original)
            _check_weights(component, original)
            return original
    raise UserError(f"expected a diffusers pipeline with a unet or a transformer, got {type(pipe).__name__}.")


def _check_state(component: str, module: nn.Module) -> None:
    """Refuse a network whose weights have other names, or have copies that draw in their place."""
    if not isinstance(module, ModelMixin):
        raise UserError(f"expected the pipeline's {component} itself, got it in a {type(module).__name__}.")
    if getattr(module, "peft_config", None):
        raise UserError(
            f"the pipeline's {component} carries LoRA adapters. Call pipe.unload_lora_weights() first, and load them "
            "again afterwards."
        )
    if has_fused_attention(module):
        raise UserError(
            f"the attention of the pipeline's {component} is fused (fuse_qkv_projections). Load the pipeline again, "
            "and fuse it afterwards."
        )


def _check_weights(component: str, module: nn.Module) -> None:
    for name, tensor in module.named_parameters():
        if tensor.is_meta:
            raise UserError(
                f"the weights of the pipeline's {component} are not in its memory. Apply first, and then offload it "
                "(enable_sequential_cpu_offload)."
            )
        if not tensor.is_floating_point():
            raise UserError(f"the pipeline's {component} is quantised ({name} is {tensor.dtype}): expected floats.")


def holds_applied(module: nn.Module, base: BaseHashes) -> bool:
    """Tell whether weights that were made from a base were put onto a network that had it."""
    originals = _ORIGINALS.get(module)
    return originals is not None and kinship(base, {**module.state_dict(), **originals}) is not None


def _kin(module: nn.Module, originals: dict[str, Tensor], path: Path) -> tuple[Kinship | None, str, str]:
    """What a network was to the base of a file before anything was applied; or why it is nothing, and what to do.

    Raises:
        UserError: a file for another network.
    """
    metadata = read_header(path)
    base = BaseHashes.from_header(metadata)
    if check_tensors(path) is False:
        return None, f"the tensors of {path} are not those that its header was written for", "Get the file again"
    kin = kinship(base, {**module.state_dict(), **originals})
    if kin:
        return kin, "", ""
    check_fit(read_changes(path, module), module, str(path))  # else going on all the same would not help
    if not base.sha256:
        return None, f"{path} does not say which weights it was made from", _USE_THE_BASE
    made_from = metadata.get("turpentine.base_model")
    return None, f"{path} was made from other weights ({made_from!r}) than this pipeline has", _USE_THE_BASE
