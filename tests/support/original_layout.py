"""Tiny checkpoints in the original (LDM, MMDiT, Flux) layout, out of diffusers' modules, for tests alone."""

import re

import torch

RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
          "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}  # fmt: skip
UNET = {"conv_in": "input_blocks.0.0", "time_embedding.linear_1": "time_embed.0", "conv_norm_out": "out.0",
        "time_embedding.linear_2": "time_embed.2", "conv_out": "out.2", "mid_block.resnets.0": "middle_block.0",
        "mid_block.attentions.0": "middle_block.1", "mid_block.resnets.1": "middle_block.2",
        "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2"}  # fmt: skip


def unet_keys(state, levels=2, per_level=1):
    """LDM names of a UNet's tensors; LDM numbers resnets and samplers of all levels through."""
    names, down, up = dict(UNET), 1, 0
    for level in range(levels):
        for layer in range(per_level):
            names[f"down_blocks.{level}.resnets.{layer}"] = f"input_blocks.{down}.0"
            names[f"down_blocks.{level}.attentions.{layer}"] = f"input_blocks.{down}.1"
            down += 1
        names[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{down}.0.op"
        down += level < levels - 1
        for layer in range(per_level + 1):
            names[f"up_blocks.{level}.resnets.{layer}"] = f"output_blocks.{up}.0"
            names[f"up_blocks.{level}.attentions.{layer}"] = f"output_blocks.{up}.1"
            place = 2 if f"up_blocks.{level}.attentions.0.norm.weight" in state else 1
            names[f"up_blocks.{level}.upsamplers.0.conv"] = f"output_blocks.{up}.{place}.conv"
            up += 1
    out = {}
    for key, value in state.items():
        block = max((name for name in names if key.startswith(name + ".")), key=len)
        rest = key.removeprefix(block + ".")
        if "resnets" in block:
            part, _, tail = rest.partition(".")
            rest = f"{RESNET[part]}.{tail}"
        out[f"{names[block]}.{rest}"] = value
    return out


def vae_keys(state, levels=2):
    """LDM names of an AutoencoderKL's tensors; its attention weights were 1x1 convolutions."""
    attention = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
    out = {}
    for key, value in state.items():
        new = key.replace("mid_block.resnets.0", "mid.block_1").replace("mid_block.resnets.1", "mid.block_2")
        new = new.replace("mid_block.attentions.0", "mid.attn_1").replace("conv_norm_out", "norm_out")
        if "attn_1" in new:
            old = next(name for name in attention if f"attn_1.{name}." in new)
            new = new.replace(f"attn_1.{old}.", f"attn_1.{attention[old]}.")
            value = value if old == "group_norm" or value.ndim == 1 else value[..., None, None]
        new = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", new)
        new = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", new)
        new = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{levels - 1 - int(m[1])}.block.{m[2]}", new)
        new = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", new)
        out[new.replace("conv_shortcut", "nin_shortcut")] = value
    return out


def with_prefix(prefix, state):
    return {prefix + key: value.contiguous() for key, value in state.items()}


def stable_diffusion(pipe, *parts):
    """A complete SD 1.x checkpoint, or some parts of it."""
    text = {key if key.startswith("text_model.") else f"text_model.{key}": value
            for key, value in pipe.text_encoder.state_dict().items()}  # fmt: skip
    whole = {
        "unet": with_prefix("model.diffusion_model.", unet_keys(pipe.unet.state_dict())),
        "vae": with_prefix("first_stage_model.", vae_keys(pipe.vae.state_dict())),
        "text_encoder": with_prefix("cond_stage_model.transformer.", text),
    }
    return {key: value for part in parts or whole for key, value in whole[part].items()}


def stable_diffusion_xl(pipe):
    """A complete SDXL checkpoint: the second text encoder is open_clip's, with fused attention."""
    first = {f"text_model.{key.removeprefix('text_model.')}": value
             for key, value in pipe.text_encoder.state_dict().items()}  # fmt: skip
    second, source = {}, pipe.text_encoder_2.state_dict()
    source = {key.removeprefix("text_model."): value for key, value in source.items()}
    second["token_embedding.weight"] = source["embeddings.token_embedding.weight"]
    second["positional_embedding"] = source["embeddings.position_embedding.weight"]
    second["text_projection"] = source["text_projection.weight"].T
    names = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
             "self_attn.out_proj": "attn.out_proj"}  # fmt: skip
    for kind in ("weight", "bias"):
        second[f"ln_final.{kind}"] = source[f"final_layer_norm.{kind}"]
        for layer in range(pipe.text_encoder_2.config.num_hidden_layers):
            place, old = f"transformer.resblocks.{layer}", f"encoder.layers.{layer}"
            for theirs, ours in names.items():
                second[f"{place}.{ours}.{kind}"] = source[f"{old}.{theirs}.{kind}"]
            fused = [source[f"{old}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
            second[f"{place}.attn.in_proj_{kind}"] = torch.cat(fused)
    return (
        with_prefix("model.diffusion_model.", unet_keys(pipe.unet.state_dict(), levels=3, per_level=2))
        | with_prefix("first_stage_model.", vae_keys(pipe.vae.state_dict()))
        | with_prefix("conditioner.embedders.0.transformer.", first)
        | with_prefix("conditioner.embedders.1.model.", second)
    )
