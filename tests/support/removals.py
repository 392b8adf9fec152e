"""Models from which something was removed, made in no time, and runs of tiny size."""

from types import SimpleNamespace

import torch
from turpentine.pipeline.api import recipe_for
from turpentine.pipeline.models import load_denoiser
from turpentine.pipeline.run.unlearning import run_recipe
from turpentine.pipeline.run.weights import run_header
from turpentine.pipeline.schema.defaults import build_recipe
from turpentine.pipeline.schema.resolve import resolve
from turpentine.pipeline.weights import Job, base_hashes, snapshot, tensors_sha256, write_weights

TINY = {
    "steps": 1, "image_size": 16, "num_inference_steps": 2, "batch_size": 2, "prompts": {"n": 4, "n_test": 1},
    "audits": {"images": 1, "retain_train_images": 1, "alignment": False, "nudity": "off"}, "learning_rate": 1e-2,
}  # fmt: skip


def run(model, concept, folder, **fields):
    run_recipe(recipe_for(concept, str(model), {**TINY, **fields}), folder)
    return folder


def same(a, b):
    return set(a) == set(b) and tensors_sha256(a) == tensors_sha256(b)


def removed(model, concept, folder, dtype="fp32", formats=("diffusers", "delta"), seed=0):
    """What a run leaves that removes a concept from a model: its weights are moved at random."""
    denoiser = load_denoiser(str(model), "cpu")
    base = snapshot(denoiser.module)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in denoiser.module.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    recipe = build_recipe({"concept": concept, "model": str(model), "seed": seed})
    metadata = run_header(denoiser, resolve(recipe), base_hashes(base), None)
    records = write_weights(Job(denoiser, folder / "weights", "tiny", dtype, metadata, base=base), formats)
    files = {record.format: folder / record.path for record in records}
    return SimpleNamespace(model=files.get("diffusers"), delta=files.get("delta"), files=files, base=base,
                           after=snapshot(denoiser.module))  # fmt: skip


def weights_in(folder):
    return load_denoiser(str(folder), "cpu").module.state_dict()
