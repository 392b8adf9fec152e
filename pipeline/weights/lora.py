"""`lora` and `lora_diffusers`: the same low-rank change under kohya's names and under diffusers'.

kohya's names are what ComfyUI and A1111 load: `lora_unet_`, the layer's name with underscores,
`.lora_down.weight`, `.lora_up.weight`, `.alpha`. The layer has its diffusers name in Stable Diffusion
1 and 2 and its original name, q, k and v in one, elsewhere, as in kohya-ss/sd-scripts.
"""

import json

import torch
from torch import Tensor, nn

from ..models.registry import family_of
from .factors import Adapter, Factors
from .job import Job, Written
from .layouts import Entry, denoiser_layout
from .provenance import save_tensors

KOHYA = "lora_unet_"


def write_lora(job: Job) -> Written:
    """Write `{name}-lora.safetensors`, kohya names."""
    adapter = job.adapter
    tensors: dict[str, Tensor] = {}
    for name, factors in kohya_layers(adapter, job.denoiser.module).items():
        stem = KOHYA + name.replace(".", "_")
        tensors[f"{stem}.lora_down.weight"] = job.cast(factors.down)
        tensors[f"{stem}.lora_up.weight"] = job.cast(factors.up)
        tensors[f"{stem}.alpha"] = job.cast(torch.tensor(factors.alpha))
    first = next(iter(adapter.layers.values()))
    return _written(
        job,
        "lora",
        f"{job.name}-lora.safetensors",
        tensors,
        ss_network_module="networks.lora",
        ss_network_dim=str(adapter.fit.rank),
        ss_network_alpha=str(first.alpha * adapter.fit.rank / first.rank),
    )


def write_lora_diffusers(job: Job) -> Written:
    """Write `{name}-lora-diffusers.safetensors` with the adapter's metadata for `load_lora_weights`."""
    adapter = job.adapter
    tensors: dict[str, Tensor] = {}
    for name, factors in adapter.layers.items():
        tensors[f"{job.denoiser.component}.{name}.lora_A.weight"] = job.cast(factors.down)
        tensors[f"{job.denoiser.component}.{name}.lora_B.weight"] = job.cast(factors.up)
    # "^" because peft matches patterns from the end: conv_in would also mean encoder.conv_in
    config = {
        "r": adapter.fit.rank,
        "lora_alpha": adapter.fit.rank,
        "rank_pattern": {f"^{name}": factors.rank for name, factors in adapter.layers.items()},
        "alpha_pattern": {f"^{name}": factors.alpha for name, factors in adapter.layers.items()},
        "target_modules": sorted(adapter.layers),
    }
    packed = json.dumps({f"{job.denoiser.component}.{key}": value for key, value in config.items()}, sort_keys=True)
    return _written(
        job, "lora_diffusers", f"{job.name}-lora-diffusers.safetensors", tensors, lora_adapter_metadata=packed
    )


def _written(job: Job, kind: str, name: str, tensors: dict[str, Tensor], **more: str) -> Written:
    more["turpentine.lora"] = job.adapter.fit.model_dump_json()
    more["modelspec.architecture"] = f"{job.metadata['modelspec.architecture']}/lora"
    path = job.folder / name
    save_tensors(tensors, path, job.header(kind, **more))
    return Written(path, [path], job.adapter.fit)


def kohya_layers(adapter: Adapter, module: nn.Module) -> dict[str, Factors]:
    """The adapter's layers under the names, with dots, that kohya's files give them."""
    if names_are_diffusers(module):
        return adapter.layers
    layers = {}
    for original, entry in denoiser_layout(module).items():
        sources = [source.removesuffix(".weight") for source in entry.sources]
        if not original.endswith(".weight") or not set(sources) & set(adapter.layers):
            continue
        scaled = []
        for source, name in zip(sources, entry.sources, strict=True):
            factors = adapter.layers.get(source)
            if factors is None:  # the others of the stack changed: this one by nothing
                shape = module.get_parameter(name).shape
                factors = Factors(torch.zeros(shape[0], 1), torch.zeros(1, *shape[1:]), 1.0)
            scaled.append(factors)
        layers[original.removesuffix(".weight")] = _stacked(entry, scaled)
    return layers


def _stacked(entry: Entry, factors: list[Factors]) -> Factors:
    if len(factors) == 1:
        up, down = entry.factors_to_original([(factors[0].up, factors[0].down)])
        return Factors(up, down, factors[0].alpha)
    up, down = entry.factors_to_original([(each.up * (each.alpha / each.rank), each.down) for each in factors])
    return Factors(up, down, float(down.shape[0]))


def names_are_diffusers(module: nn.Module) -> bool:
    """Whether kohya's files name this network's layers as diffusers does (Stable Diffusion 1 and 2)."""
    family = family_of(module)
    return family is not None and family.lora_names == "diffusers"
