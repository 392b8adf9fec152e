"""Graphs in ComfyUI's API form, for tests."""

import json
from pathlib import Path
from typing import Any

WORKFLOWS = sorted((Path(__file__).parent / "workflows").glob("*.json"))
"""The example workflows in API form."""

SHORT: dict[str, dict[str, Any]] = {
    "TurpentineDiversePromptSet": {"n": 4, "n_test": 4},
    "TurpentineModelFromComfyUI": {"image_size": 64},
    "TurpentineGenerate": {"images": 2, "num_inference_steps": 2},
    "TurpentineUnlearnConcept": {"steps": 2, "learning_rate": 1e-3},
    "TurpentineUnlearnOptions": {
        "batch_size": 2, "num_inference_steps": 2, "audit_images": 2, "audit_retain_train_images": 2,
    },
    "TurpentineAuditAlignment": {"model": "tiny-canvas", "allow_download": False},
    "EmptyLatentImage": {"width": 64, "height": 64, "batch_size": 1},
    "KSampler": {"steps": 2},
}  # fmt: skip
"""Widgets by node that make a graph quick: few prompts, pictures and steps."""


def node(id_: str, **inputs: Any) -> dict[str, Any]:
    """A node; a list [id, output] is a wire."""
    return {"class_type": id_, "inputs": inputs}


def shipped(number: str) -> dict[str, Any]:
    """An example workflow by its number."""
    return json.loads(next(path for path in WORKFLOWS if path.stem.startswith(number)).read_text())


def short(graph: dict[str, Any]) -> dict[str, Any]:
    """The same graph, made quick; an UnlearnConcept without options gets some."""
    for id_, each in list(graph.items()):
        if each["class_type"] == "TurpentineUnlearnConcept" and "options" not in each["inputs"]:
            each["inputs"]["options"] = [f"{id_}o", 0]
            graph[f"{id_}o"] = node("TurpentineUnlearnOptions")
    for each in graph.values():
        each["inputs"] |= SHORT.get(each["class_type"], {})
    return graph


def native(family: str) -> dict[str, Any]:
    """A checkpoint over the bridge and through a short unlearning."""
    latent = "EmptySD3LatentImage" if family == "sd3" else "EmptyLatentImage"
    return {
        "load": node("CheckpointLoaderSimple", ckpt_name=f"{family}.safetensors"),
        "+": node("CLIPTextEncode", text="a photo of a cat", clip=["load", 1]),
        "-": node("CLIPTextEncode", text="", clip=["load", 1]),
        "latent": node(latent, width=64, height=64, batch_size=2),
        "bridge": node(
            "TurpentineModelFromComfyUI",
            model=["load", 0], clip=["load", 1], vae=["load", 2], name=f"tiny-{family}", image_size=64,
        ),
        "set": node("TurpentineDiversePromptSet", concept="cat", kind="object", world="open", seed=0, n=2, n_test=2),
        "options": node(
            "TurpentineUnlearnOptions",
            batch_size=2, num_inference_steps=2, scheduler="dpm-solver++", audit_images=2, audit_retain_train_images=2,
        ),
        "unlearn": node(
            "TurpentineUnlearnConcept",
            model=["bridge", 0], prompts=["set", 0], options=["options", 0], method="rgd", steps=2,
            learning_rate=1e-3, seed=0, save_as="nothing", measure=False,
        ),
    }  # fmt: skip


def draw(graph: dict[str, Any], name: str, model: list[Any], vae: list[Any], **sampler: Any) -> None:
    """Add what draws with a MODEL, from the graph's conditionings "+" and "-", and shows it as `name`."""
    sampler = {
        "positive": ["+", 0], "negative": ["-", 0], "latent_image": ["latent", 0], "seed": 3, "steps": 4, "cfg": 3.0,
        "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0, **sampler,
    }  # fmt: skip
    graph |= {
        f"{name}-s": node("KSampler", model=model, **sampler),
        f"{name}-d": node("VAEDecode", samples=[f"{name}-s", 0], vae=vae),
        name: node("PreviewImage", images=[f"{name}-d", 0]),
    }
