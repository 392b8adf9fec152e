"""ComfyUI's MODEL, CLIP and VAE become a diffusers pipeline; the change goes back to a MODEL.

The denoiser's weights are copied under diffusers' names, with every patch on the MODEL (such as a LoRA) worked
in. The CLIP itself embeds prompts and the VAE itself decodes pictures, under ComfyUI's own memory management.
The change goes back as a patch ("diff") on a clone of the MODEL, so nothing that came in is altered.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..pipeline.models import wrap_pipeline
from ..pipeline.support.errors import UserError
from ..pipeline.weights.layouts import denoiser_layout
from .bridge_pipelines import BRIDGES, make_pipeline, prediction_type
from .model import Model, Native

_PREFIX = "diffusion_model."
_TITLES = [bridge.title for bridge in BRIDGES]
_SUPPORTED = f"Model from ComfyUI takes {', '.join(_TITLES[:-1])} and {_TITLES[-1]} checkpoints."


def cross(patcher: Any, clip: Any, vae: Any, name: str, image_size: int) -> Model:
    """Take a MODEL over the bridge.

    Args:
        patcher: the MODEL.
        clip: the CLIP.
        vae: the VAE.
        name: the model's name in reports and files.
        image_size: side in pixels of the pictures that it draws.

    Raises:
        UserError: an architecture that the bridge doesn't support, or an image size that it can't draw.
    """
    network = _network(patcher, image_size)
    layout = denoiser_layout(network)
    shapes = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    weights: dict[str, Tensor] = {}
    for key, tensor in _patched_weights(patcher):
        if key not in layout:
            raise UserError(f"the MODEL has the weight {key!r}, for which its architecture has no place. {_SUPPORTED}")
        weights |= layout[key].to_diffusers(tensor, shapes)
    missing, _ = network.load_state_dict(weights, strict=False)
    if missing:
        raise UserError(f"the MODEL lacks the weights of {missing[0]!r} and {len(missing) - 1} more. {_SUPPORTED}")
    pipeline = make_pipeline(patcher, network.eval(), clip, vae)

    def patched(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> Any:
        difference = {key: after[key].float() - before[key].to(after[key].device, torch.float32) for key in before}
        patches = {
            _PREFIX + key: ("diff", (change,))
            for key, entry in layout.items()
            if (change := entry.to_original(difference)).any()
        }
        changed = patcher.clone()
        if len(changed.add_patches(patches)) != len(patches):
            raise UserError("the MODEL has changed: some unlearned weights have no place in it any more.")
        return changed

    return Model(wrap_pipeline(pipeline, name), native=Native(patcher, clip, vae, patched))


def _network(patcher: Any, image_size: int) -> nn.Module:
    """Build diffusers' network for the one that ComfyUI detected; its weights are still to be loaded.

    Raises:
        UserError: another architecture, or an image size that it can't draw.
    """
    model, found = patcher.model, patcher.model.model_config.unet_config
    bridge = next((bridge for bridge in BRIDGES if bridge.recognises(found)), None)
    if bridge is None:
        raise UserError(f"expected a Stable Diffusion MODEL, got {type(model).__name__}. {_SUPPORTED}")
    kind = prediction_type(patcher)
    if kind not in bridge.predicts:
        raise UserError(
            f"expected a {type(model).__name__} MODEL that predicts as it was trained, got one set to {kind}. Wire the "
            "MODEL as its loader gives it, without nodes such as ModelSamplingDiscrete. " + _SUPPORTED
        )
    if found["in_channels"] != found["out_channels"]:
        raise UserError(
            f"expected a text-to-image MODEL, got {type(model).__name__} with {found['in_channels']} input channels "
            f"(inpainting, depth or editing?). {_SUPPORTED}"
        )
    if image_size % 64:
        raise UserError(f"image_size must be a multiple of 64, got {image_size}.")
    largest = bridge.largest(found) if bridge.largest else image_size
    if image_size > largest:
        raise UserError(f"image_size must be at most {largest} for this {type(model).__name__}, got {image_size}.")
    return bridge.family.network(**bridge.config(found, image_size))


def _patched_weights(patcher: Any) -> Sequence[tuple[str, Tensor]]:
    import comfy.lora

    found = []
    with torch.no_grad():
        for key, (base, *patches) in patcher.get_key_patches(_PREFIX).items():
            weight, convert = base
            value = convert(weight.to("cpu", torch.float32, copy=True), inplace=True)
            value = comfy.lora.calculate_weight(patches, value, key)
            found.append((key.removeprefix(_PREFIX), value.clone()))
    return found
