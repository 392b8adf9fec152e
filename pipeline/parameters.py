"""Which weights of a denoiser train.

`xattn` and `noxattn` are ESD-x and ESD-u of Gandikota et al. 2023: the cross-attention layers
alone, and every linear or convolution layer outside them. `lora` are the factors of a LoRA that was
put into the network before.
"""

from typing import Literal

from torch import nn

TrainableParameters = Literal["full", "xattn", "noxattn", "lora"]

CROSS_ATTENTION = "attn2"
"""diffusers' name for the cross-attention module of a transformer block."""


def select_parameters(module: nn.Module, which: TrainableParameters) -> dict[str, nn.Parameter]:
    """Give the named parameters that shall train, in the module's order.

    Raises:
        ValueError: unknown selection, or one that holds nothing in this module.
    """
    named = dict(module.named_parameters())
    if which == "full":
        chosen = named
    elif which == "xattn":
        chosen = {name: p for name, p in named.items() if CROSS_ATTENTION in name.split(".")}
    elif which == "noxattn":
        layers = {
            name
            for name, layer in module.named_modules()
            if isinstance(layer, nn.Linear | nn.modules.conv._ConvNd) and CROSS_ATTENTION not in name.split(".")
        }
        chosen = {name: p for name, p in named.items() if name.rpartition(".")[0] in layers}
    elif which == "lora":
        chosen = {name: p for name, p in named.items() if {"lora_A", "lora_B"} & set(name.split("."))}
    else:
        raise ValueError(f"parameters must be one of 'full', 'xattn', 'noxattn', 'lora', got {which!r}.")
    if not chosen:
        raise ValueError(f"parameters={which!r} selects nothing in a {type(module).__name__}. Choose 'full'.")
    return chosen
