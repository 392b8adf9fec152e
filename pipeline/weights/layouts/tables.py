"""The tables of each network: diffusers names beside those of the checkpoints it was published in.

The original layouts are those of CompVis's latent-diffusion (Stable Diffusion 1 and 2), Stability AI's
generative-models (SDXL) and sd3-ref (MMDiT), Black Forest Labs' flux and open_clip; how they relate to
diffusers was read from the loaders of diffusers 0.42 (`loaders/single_file_utils.py`).
"""

from collections.abc import Iterator, Sequence

from .table import Row

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def unet_rows(layers_per_block: Sequence[int], attention_up: Sequence[bool]) -> Iterator[Row]:
    """Stable Diffusion 1, 2 and XL.

    Args:
        layers_per_block: residual blocks of each level, from the outside in.
        attention_up: whether each level on the way up has attention, from the inside out.
    """
    yield from (
        ("conv_in.%", "input_blocks.0.0.%"),
        ("time_embedding.linear_1.%", "time_embed.0.%"),
        ("time_embedding.linear_2.%", "time_embed.2.%"),
        ("add_embedding.linear_1.%", "label_emb.0.0.%"),
        ("add_embedding.linear_2.%", "label_emb.0.2.%"),
        ("conv_norm_out.%", "out.0.%"),
        ("conv_out.%", "out.2.%"),
        ("mid_block.attentions.0.**", "middle_block.1.**"),
    )
    resnets = {"mid_block.resnets.0": "middle_block.0", "mid_block.resnets.1": "middle_block.2"}
    place = 1
    for level, layers in enumerate(layers_per_block):
        for layer in range(layers):
            resnets[f"down_blocks.{level}.resnets.{layer}"] = f"input_blocks.{place}.0"
            yield f"down_blocks.{level}.attentions.{layer}.**", f"input_blocks.{place}.1.**"
            place += 1
        yield f"down_blocks.{level}.downsamplers.0.conv.%", f"input_blocks.{place}.0.op.%"
        place += 1
    place = 0
    for level, layers in enumerate(reversed(layers_per_block)):
        for layer in range(layers + 1):
            resnets[f"up_blocks.{level}.resnets.{layer}"] = f"output_blocks.{place}.0"
            yield f"up_blocks.{level}.attentions.{layer}.**", f"output_blocks.{place}.1.**"
            place += 1
        after = 2 if attention_up[level] else 1
        yield f"up_blocks.{level}.upsamplers.0.conv.%", f"output_blocks.{place - 1}.{after}.conv.%"
    for block, original in resnets.items():
        for part, name in _RESNET.items():
            yield f"{block}.{part}.%", f"{original}.{name}.%"


def vae_rows(levels: int) -> Iterator[Row]:
    """The autoencoder with a Kullback-Leibler term that all of these models have.

    Args:
        levels: number of resolutions.
    """
    for part in ("encoder", "decoder"):
        yield f"{part}.conv_in.%", f"{part}.conv_in.%"
        yield f"{part}.conv_out.%", f"{part}.conv_out.%"
        yield f"{part}.conv_norm_out.%", f"{part}.norm_out.%"
        for index in (0, 1):
            yield from _vae_resnet(f"{part}.mid_block.resnets.{index}", f"{part}.mid.block_{index + 1}")
        inner, original = f"{part}.mid_block.attentions.0", f"{part}.mid.attn_1"
        yield f"{inner}.group_norm.%", f"{original}.norm.%"
        for name, other in (("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out")):
            yield f"{inner}.{name}.weight", f"{original}.{other}.weight", "conv"
            yield f"{inner}.{name}.bias", f"{original}.{other}.bias"
    yield from _vae_resnet("encoder.down_blocks.*.resnets.*", "encoder.down.*.block.*")
    yield "encoder.down_blocks.*.downsamplers.0.conv.%", "encoder.down.*.downsample.conv.%"
    for level in range(levels):
        block, original = f"decoder.up_blocks.{level}", f"decoder.up.{levels - 1 - level}"
        yield from _vae_resnet(f"{block}.resnets.*", f"{original}.block.*")
        yield f"{block}.upsamplers.0.conv.%", f"{original}.upsample.conv.%"
    yield "quant_conv.%", "quant_conv.%"
    yield "post_quant_conv.%", "post_quant_conv.%"


def _vae_resnet(block: str, original: str) -> Iterator[Row]:
    for part in ("norm1", "conv1", "norm2", "conv2"):
        yield f"{block}.{part}.%", f"{original}.{part}.%"
    yield f"{block}.conv_shortcut.%", f"{original}.nin_shortcut.%"


CLIP: tuple[Row, ...] = (
    ("text_projection.weight", "text_projection.weight"),
    ("text_model.**", "text_model.**"),
    ("**", "text_model.**"),
)
"""transformers' own names; its versions 5 and up leave `text_model` out in `CLIPTextModel`."""


def open_clip_rows(prefix: str) -> Iterator[Row]:
    """The text tower of open_clip, as Stable Diffusion 2 and the second encoder of SDXL have it.

    Args:
        prefix: "text_model." or nothing, see `CLIP`.
    """
    layer, block = f"{prefix}encoder.layers.*", "transformer.resblocks.*"
    yield from (
        (f"{prefix}embeddings.token_embedding.weight", "token_embedding.weight"),
        (f"{prefix}embeddings.position_embedding.weight", "positional_embedding"),
        (f"{prefix}final_layer_norm.%", "ln_final.%"),
        (f"{layer}.layer_norm1.%", f"{block}.ln_1.%"),
        (f"{layer}.layer_norm2.%", f"{block}.ln_2.%"),
        (f"{layer}.mlp.fc1.%", f"{block}.mlp.c_fc.%"),
        (f"{layer}.mlp.fc2.%", f"{block}.mlp.c_proj.%"),
        (f"{layer}.self_attn.{{q_proj,k_proj,v_proj}}.%", f"{block}.attn.in_proj_%"),
        (f"{layer}.self_attn.out_proj.%", f"{block}.attn.out_proj.%"),
        ("text_projection.weight", "text_projection", "transpose"),
    )


def mmdit_rows(layers: int) -> Iterator[Row]:
    """Stable Diffusion 3 and 3.5.

    Args:
        layers: number of joint blocks; the last one's context only feeds the attention.
    """
    block, image, text = "transformer_blocks.*", "joint_blocks.*.x_block", "joint_blocks.*.context_block"
    last = f"transformer_blocks.{layers - 1}.norm1_context.linear.%"
    yield from (
        ("pos_embed.pos_embed", "pos_embed"),
        ("pos_embed.proj.%", "x_embedder.proj.%"),
        ("context_embedder.%", "context_embedder.%"),
        ("time_text_embed.timestep_embedder.linear_1.%", "t_embedder.mlp.0.%"),
        ("time_text_embed.timestep_embedder.linear_2.%", "t_embedder.mlp.2.%"),
        ("time_text_embed.text_embedder.linear_1.%", "y_embedder.mlp.0.%"),
        ("time_text_embed.text_embedder.linear_2.%", "y_embedder.mlp.2.%"),
        ("norm_out.linear.%", "final_layer.adaLN_modulation.1.%", "swap"),
        ("proj_out.%", "final_layer.linear.%"),
        (last, f"joint_blocks.{layers - 1}.context_block.adaLN_modulation.1.%", "swap"),
        (f"{block}.norm1.linear.%", f"{image}.adaLN_modulation.1.%"),
        (f"{block}.norm1_context.linear.%", f"{text}.adaLN_modulation.1.%"),
        (f"{block}.attn.{{to_q,to_k,to_v}}.%", f"{image}.attn.qkv.%"),
        (f"{block}.attn.{{add_q_proj,add_k_proj,add_v_proj}}.%", f"{text}.attn.qkv.%"),
        (f"{block}.attn.to_out.0.%", f"{image}.attn.proj.%"),
        (f"{block}.attn.to_add_out.%", f"{text}.attn.proj.%"),
        (f"{block}.attn.norm_q.weight", f"{image}.attn.ln_q.weight"),
        (f"{block}.attn.norm_k.weight", f"{image}.attn.ln_k.weight"),
        (f"{block}.attn.norm_added_q.weight", f"{text}.attn.ln_q.weight"),
        (f"{block}.attn.norm_added_k.weight", f"{text}.attn.ln_k.weight"),
        (f"{block}.attn2.{{to_q,to_k,to_v}}.%", f"{image}.attn2.qkv.%"),
        (f"{block}.attn2.to_out.0.%", f"{image}.attn2.proj.%"),
        (f"{block}.attn2.norm_q.weight", f"{image}.attn2.ln_q.weight"),
        (f"{block}.attn2.norm_k.weight", f"{image}.attn2.ln_k.weight"),
        (f"{block}.ff.net.0.proj.%", f"{image}.mlp.fc1.%"),
        (f"{block}.ff.net.2.%", f"{image}.mlp.fc2.%"),
        (f"{block}.ff_context.net.0.proj.%", f"{text}.mlp.fc1.%"),
        (f"{block}.ff_context.net.2.%", f"{text}.mlp.fc2.%"),
    )


_DOUBLE, _TWO, _SINGLE, _ONE = (
    "transformer_blocks.*",
    "double_blocks.*",
    "single_transformer_blocks.*",
    "single_blocks.*",
)

FLUX: tuple[Row, ...] = (
    ("x_embedder.%", "img_in.%"),
    ("context_embedder.%", "txt_in.%"),
    ("time_text_embed.timestep_embedder.linear_1.%", "time_in.in_layer.%"),
    ("time_text_embed.timestep_embedder.linear_2.%", "time_in.out_layer.%"),
    ("time_text_embed.text_embedder.linear_1.%", "vector_in.in_layer.%"),
    ("time_text_embed.text_embedder.linear_2.%", "vector_in.out_layer.%"),
    ("time_text_embed.guidance_embedder.linear_1.%", "guidance_in.in_layer.%"),
    ("time_text_embed.guidance_embedder.linear_2.%", "guidance_in.out_layer.%"),
    ("norm_out.linear.%", "final_layer.adaLN_modulation.1.%", "swap"),
    ("proj_out.%", "final_layer.linear.%"),
    (f"{_DOUBLE}.norm1.linear.%", f"{_TWO}.img_mod.lin.%"),
    (f"{_DOUBLE}.norm1_context.linear.%", f"{_TWO}.txt_mod.lin.%"),
    (f"{_DOUBLE}.attn.{{to_q,to_k,to_v}}.%", f"{_TWO}.img_attn.qkv.%"),
    (f"{_DOUBLE}.attn.{{add_q_proj,add_k_proj,add_v_proj}}.%", f"{_TWO}.txt_attn.qkv.%"),
    (f"{_DOUBLE}.attn.norm_q.weight", f"{_TWO}.img_attn.norm.query_norm.scale"),
    (f"{_DOUBLE}.attn.norm_k.weight", f"{_TWO}.img_attn.norm.key_norm.scale"),
    (f"{_DOUBLE}.attn.norm_added_q.weight", f"{_TWO}.txt_attn.norm.query_norm.scale"),
    (f"{_DOUBLE}.attn.norm_added_k.weight", f"{_TWO}.txt_attn.norm.key_norm.scale"),
    (f"{_DOUBLE}.attn.to_out.0.%", f"{_TWO}.img_attn.proj.%"),
    (f"{_DOUBLE}.attn.to_add_out.%", f"{_TWO}.txt_attn.proj.%"),
    (f"{_DOUBLE}.ff.net.0.proj.%", f"{_TWO}.img_mlp.0.%"),
    (f"{_DOUBLE}.ff.net.2.%", f"{_TWO}.img_mlp.2.%"),
    (f"{_DOUBLE}.ff_context.net.0.proj.%", f"{_TWO}.txt_mlp.0.%"),
    (f"{_DOUBLE}.ff_context.net.2.%", f"{_TWO}.txt_mlp.2.%"),
    (f"{_SINGLE}.norm.linear.%", f"{_ONE}.modulation.lin.%"),
    (f"{_SINGLE}.{{attn.to_q,attn.to_k,attn.to_v,proj_mlp}}.%", f"{_ONE}.linear1.%"),
    (f"{_SINGLE}.proj_out.%", f"{_ONE}.linear2.%"),
    (f"{_SINGLE}.attn.norm_q.weight", f"{_ONE}.norm.query_norm.scale"),
    (f"{_SINGLE}.attn.norm_k.weight", f"{_ONE}.norm.key_norm.scale"),
)
"""Flux.1: double and single blocks."""
