"""`lora_diffusers`: a low-rank change under diffusers' names, with the adapter's metadata."""

import json
from collections.abc import Callable, Mapping

from torch import Tensor

from ...models.family import Family
from ..format import BASE, Claim, Format, Keys
from ..job import Job, Written
from ..layouts import Entry
from ..lora_file import claim_layers, written_lora


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
    return written_lora(
        job, "lora_diffusers", f"{job.name}-lora-diffusers.safetensors", tensors, lora_adapter_metadata=packed
    )


def load_lora_diffusers(path: str, family: type[Family] | None) -> str:
    """As diffusers puts a LoRA into the base model."""
    return f"{BASE}pipeline.load_lora_weights({path})"


def read_lora_diffusers(keys: Keys) -> Claim:
    """The layers by their diffusers names, the component before them."""

    def place(layer: str) -> Entry | None:
        name = f"{layer.partition('.')[2]}.weight"
        return Entry((name,)) if name in keys.shapes else None

    return claim_layers(keys, place, alphas(keys.metadata))


def alphas(metadata: Mapping[str, str]) -> Callable[[str], float | None]:
    """Gives a layer's alpha from the adapter metadata that diffusers writes, else its component's, else None."""
    config = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    exact: dict[str, float] = {}
    general: dict[str, float] = {}
    for key, value in config.items():
        component, _, field = key.partition(".")
        if field == "lora_alpha":
            general[component] = float(value)
        elif field == "alpha_pattern":
            exact |= {f"{component}.{layer.removeprefix('^')}": float(alpha) for layer, alpha in value.items()}
    return lambda layer: exact.get(layer, general.get(layer.partition(".")[0]))


FORMAT = Format(write_lora_diffusers, rank=2, of_difference=True, load=load_lora_diffusers, read=read_lora_diffusers)
