"""Two concepts at once and then a third on top, on a real pipeline of tiny size."""

from diffusers import StableDiffusionPipeline
from safetensors import safe_open
from turpentine import unlearn
from turpentine.pipeline.prompts import PromptSet

from ..support.tiny_models import build_tiny_pipeline

SHORT = {
    "prompts": {"n": 8, "n_test": 2},
    "samples": {"num_inference_steps": 1, "sample_batch_size": 8},
    "training": {"steps": 1, "batch_size": 2, "learning_rate": 1e-3},
    "audits": {"images": 2, "retain_train_images": 2, "alignment": False, "nudity": "off"},
}


def test_what_was_forgotten_is_carried_on_in_the_weights(tmp_path):
    first = unlearn(build_tiny_pipeline(), "cat + pop art", out=tmp_path / "first", **SHORT)
    assert first.results.concept == "cat + pop art"
    folder = tmp_path / "first" / "weights" / "diffusers"
    second = unlearn(
        StableDiffusionPipeline.from_pretrained(folder), "dog", out=tmp_path / "second", method="salun", **SHORT
    )
    prompts = PromptSet.load(second.run / "prompts.json")
    assert prompts.keep_forgotten == ("cat", "pop art")
    assert (second.run / "mask.safetensors").exists()
    assert "Which weights were free to move" in (second.run / "report.html").read_text()
    with safe_open(second.run / "weights/diffusers/unet/diffusion_pytorch_model.safetensors", "pt") as file:
        assert file.metadata()["turpentine.forgotten"] == '["cat", "pop art", "dog"]'
        assert file.metadata()["turpentine.origin"] == "StableDiffusionPipeline"
    third = unlearn(
        StableDiffusionPipeline.from_pretrained(folder), "hat", attribute_of="cowboy", method="esd",
        out=tmp_path / "third", **{**SHORT, "prompts": {"n": 8, "n_test": 2, "keep_forgotten": []}},
    )  # fmt: skip
    assert PromptSet.load(third.run / "prompts.json").train[0].retain == "a photo of a cowboy"
