"""Denoiser networks by their configuration alone: no weights, no memory.

For planning: which network a model has, built on storage-free ("fake") tensors, and example inputs
of the shapes that training gives it.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxTransformer2DModel, SD3Transformer2DModel, UNet2DConditionModel
from torch import Tensor, nn

from ..support.errors import UserError

_SDXL: dict[str, Any] = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}

KNOWN: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "sd14": (UNet2DConditionModel, {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}),
    "sd21": (
        UNet2DConditionModel,
        {
            "sample_size": 96,
            "cross_attention_dim": 1024,
            "attention_head_dim": (5, 10, 20, 20),
            "use_linear_projection": True,
        },
    ),
    "sdxl": (UNet2DConditionModel, _SDXL),
    "sd3-medium": (
        SD3Transformer2DModel,
        {
            "sample_size": 128,
            "num_layers": 24,
            "num_attention_heads": 24,
            "caption_projection_dim": 1536,
            "pos_embed_max_size": 192,
        },
    ),
    "flux-dev": (FluxTransformer2DModel, {"guidance_embeds": True}),
}
"""Public models by a short name: (class, the fields of their configuration that differ from the class's defaults)."""


def find_architecture(model: str) -> tuple[type[nn.Module], dict[str, Any]]:
    """The denoiser's class and configuration: of a known name, or read from a diffusers folder.

    Raises:
        UserError: neither, or a class that is not planned for.
    """
    if model in KNOWN:
        return KNOWN[model]
    folder = Path(model)
    for part in ("unet", "transformer"):
        path = folder / part / "config.json"
        if path.is_file():
            config = json.loads(path.read_text(encoding="utf-8"))
            classes = {kind.__name__: kind for kind in _INPUTS}
            name = config.get("_class_name")
            if name not in classes:
                raise UserError(f"expected a denoiser of one of {sorted(classes)}, got {name} in {path}.")
            return classes[name], {key: value for key, value in config.items() if not key.startswith("_")}
    raise UserError(f"expected one of {sorted(KNOWN)} or a diffusers folder, got {model!r}.")


def build_network(kind: type[nn.Module], config: dict[str, Any]) -> nn.Module:
    """The network with meaningless weights, on whatever device or fake mode is active."""
    return kind.from_config(config)  # type: ignore[attr-defined, no-any-return]


def example_inputs(network: nn.Module, batch_size: int, side: int | None = None) -> dict[str, Any]:
    """Arguments of `network.forward` in training.

    Args:
        network: as `build_network` gives it.
        batch_size: B.
        side: height and width of the latents; None for what the model was trained at.
    """
    for kind, make in _INPUTS.items():
        if isinstance(network, kind):
            return make(network.config, batch_size, side)
    raise UserError(f"expected one of {sorted(kind.__name__ for kind in _INPUTS)}, got {type(network).__name__}.")


def _unet(config: Any, batch: int, side: int | None) -> dict[str, Any]:
    side = side or config.sample_size
    inputs: dict[str, Any] = {
        "sample": torch.zeros(batch, config.in_channels, side, side),
        "timestep": torch.zeros(batch, dtype=torch.long),
        "encoder_hidden_states": torch.zeros(batch, 77, config.cross_attention_dim),
    }
    if config.addition_embed_type == "text_time":
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        inputs["added_cond_kwargs"] = {"text_embeds": torch.zeros(batch, pooled), "time_ids": torch.zeros(batch, 6)}
    return inputs


def _sd3(config: Any, batch: int, side: int | None) -> dict[str, Any]:
    side = side or config.sample_size
    return {
        "hidden_states": torch.zeros(batch, config.in_channels, side, side),
        "timestep": torch.zeros(batch),
        "encoder_hidden_states": torch.zeros(batch, 77 + 256, config.joint_attention_dim),
        "pooled_projections": torch.zeros(batch, config.pooled_projection_dim),
    }


def _flux(config: Any, batch: int, side: int | None) -> dict[str, Any]:
    tokens = ((side or 128) // 2) ** 2
    return {
        "hidden_states": torch.zeros(batch, tokens, config.in_channels),
        "timestep": torch.zeros(batch),
        "encoder_hidden_states": torch.zeros(batch, 512, config.joint_attention_dim),
        "pooled_projections": torch.zeros(batch, config.pooled_projection_dim),
        "img_ids": torch.zeros(tokens, 3),
        "txt_ids": torch.zeros(512, 3),
        "guidance": torch.zeros(batch) if config.guidance_embeds else None,
    }


_INPUTS: dict[type[nn.Module], Callable[[Any, int, int | None], dict[str, Any]]] = {
    UNet2DConditionModel: _unet,
    SD3Transformer2DModel: _sd3,
    FluxTransformer2DModel: _flux,
}


def saved_bytes(network: nn.Module, inputs: dict[str, Any]) -> int:
    """Bytes that a forward pass keeps for its backward pass, beyond the network's own weights.

    Every storage that autograd saves is counted once. What the kernels need besides while they run
    is not.
    """
    own = {p.untyped_storage()._cdata for p in network.parameters()}
    kept: dict[int, Any] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage  # held, so that no later storage can take its address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network(**inputs, return_dict=False)
    return sum(storage.nbytes() for storage in kept.values())
