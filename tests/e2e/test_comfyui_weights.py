"""Unlearning on ComfyUI's own MODELs, in a real server: the change draws the same by every way that it can go."""

from pathlib import Path

import numpy as np
import pytest

from .comfy_checkpoints import FAMILIES
from .comfy_graphs import draw, native, node


def difference(one, other):
    return abs(one - other).mean()


@pytest.mark.parametrize("family", FAMILIES)
def test_unlearned_weights_draw_the_same_by_every_way(family, comfy):
    """The patched MODEL, and what was saved through ComfyUI's own loaders; the low-rank one nearly."""
    graph = native(family)
    kinds = {"delta": "loras", "diffusion_model": "diffusion_models", "checkpoint": "checkpoints"}
    if family != "sdxl":  # whose singular values take minutes
        kinds["lora"] = "loras"
    for kind in kinds:
        graph[kind] = node(
            "TurpentineSaveWeights", model=["unlearn", 0], save_as=kind, name=f"mine-{family}", dtype="fp32"
        )
    draw(graph, "base", ["load", 0], ["load", 2])
    draw(graph, "patched", ["unlearn", 1], ["load", 2])
    first = comfy.run(graph, timeout=3600)
    assert first.status == "success", first.error
    names = {kind: Path(first.text(kind)).name for kind in kinds}
    assert all(first.text(kind).endswith(f"output/{folder}/{names[kind]}") for kind, folder in kinds.items())
    base, patched = first.pixels("base"), first.pixels("patched")
    assert difference(base, patched) > 0.2

    graph = {name: each for name, each in native(family).items() if name in ("load", "+", "-", "latent")}
    graph["diffusion_model"] = node("UNETLoader", unet_name=names["diffusion_model"], weight_dtype="default")
    graph["checkpoint"] = node("CheckpointLoaderSimple", ckpt_name=names["checkpoint"])
    for kind in ("delta", "lora"):
        if kind in kinds:
            graph[kind] = node(
                "LoraLoader",
                model=["load", 0], clip=["load", 1], lora_name=names[kind], strength_model=1.0, strength_clip=1.0,
            )  # fmt: skip
    for kind in kinds:
        draw(graph, f"with {kind}", [kind, 0], ["load", 2])
    draw(graph, "base", ["load", 0], ["load", 2])
    second = comfy.run(graph, timeout=3600)
    assert second.status == "success", second.error
    for kind in ("delta", "diffusion_model", "checkpoint"):
        assert (second.pixels(f"with {kind}") == patched).all(), kind
    if "lora" in kinds:
        assert difference(second.pixels("with lora"), patched) < difference(base, patched) / 2
    assert (second.pixels("base") == base).all()


SAME_SCHEDULE = {
    "sd15": {"sampler_name": "ddim", "scheduler": "ddim_uniform"},
    "sdxl": {"sampler_name": "ddim", "scheduler": "ddim_uniform"},
    "sd3": {"sampler_name": "euler", "scheduler": "normal"},
}
"""ComfyUI's names for what the bridge's own schedulers do."""


@pytest.mark.parametrize("family", FAMILIES)
def test_the_bridge_draws_what_comfyui_draws(family, comfy):
    """Prompt, noise, schedule, network, guidance and decoder are the same: Generate and KSampler agree.

    They differ by half a level in the mean, as we round to 8 bits and ComfyUI cuts off; and KSampler begins with
    noise of slightly under unit variance where its schedule doesn't begin at the noisiest step (SD 1.5, SDXL).
    """
    graph = native(family)
    graph["latent"]["inputs"]["batch_size"] = 1
    del graph["options"], graph["unlearn"]
    graph["draw"] = node(
        "TurpentineGenerate", model=["bridge", 0], prompts=["set", 0], which="forget_test", images=1, seed=3,
        num_inference_steps=8, guidance_scale=3.0, scheduler="own",
    )  # fmt: skip
    graph["ours"] = node("PreviewImage", images=["draw", 0])
    if family == "sdxl":  # whose size ComfyUI takes for 768 when nobody says it
        size = dict(width=64, height=64, crop_w=0, crop_h=0, target_width=64, target_height=64, clip=["load", 1])
        graph["+"] = node("CLIPTextEncodeSDXL", text_g=["draw", 1], text_l=["draw", 1], **size)
        graph["-"] = node("CLIPTextEncodeSDXL", text_g="", text_l="", **size)
    else:
        graph["+"]["inputs"]["text"] = ["draw", 1]
    for name, seed in (("theirs", 3), ("other noise", 4)):
        draw(graph, name, ["load", 0], ["load", 2], steps=8, seed=seed, **SAME_SCHEDULE[family])
    done = comfy.run(graph, timeout=3600)
    assert done.status == "success", done.error
    ours, theirs, other = (done.pixels(name) for name in ("ours", "theirs", "other noise"))
    assert difference(ours, theirs) < 0.05 * difference(other, theirs)
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.99


def test_loras_on_the_model_go_over_the_bridge(comfy):
    """Unlearning at a rate too small to see must draw what the LoRA'd MODEL draws."""
    graph = native("sd15")
    graph["save"] = node("TurpentineSaveWeights", model=["unlearn", 0], save_as="delta", name="some", dtype="fp32")
    done = comfy.run(graph)
    assert done.status == "success", done.error
    graph = native("sd15")
    graph["lora"] = node(
        "LoraLoaderModelOnly", model=["load", 0], lora_name=Path(done.text("save")).name, strength_model=0.7
    )
    graph["bridge"]["inputs"]["model"] = ["lora", 0]
    graph["unlearn"]["inputs"] |= {"steps": 1, "learning_rate": 1e-12}
    draw(graph, "without", ["load", 0], ["load", 2])
    draw(graph, "with", ["lora", 0], ["load", 2])
    draw(graph, "crossed", ["unlearn", 1], ["load", 2])
    done = comfy.run(graph)
    assert done.status == "success", done.error
    assert difference(done.pixels("with"), done.pixels("without")) > 0.1
    assert abs(done.pixels("with") - done.pixels("crossed")).max() <= 1
