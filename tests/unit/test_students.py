"""The transformer that tiny-canvas-dit is trained as: what it computes is what diffusers' pipeline computes."""

import copy

import pytest
import torch
from diffusers.models.attention_processor import JointAttnProcessor2_0
from turpentine.pipeline.bundled.tiny_canvas.students import Transformer
from turpentine.pipeline.models import BUNDLED


@pytest.fixture(scope="module")
def student():
    torch.manual_seed(0)
    made = Transformer(BUNDLED["tiny-canvas"])
    for parameter in made.transformer.parameters():  # it starts as the identity, which would hide everything
        torch.nn.init.normal_(parameter, std=0.1)
    return made


@pytest.mark.parametrize("blanks", [0, 1, 256])
@torch.no_grad()
def test_one_token_stands_for_many(student, blanks):
    captions = ["a photo of a cat on a lawn at noon", ""]
    pipe = copy.deepcopy(student.pipeline(None))
    pipe.transformer.set_attn_processor(JointAttnProcessor2_0())
    embeds, _, pooled, _ = pipe.encode_prompt(
        captions, None, None, do_classifier_free_guidance=False, max_sequence_length=blanks
    )
    noisy, timesteps = torch.randn(2, 16, 8, 8), torch.tensor([300.0, 900.0])
    wanted = pipe.transformer(
        noisy, timestep=timesteps, encoder_hidden_states=embeds, pooled_projections=pooled, return_dict=False
    )[0]
    got = student.predict(noisy, timesteps, *student._embed(captions), blanks)
    assert embeds.shape[1] == 24 + blanks
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)
    without = student.predict(noisy, timesteps, *student._embed(captions), 0)
    assert torch.allclose(got, without, atol=1e-3) == (blanks == 0)


def test_only_what_is_trained_gets_a_gradient(student):
    torch.manual_seed(1)
    student.loss(torch.randn(4, 16, 8, 8), ["a photo of a cat", "", "neon art of a pony", "a cat"]).backward()
    missing = [
        name
        for network in student.networks.values()
        for name, parameter in network.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    # the last block gives no text, so what its text would attend to is of no use
    assert all(name.startswith("transformer_blocks.5.attn.") and "added_q" in name.replace("add_q", "added_q")
               for name in missing)  # fmt: skip
    assert all(parameter.grad is None for parameter in student.text_encoder.parameters())
