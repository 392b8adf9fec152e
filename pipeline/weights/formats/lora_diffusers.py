"""`lora_diffusers`: a low-rank change under diffusers' names, with the adapter's metadata."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache

from torch import Tensor

from ...models.family import Family
from ...support.errors import UserError
from ..format import BASE, Claim, Format, Keys
from ..job import Job, Written
from ..layouts import Entry
from ..lora_file import claim_layers, written_lora
from ..lora_scale import PEFT, PEFT_FILE, KohyaScale, Layer, PeftScale, adapter_configs


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
    """The layers by their diffusers names: after the component, after peft's prefix, or alone.

    Raises:
        UserError: a file that peft saved without its `adapter_config.json`; see `claim_layers` and `PeftScale`.
    """

    def split(layer: str) -> tuple[str, str]:
        if f"{layer}.weight" in keys.shapes:
            return "", layer
        prefix = PEFT if layer.startswith(f"{PEFT}.") else layer.partition(".")[0]
        return prefix, layer.removeprefix(f"{prefix}.")

    def place(layer: str) -> Entry | None:
        name = f"{split(layer)[1]}.weight"
        return Entry((name,)) if name in keys.shapes else None

    names_of_peft = any(name.startswith(f"{PEFT}.") for name in keys.names)
    by_peft = names_of_peft or keys.path.name == PEFT_FILE
    configs = adapter_configs(keys.metadata, keys.path.parent if by_peft else None)
    if names_of_peft and PEFT not in configs:
        raise UserError("peft saved it, and adapter_config.json, which says how it is scaled, is not beside it.")
    kohya = KohyaScale(keys.metadata)

    @cache
    def of_component(prefix: str) -> Callable[[Layer], float]:
        source = PEFT if by_peft and prefix not in configs else prefix
        return PeftScale(configs[source]) if source in configs else kohya

    def scale(name: str, layer: Layer) -> float:
        prefix, bare = split(name)
        return of_component(prefix)(replace(layer, name=bare))

    return claim_layers(keys, place, scale)


FORMAT = Format(write_lora_diffusers, rank=2, of_difference=True, load=load_lora_diffusers, read=read_lora_diffusers)
