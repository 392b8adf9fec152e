"""`lora`: a low-rank change under kohya's names, which ComfyUI and A1111 load.

`lora_unet_`, the layer's name with underscores, `.lora_down.weight`, `.lora_up.weight`, `.alpha`. The layer has
its diffusers name in Stable Diffusion 1 and 2 and its original name, q, k and v in one, elsewhere, as in
kohya-ss/sd-scripts.
"""

import torch
from torch import Tensor, nn

from ...models import Denoiser
from ..factors import Adapter, Factors
from ..format import Claim, Format, Keys
from ..job import Job, Written
from ..layouts import Entry, denoiser_layout
from ..lora_file import claim_layers, written_lora
from ..lora_scale import KohyaScale
from ..names import kohya_name, names_are_diffusers


def write_lora(job: Job) -> Written:
    """Write `{name}-lora.safetensors`, kohya names."""
    adapter = job.adapter
    tensors: dict[str, Tensor] = {}
    for name, factors in kohya_layers(adapter, job.denoiser.module).items():
        stem = kohya_name(name)
        tensors[f"{stem}.lora_down.weight"] = job.cast(factors.down)
        tensors[f"{stem}.lora_up.weight"] = job.cast(factors.up)
        tensors[f"{stem}.alpha"] = job.cast(torch.tensor(factors.alpha))
    first = next(iter(adapter.layers.values()))
    return written_lora(
        job,
        "lora",
        f"{job.name}-lora.safetensors",
        tensors,
        ss_network_module="networks.lora",
        ss_network_dim=str(adapter.fit.rank),
        ss_network_alpha=str(first.alpha * adapter.fit.rank / first.rank),
    )


def check_lora(denoiser: Denoiser) -> None:
    """Refuse a network whose layers kohya's files have no names for.

    Raises:
        UserError: neither diffusers' names nor an original layout.
    """
    if not names_are_diffusers(denoiser.module):
        denoiser_layout(denoiser.module)


def read_lora(keys: Keys) -> Claim:
    """The layers that kohya's files name, by their original or their diffusers name.

    Raises:
        UserError: see `claim_layers` and `KohyaScale`.
    """
    own = {name: Entry((name,)) for name in keys.shapes}
    places = {
        kohya_name(name.removesuffix(".weight")): entry
        for name, entry in [*keys.original.items(), *own.items()]
        if name.endswith(".weight")
    }
    scale = KohyaScale(keys.metadata)
    return claim_layers(keys, places.get, lambda _, layer: scale(layer))


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


FORMAT = Format(write_lora, rank=3, of_difference=True, check=check_lora, read=read_lora)
