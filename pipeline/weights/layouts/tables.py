"""The tables of the components that families share: autoencoder and text encoders.

The original layouts are those of CompVis's latent-diffusion (the autoencoder) and open_clip; how they relate
to diffusers was read from the loaders of diffusers 0.42 (`loaders/single_file_utils.py`). A denoiser's table
stands in the file of its family.
"""

from collections.abc import Iterator

from ...models.family import Row


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
