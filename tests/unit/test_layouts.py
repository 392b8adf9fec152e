"""The original layouts: the tables' language, and real-size networks (without memory) against published facts."""

import pytest
import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel, SD3Transformer2DModel, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers
from turpentine.pipeline.support.errors import UserError
from turpentine.pipeline.weights.layouts import Entry, Unmapped, build_layout, denoiser_layout, vae_layout

CHANNELS = (320, 640, 1280, 1280)


def original(module, layout):
    state = module.state_dict()
    return {name: tuple(entry.to_original(state).shape) for name, entry in layout(module).items()}


# the tables ---------------------------------------------------------------------------------------


def test_rows_fill_in_numbers_endings_and_rests():
    rows = [("a.*.b.*.%", "x.*.y_*.%"), ("rest.**", "kept.**")]
    layout = build_layout(["a.3.b.12.bias", "rest.of.it"], rows)
    assert layout == {"x.3.y_12.bias": Entry(("a.3.b.12.bias",)), "kept.of.it": Entry(("rest.of.it",))}


def test_stacks_follow_the_order_of_the_row_not_of_the_names():
    layout = build_layout(["l.v.weight", "l.q.weight", "l.k.weight"], [("l.{q,k,v}.%", "qkv.%")])
    assert layout == {"qkv.weight": Entry(("l.q.weight", "l.k.weight", "l.v.weight"))}


@pytest.mark.parametrize("names", [["other.weight"], ["l.q.weight"]])
def test_what_has_no_place_is_named(names):
    with pytest.raises(Unmapped, match=names[0]):
        build_layout(names, [("l.{q,k}.%", "qk.%")])


@pytest.mark.parametrize(("how", "by_hand"), [
    ("same", [[0, 1], [2, 3], [4, 5], [6, 7]]),
    ("swap", [[4, 5], [6, 7], [0, 1], [2, 3]]),
    ("transpose", [[0, 2, 4, 6], [1, 3, 5, 7]]),
    ("conv", [[[[0]], [[1]]], [[[2]], [[3]]], [[[4]], [[5]]], [[[6]], [[7]]]]),
])  # fmt: skip
def test_entries_by_hand_and_back(how, by_hand):
    tensors = {"a": torch.tensor([[0, 1]]), "b": torch.tensor([[2, 3], [4, 5], [6, 7]])}
    entry = Entry(("a", "b"), how)
    stacked = entry.to_original(tensors)
    assert stacked.tolist() == by_hand
    back = entry.to_diffusers(stacked, {name: tensor.shape for name, tensor in tensors.items()})
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)


def test_factors_of_a_stack_are_the_stack_of_the_products():
    generator = torch.Generator().manual_seed(0)
    pairs = [
        (torch.randn(rows, rank, generator=generator), torch.randn(rank, 5, generator=generator))
        for rows, rank in ((4, 2), (6, 3))
    ]
    for how in ("same", "swap"):
        entry = Entry(("a", "b"), how)
        up, down = entry.factors_to_original(pairs)
        assert up.shape == (10, 5) and down.shape == (5, 5)
        products = {name: up @ down for name, (up, down) in zip("ab", pairs, strict=True)}
        assert torch.allclose(up @ down, entry.to_original(products), atol=1e-6)


def test_another_size_is_refused():
    with pytest.raises(ValueError, match=r"expected the shape \(4, 2\), got \(3, 2\)"):
        Entry(("a",)).to_diffusers(torch.zeros(3, 2), {"a": (4, 2)})


# real sizes, on the meta device -------------------------------------------------------------------


def test_stable_diffusion_1():
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8, block_out_channels=CHANNELS)
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        )  # fmt: skip
    shapes = original(unet, denoiser_layout)
    assert len(shapes) == 686  # tensors of model.diffusion_model in sd-v1-4.ckpt
    assert shapes["time_embed.0.weight"] == (1280, 320)
    assert shapes["input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"] == (320, 768)
    assert shapes["input_blocks.3.0.op.weight"] == (320, 320, 3, 3)
    assert shapes["input_blocks.4.0.skip_connection.weight"] == (640, 320, 1, 1)
    assert shapes["input_blocks.11.0.out_layers.3.weight"] == (1280, 1280, 3, 3)
    assert shapes["middle_block.1.proj_in.weight"] == (1280, 1280, 1, 1)
    assert shapes["output_blocks.2.1.conv.weight"] == (1280, 1280, 3, 3)  # no attention in that block
    assert shapes["output_blocks.5.2.conv.weight"] == (1280, 1280, 3, 3)
    assert shapes["output_blocks.11.0.skip_connection.weight"] == (320, 640, 1, 1)
    assert shapes["out.2.weight"] == (4, 320, 3, 3)
    shapes = original(vae, vae_layout)
    assert len(shapes) == 248  # of first_stage_model, without the loss
    assert shapes["encoder.down.1.block.0.nin_shortcut.weight"] == (256, 128, 1, 1)
    assert shapes["encoder.down.0.downsample.conv.weight"] == (128, 128, 3, 3)
    assert shapes["encoder.mid.attn_1.q.weight"] == (512, 512, 1, 1)
    assert shapes["decoder.up.3.block.0.conv1.weight"] == (512, 512, 3, 3)
    assert shapes["decoder.up.0.block.0.nin_shortcut.weight"] == (128, 256, 1, 1)
    assert shapes["decoder.up.1.upsample.conv.bias"] == (256,)
    assert shapes["quant_conv.weight"] == (8, 8, 1, 1)


def test_sdxl():
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            block_out_channels=(320, 640, 1280), layers_per_block=2, transformer_layers_per_block=(1, 2, 10),
            attention_head_dim=(5, 10, 20), cross_attention_dim=2048, use_linear_projection=True,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            addition_embed_type="text_time", addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816,
        )  # fmt: skip
    shapes = original(unet, denoiser_layout)
    assert len(shapes) == 1680  # of model.diffusion_model in sd_xl_base_1.0.safetensors
    assert shapes["label_emb.0.0.weight"] == (1280, 2816)
    assert shapes["input_blocks.8.1.transformer_blocks.9.attn2.to_v.weight"] == (1280, 2048)
    assert shapes["output_blocks.2.2.conv.weight"] == (1280, 1280, 3, 3)


def test_stable_diffusion_3():
    with torch.device("meta"):
        transformer = SD3Transformer2DModel(num_layers=24, pos_embed_max_size=192)
    shapes = original(transformer, denoiser_layout)
    assert shapes["x_embedder.proj.weight"] == (1152, 16, 2, 2)
    assert shapes["pos_embed"] == (1, 36864, 1152)
    assert shapes["joint_blocks.0.x_block.attn.qkv.weight"] == (3 * 1152, 1152)
    assert shapes["joint_blocks.22.context_block.adaLN_modulation.1.weight"] == (6 * 1152, 1152)
    assert shapes["joint_blocks.23.context_block.adaLN_modulation.1.weight"] == (2 * 1152, 1152)
    assert "joint_blocks.23.context_block.mlp.fc1.weight" not in shapes


def test_flux_against_the_loader_of_diffusers():
    """The loader splits the single blocks at Flux's own width, so tensors have it, but only one column."""
    with torch.device("meta"):
        transformer = FluxTransformer2DModel(num_layers=1, num_single_layers=1, guidance_embeds=True)
    shapes = original(transformer, denoiser_layout)
    assert shapes["single_blocks.0.linear1.weight"] == (21504, 3072)
    assert shapes["double_blocks.0.txt_attn.norm.key_norm.scale"] == (128,)
    generator = torch.Generator().manual_seed(0)
    narrow = {
        name: torch.randn(tensor.shape[0], *[1] * (tensor.ndim - 1), generator=generator)
        for name, tensor in transformer.state_dict().items()
    }
    checkpoint = {name: entry.to_original(narrow) for name, entry in denoiser_layout(transformer).items()}
    back = convert_flux_transformer_checkpoint_to_diffusers(checkpoint)
    assert set(back) == set(narrow)
    assert all(torch.equal(back[name], narrow[name]) for name in narrow)


def test_networks_that_have_no_original_layout():
    with pytest.raises(UserError, match=r"expected a UNet2DConditionModel, .*, got Linear\. Choose the formats"):
        denoiser_layout(torch.nn.Linear(1, 1))
    unet = UNet2DConditionModel(
        block_out_channels=(8,), down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), norm_num_groups=8,
        layers_per_block=1, class_embed_type="timestep", mid_block_type=None,
    )  # fmt: skip
    with pytest.raises(UserError, match=r"the denoiser has class_embedding\.linear_1\.weight, for which .* no place"):
        denoiser_layout(unet)
