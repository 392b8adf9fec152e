"""Files of a run, in a real ComfyUI: it loads them, and what it saves again is what was written, tensor by tensor."""

import pytest
import torch
import turpentine
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection
from turpentine.pipeline.bundled.tiny_canvas.tokenizer import train_tokenizer
from turpentine.pipeline.models import wrap_pipeline
from turpentine.pipeline.weights.formats.single_file import checkpoint_tensors

from .comfy_checkpoints import clip_config, sd3_transformer, sd15_unet, sd21_unet, sdxl_unet
from .comfy_graphs import node

DENOISER = "model.diffusion_model."


def encoder(kind, width, heads, layers, act="quick_gelu"):
    """A text encoder of the published size; all of its layers are one, which saves making them."""
    made = kind(clip_config(width, heads, 1, act))
    stack = made.text_model.encoder if hasattr(made, "text_model") else made.encoder
    stack.layers = torch.nn.ModuleList([stack.layers[0]] * layers)
    made.config.num_hidden_layers = layers
    return made


def autoencoder(channels, quant=True):
    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=channels, sample_size=64,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        use_quant_conv=quant, use_post_quant_conv=quant,
    )  # fmt: skip


def tokens():
    return train_tokenizer(77)


def sd1():
    return StableDiffusionPipeline(
        vae=autoencoder(4), unet=sd15_unet(), text_encoder=encoder(CLIPTextModel, 768, 12, 12), tokenizer=tokens(),
        scheduler=EulerDiscreteScheduler(steps_offset=1), safety_checker=None, feature_extractor=None,
    )  # fmt: skip


def sd2():
    return StableDiffusionPipeline(
        vae=autoencoder(4), unet=sd21_unet(), text_encoder=encoder(CLIPTextModel, 1024, 16, 23, "gelu"),
        tokenizer=tokens(), scheduler=EulerDiscreteScheduler(steps_offset=1, prediction_type="v_prediction"),
        safety_checker=None, feature_extractor=None,
    )  # fmt: skip


def sdxl():
    return StableDiffusionXLPipeline(
        vae=autoencoder(4), unet=sdxl_unet(), text_encoder=encoder(CLIPTextModel, 768, 12, 12),
        text_encoder_2=encoder(CLIPTextModelWithProjection, 1280, 20, 32, "gelu"), tokenizer=tokens(),
        tokenizer_2=tokens(), scheduler=EulerDiscreteScheduler(),
    )  # fmt: skip


def sd3():
    return StableDiffusion3Pipeline(
        vae=autoencoder(16, quant=False), transformer=sd3_transformer(),
        text_encoder=encoder(CLIPTextModelWithProjection, 768, 12, 12),
        text_encoder_2=encoder(CLIPTextModelWithProjection, 1280, 20, 32, "gelu"), text_encoder_3=None,
        tokenizer=tokens(), tokenizer_2=tokens(), tokenizer_3=None,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )  # fmt: skip


@pytest.mark.parametrize("family", [sd1, sd2, sdxl, sd3], ids=lambda it: it.__name__)
def test_comfyui_loads_what_a_run_writes(family, comfy, tmp_path):
    torch.manual_seed(0)
    name, pipe = family.__name__, family()
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.half().float()  # so that the base is its file, number for number
    models = comfy.base / "models"
    base = {key: tensor.half().clone().contiguous() for key, tensor in checkpoint_tensors(wrap_pipeline(pipe)).items()}
    save_file(base, models / "checkpoints" / f"base-{name}.safetensors")
    (tmp_path / "pairs.csv").write_text("forget,retain\n" + "".join(f"a cat {i},a dog {i}\n" for i in range(4)))
    turpentine.unlearn(
        pipe, "cat", out=tmp_path / "run", prompts={"file": str(tmp_path / "pairs.csv")}, image_size=64, steps=2,
        batch_size=1, learning_rate=1e-3, num_inference_steps=1,
        audits={"images": 1, "retain_train_images": 1, "alignment": False},
        output={"formats": ["single_file", "denoiser", "lora", "delta"], "dtype": "fp16", "lora_rank": 4},
    )  # fmt: skip
    (whole,) = (tmp_path / "run/weights").glob("*-checkpoint.safetensors")
    stem = whole.name.removesuffix("-checkpoint.safetensors")
    for folder, kind in (
        ("checkpoints", "-checkpoint"),
        ("diffusion_models", ""),
        ("loras", "-delta"),
        ("loras", "-lora"),
    ):
        (models / folder / f"{name}{kind}.safetensors").symlink_to(whole.parent / f"{stem}{kind}.safetensors")

    graph = {
        "whole": node("CheckpointLoaderSimple", ckpt_name=f"{name}-checkpoint.safetensors"),
        "checkpoint": node("CheckpointSave", model=["whole", 0], clip=["whole", 1], vae=["whole", 2]),
        "base": node("CheckpointLoaderSimple", ckpt_name=f"base-{name}.safetensors"),
    }
    for kind in ("delta", "lora"):
        graph[f"with {kind}"] = node(
            "LoraLoaderModelOnly", model=["base", 0], lora_name=f"{name}-{kind}.safetensors", strength_model=1.0
        )
        graph[kind] = node("ModelSave", model=[f"with {kind}", 0])
    if family is sd3:  # a UNet in diffusers' names is known by its published depths only
        graph["alone"] = node("UNETLoader", unet_name=f"{name}.safetensors", weight_dtype="default")
        graph["denoiser"] = node("ModelSave", model=["alone", 0])
    for kind in {"checkpoint", "denoiser", "delta", "lora"} & graph.keys():
        graph[kind]["inputs"]["filename_prefix"] = f"again/{name}-{kind}"
    done = comfy.run(graph, timeout=3600)
    assert done.status == "success", done.error

    def again(kind):
        (path,) = (comfy.base / "output/again").glob(f"{name}-{kind}_*.safetensors")
        return load_file(path)

    written = load_file(whole)
    seen = again("checkpoint")
    weights = {key: tensor for key, tensor in written.items() if tensor.numel()}  # the others are marks
    assert all(torch.equal(seen[key].float(), tensor.float()) for key, tensor in weights.items())
    trained = {key: tensor.float() for key, tensor in written.items() if key.startswith(DENOISER)}
    if "denoiser" in graph:
        seen = again("denoiser")
        assert all(torch.equal(seen[key].float(), tensor) for key, tensor in trained.items())
    change = {key: tensor - base[key].float() for key, tensor in trained.items()}
    size = norm(change.values())
    for kind, share in (("delta", 0.01), ("lora", 0.9)):
        seen = again(kind)
        assert norm(seen[key].float() - tensor for key, tensor in trained.items()) < share * size, kind


def norm(tensors):
    return sum(tensor.double().square().sum() for tensor in tensors) ** 0.5
