"""The pipelines behind the bridge, with stand-ins for what ComfyUI gives; tests/e2e has the real ones."""

from types import SimpleNamespace

import pytest
import torch
from diffusers import UNet2DConditionModel
from turpentine.comfy_nodes.bridge import _pipeline, _scheduler
from turpentine.pipeline.models import wrap_pipeline
from turpentine.pipeline.progress import Silent

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
        return text

    def encode_from_tokens(self, text, return_pooled):
        assert return_pooled
        generator = torch.Generator().manual_seed(sum(map(ord, text)))
        return torch.randn(1, 77, 32, generator=generator), torch.randn(1, 12, generator=generator)


class Vae:
    def decode(self, latents):
        return latents.mean(1, keepdim=True).sigmoid().repeat(1, 3, 8, 8).movedim(1, -1)


def patcher(model_type="EPS"):
    model = SimpleNamespace(
        latent_format=SimpleNamespace(scale_factor=0.5), model_type=SimpleNamespace(name=model_type)
    )
    sampling = SimpleNamespace(sigmas=((1 - ALPHAS) / ALPHAS).sqrt())
    return SimpleNamespace(model=model, get_model_object=lambda name: sampling)


@pytest.mark.parametrize("extra", [{}, XL], ids=["1.x", "XL"])
def test_the_bridge_draws_and_predicts_with_what_comfyui_embeds(extra):
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8, cross_attention_dim=32,
        attention_head_dim=8, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), **extra,
    )  # fmt: skip
    denoiser = wrap_pipeline(_pipeline(patcher(), unet.eval(), Clip(), Vae()), "bridged")
    how = {
        "num_inference_steps": 2,
        "guidance_scale": 3.0,
        "scheduler": "own",
        "progress": Silent(),
        "stage": "drawing",
    }
    latents = denoiser.sample(["a cat", "a dog (small)"], [0, 1], batch_size=2, **how)
    assert latents.shape == (2, 4, 8, 8) and latents.isfinite().all()
    alone = denoiser.sample(["a dog (small)"], [1], batch_size=1, **how)
    torch.testing.assert_close(latents[1:], alone, atol=1e-4, rtol=1e-4)
    denoiser.release()
    denoiser.restore()
    assert denoiser.decode(latents).shape == (2, 64, 64, 3)
    conditioning = denoiser.encode_prompts(["a cat", "a dog"])
    assert conditioning["prompt_embeds"].shape == (2, 77, 32)
    predicted = denoiser.predict(latents, torch.tensor([10, 500]), conditioning)
    predicted.square().mean().backward()
    assert predicted.shape == latents.shape and all(p.grad is not None for p in unet.parameters())


def test_the_schedule_is_the_one_of_the_model():
    scheduler = _scheduler(patcher("V_PREDICTION"))
    torch.testing.assert_close(scheduler.alphas_cumprod, ALPHAS, atol=1e-5, rtol=1e-4)
    assert scheduler.config.prediction_type == "v_prediction"
