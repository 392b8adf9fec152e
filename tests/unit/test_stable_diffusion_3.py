"""How many tokens stand for the T5 that a Stable Diffusion 3 model lacks."""

import pytest
import torch
from turpentine.pipeline.models import BUNDLED, Sampling, load_denoiser, wrap_pipeline
from turpentine.pipeline.support.progress import Silent

from ..support.tiny_models import build_family

PROMPTS = ["a photo of a cat", "a dog"]


@pytest.mark.parametrize(("joint_attention_dim", "zeros"), [(96, 256), (80, 0)])
def test_tokens_for_an_absent_t5(joint_attention_dim, zeros):
    pipeline = build_family("sd3-no-t5")
    config = {name: value for name, value in pipeline.transformer.config.items() if not name.startswith("_")}
    pipeline.transformer = type(pipeline.transformer)(**{**config, "joint_attention_dim": joint_attention_dim})
    denoiser = wrap_pipeline(pipeline)
    embeds = denoiser.encode_prompts(PROMPTS)["prompt_embeds"]
    text = pipeline.tokenizer.model_max_length
    assert embeds.shape == (2, text + zeros, joint_attention_dim)
    assert embeds[:, :text].any() and not embeds[:, text:].any()
    length = {}
    pipeline.transformer.register_forward_pre_hook(
        lambda _, args, kwargs: length.update(n=kwargs["encoder_hidden_states"].shape[1]), with_kwargs=True
    )
    with torch.no_grad():
        denoiser.pipeline(PROMPTS, num_inference_steps=1, output_type="latent", height=16, width=16,
                          **denoiser.call_options)  # fmt: skip
    assert length["n"] == text + zeros, "drawing sees what training sees"


def test_the_bundled_transformer():
    denoiser = load_denoiser("tiny-canvas-dit", "cpu")
    assert denoiser.family == "stable-diffusion-3" and denoiser.call_options == {"max_sequence_length": 0}
    assert denoiser.encode_prompts(PROMPTS)["prompt_embeds"].shape == (2, 24, 160)
    sampling = Sampling(2, 3.0, "dpm-solver++", batch_size=2)
    first, again = (denoiser.sample(PROMPTS, [1, 2], sampling, Silent(), "") for _ in range(2))
    assert first.shape == (2, 16, 8, 8) and torch.equal(first, again) and first.isfinite().all()


def test_bundled_weights_stay_small():
    sizes = {name: sum(file.stat().st_size for file in folder.rglob("*.*")) for name, folder in BUNDLED.items()}
    assert sizes["tiny-canvas-dit"] < 20e6 and sum(sizes.values()) < 40e6
