"""Which weights train, on a real UNet of tiny size."""

import pytest
import torch
from torch import nn
from turpentine.pipeline.maths.parameters import select_parameters

from ..support.tiny_models import build_family, build_tiny_pipeline


@pytest.fixture(scope="module")
def unet():
    return build_tiny_pipeline().unet


def test_full_is_everything_in_the_modules_order(unet):
    chosen = select_parameters(unet, "full")
    assert list(chosen) == [name for name, _ in unet.named_parameters()]
    assert all(chosen[name] is parameter for name, parameter in unet.named_parameters())


def test_xattn_is_the_cross_attention(unet):
    chosen = select_parameters(unet, "xattn")
    inside = {
        f"{name}.{inner}"
        for name, layer in unet.named_modules()
        if name.endswith(".attn2")
        for inner, _ in layer.named_parameters()
    }
    assert set(chosen) == inside
    # ESD-x: queries, keys, values and output, in the one down, the middle and the two up transformers
    assert len({name.rpartition(".attn2.")[0] for name in chosen}) == 4
    assert {name.partition(".attn2.")[2].partition(".")[0] for name in chosen} == {"to_q", "to_k", "to_v", "to_out"}


def test_noxattn_is_every_linear_and_convolution_elsewhere(unet):
    chosen = select_parameters(unet, "noxattn")
    layers = dict(unet.named_modules())
    owners = {name.rpartition(".")[0] for name in chosen}
    assert all(isinstance(layers[owner], nn.Linear | nn.Conv2d) for owner in owners)
    assert not any("attn2" in owner.split(".") for owner in owners)
    everywhere = {name for name, layer in layers.items() if isinstance(layer, nn.Linear | nn.Conv2d)}
    assert {name for name in everywhere - owners if ".attn2." not in name} == set()


def test_selections_do_not_overlap_and_leave_out_only_norms(unet):
    cross, rest = select_parameters(unet, "xattn"), select_parameters(unet, "noxattn")
    assert not set(cross) & set(rest)
    layers = dict(unet.named_modules())
    left_out = {name.rpartition(".")[0] for name in set(select_parameters(unet, "full")) - set(cross) - set(rest)}
    assert left_out and all(isinstance(layers[name], nn.GroupNorm | nn.LayerNorm) for name in left_out)


def test_name_must_match_whole():
    module = nn.ModuleDict({"attn20": nn.Linear(1, 1), "attn2": nn.Linear(1, 1)})
    assert set(select_parameters(module, "xattn")) == {"attn2.weight", "attn2.bias"}
    assert set(select_parameters(module, "noxattn")) == {"attn20.weight", "attn20.bias"}


def test_convolutions_of_every_dimension():
    module = nn.ModuleList([nn.Conv1d(1, 1, 1), nn.Conv3d(1, 1, 1), nn.ConvTranspose2d(1, 1, 1), nn.BatchNorm1d(1)])
    assert {name.partition(".")[0] for name in select_parameters(module, "noxattn")} == {"0", "1", "2"}


def test_empty_selection_is_an_error():
    with pytest.raises(ValueError, match=r"parameters='xattn' selects nothing in a Linear\. Choose 'full'\."):
        select_parameters(nn.Linear(2, 2), "xattn")
    with pytest.raises(ValueError, match="parameters='noxattn' selects nothing in a LayerNorm"):
        select_parameters(nn.LayerNorm(2), "noxattn")
    with pytest.raises(ValueError, match="selects nothing in a ReLU"):
        select_parameters(nn.ReLU(), "full")


def test_unknown_selection():
    with pytest.raises(ValueError, match="parameters must be one of 'full', 'xattn', 'noxattn', 'lora', got 'attn'"):
        select_parameters(nn.Linear(2, 2), "attn")


def test_selecting_changes_nothing(unet):
    before = [(p.requires_grad, p.grad) for p in unet.parameters()]
    with torch.no_grad():
        select_parameters(unet, "noxattn")
    assert [(p.requires_grad, p.grad) for p in unet.parameters()] == before


@pytest.mark.parametrize(("name", "single_stream"), [("sd3-no-t5", 0), ("flux-dev", 2)])
def test_joint_attention_has_a_text_side(name, single_stream):
    transformer = build_family(name).transformer
    cross, rest = select_parameters(transformer, "xattn"), select_parameters(transformer, "noxattn")
    layers = dict(transformer.named_modules())
    sides = {key.rpartition(".")[0].rpartition(".")[2] for key in cross}
    assert sides == {"add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"}
    assert not set(cross) & set(rest)
    owners = {key.rpartition(".")[0] for key in rest}
    assert all(isinstance(layers[owner], nn.Linear | nn.Conv2d) for owner in owners)
    assert any(".to_q" in owner for owner in owners), "the image stream's own projections are the rest"
    assert sum("single_transformer_blocks" in owner and ".to_q" in owner for owner in owners) == single_stream
    if name.startswith("sd3"):
        assert any(".attn2." in owner for owner in owners), "SD3.5's second self-attention is no cross-attention"
