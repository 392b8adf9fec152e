"""The pipelines behind the bridge, with stand-ins for what ComfyUI gives; tests/e2e has the real ones."""

from types import SimpleNamespace

import pytest
import torch
from diffusers import SD3Transformer2DModel, UNet2DConditionModel
from turpentine.comfy_nodes.bridge import cross
from turpentine.comfy_nodes.bridge_pipelines import _flow_scheduler, _scheduler, make_pipeline
from turpentine.pipeline.models import Sampling, wrap_pipeline
from turpentine.pipeline.support.errors import UserError
from turpentine.pipeline.support.progress import Silent

BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
ALPHAS = torch.cumprod(1 - BETAS, 0)
XL = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 6 * 8 + 12,
}


class Clip:
    """Embeds a text as ComfyUI's CLIP does: (1, tokens, width), and pooled (1, width)."""

    def tokenize(self, text):
        words = [(ord(letter), 1.0) for letter in text[:70]] + [(0, 1.0)] * 77
        return {"l": [words[:77], words[:77]], "t5xxl": [words]}

    def encode_from_tokens(self, tokens, return_pooled):
        assert return_pooled
        assert {name: [len(part) for part in parts] for name, parts in tokens.items()} == {"l": [77], "t5xxl": [77]}
        generator = torch.Generator().manual_seed(sum(word for word, _ in tokens["l"][0]))
        return torch.randn(1, 77, 32, generator=generator), torch.randn(1, 12, generator=generator)


class Vae:
    def decode(self, latents):
        return latents.mean(1, keepdim=True).sigmoid().repeat(1, 3, 8, 8).movedim(1, -1)


class EPS: ...


class V_PREDICTION: ...


class LCM: ...


class CONST: ...


class ModelSamplingDiscrete:
    sigmas = ((1 - ALPHAS) / ALPHAS).sqrt()


class ModelSamplingDiscreteFlow:
    shift = 3.0


def patcher(how=ModelSamplingDiscrete, what=EPS, **found):
    sampling = type("ModelSampling", (how, what), {})()
    model = SimpleNamespace(
        latent_format=SimpleNamespace(scale_factor=0.5), model_config=SimpleNamespace(unet_config=found)
    )
    return SimpleNamespace(model=model, get_model_object=lambda name: sampling)


def unet(**extra):
    return UNet2DConditionModel(
        sample_size=8, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8, cross_attention_dim=32,
        attention_head_dim=8, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), **extra,
    )  # fmt: skip


def mmdit():
    return SD3Transformer2DModel(
        sample_size=8, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=32, caption_projection_dim=16, pooled_projection_dim=12, pos_embed_max_size=8,
    )  # fmt: skip


@pytest.mark.parametrize("family", ["1.x", "XL", "3.x"])
def test_the_bridge_draws_and_predicts_with_what_comfyui_embeds(family):
    torch.manual_seed(0)
    network = mmdit() if family == "3.x" else unet(**(XL if family == "XL" else {}))
    given = patcher(ModelSamplingDiscreteFlow, CONST) if family == "3.x" else patcher()
    denoiser = wrap_pipeline(make_pipeline(given, network.eval(), Clip(), Vae()), "bridged")
    sampling = Sampling(num_inference_steps=2, guidance_scale=3.0)
    latents = denoiser.sample(["a cat", "a dog (small)"], [0, 1], sampling, Silent(), "drawing")
    assert latents.shape == (2, 4, 8, 8) and latents.isfinite().all()
    alone = denoiser.sample(["a dog (small)"], [1], sampling, Silent(), "drawing")
    torch.testing.assert_close(latents[1:], alone, atol=1e-4, rtol=1e-4)
    denoiser.release()
    denoiser.restore()
    assert denoiser.decode(latents).shape == (2, 64, 64, 3)
    conditioning = denoiser.encode_prompts(["a cat", "a dog"])
    assert conditioning["prompt_embeds"].shape == (2, 77, 32)
    predicted = denoiser.predict(latents, torch.tensor([10, 500]), conditioning)
    predicted.square().mean().backward()
    assert predicted.shape == latents.shape and all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize(("t5", "read"), [(False, 75), (True, 76)])
def test_the_bridge_says_how_much_of_a_prompt_it_embeds(t5, read):
    class Real:
        """As ComfyUI's tokenizers: CLIP's pieces of 77, T5's one piece of 77 or more; here a letter is a token."""

        def tokenize(self, text):
            pieces = [[0] * 77 for _ in range(max(1, -(-len(text) // 75)))]
            return {"l": pieces, "t5xxl": [[0] * max(77, len(text) + 1)]} if t5 else {"l": pieces}

    denoiser = wrap_pipeline(make_pipeline(patcher(), unet().eval(), Real(), Vae()), "bridged")
    assert denoiser.read_prompts(["", "a cat", "x" * read, "x" * 300]) == ["", "a cat", "x" * read, "x" * read]


def test_the_schedule_is_the_one_of_the_model():
    scheduler = _scheduler(patcher(what=V_PREDICTION))
    torch.testing.assert_close(scheduler.alphas_cumprod, ALPHAS, atol=1e-5, rtol=1e-4)
    assert scheduler.config.prediction_type == "v_prediction"
    assert _flow_scheduler(patcher(ModelSamplingDiscreteFlow, CONST)).config.shift == 3.0


UNET = {"channel_mult": [1], "in_channels": 4, "out_channels": 4}
MMDIT = {
    "context_embedder_config": {},
    "pos_embed_max_size": 16,
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 16,
}


@pytest.mark.parametrize(
    ("given", "size", "message"),
    [
        (patcher(image_model="flux"), 512, "expected a Stable Diffusion MODEL"),
        (patcher(**UNET, adm_in_channels=2560), 512, "expected a Stable Diffusion MODEL"),
        (patcher(what=LCM, **UNET), 512, "set to ModelSamplingDiscrete with LCM"),
        (patcher(**MMDIT), 512, "set to epsilon"),
        (patcher(**UNET | {"in_channels": 9}), 512, "9 input channels"),
        (patcher(**UNET), 500, "multiple of 64"),
        (patcher(ModelSamplingDiscreteFlow, CONST, **MMDIT), 512, "at most 256"),
    ],
    ids=["flux", "refiner", "lcm", "flow as noise", "inpainting", "odd size", "too large"],
)
def test_what_the_bridge_does_not_carry_is_refused(given, size, message):
    with pytest.raises(UserError, match=message):
        cross(given, Clip(), Vae(), "x", size)
