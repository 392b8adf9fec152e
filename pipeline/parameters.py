"""Which weights of a denoiser train.

`xattn` and `noxattn` are ESD-x and ESD-u of Gandikota et al. 2023: the cross-attention layers
alone, and every linear or convolution layer outside them. `lora` are the factors of a LoRA that was
put into the network before.

A transformer with joint attention (MMDiT of SD3, Flux) has no cross-attention: text and image tokens
attend to each other in one sequence (Esser et al. 2024, Section 4), but each stream has its own
projections. There the text side is what ESD-x means: the query, key, value and output projections of
the added (text) stream, through which alone the prompt's tokens enter a joint attention. EraseAnything
(Gao et al. 2025) trains two of the four, `add_q_proj` and `add_k_proj`, on Flux. Flux's single-stream
blocks share their projections between both streams, so they count as the rest. The `attn2` of SD3.5
is a second *self*-attention of the image stream and counts as the rest, too.
"""

from typing import Literal

from torch import nn

TrainableParameters = Literal["full", "xattn", "noxattn", "lora"]

CROSS_ATTENTION = "attn2"
"""diffusers' name for the cross-attention module of a transformer block."""

TEXT_STREAM = ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
"""diffusers' names for the text side of a joint attention."""


def select_parameters(module: nn.Module, which: TrainableParameters) -> dict[str, nn.Parameter]:
    """Give the named parameters that shall train, in the module's order.

    Raises:
        ValueError: unknown selection, or one that holds nothing in this module.
    """
    named = dict(module.named_parameters())
    joint = any(part in TEXT_STREAM for name in named for part in name.split("."))
    text_side = set(TEXT_STREAM if joint else (CROSS_ATTENTION,))
    if which == "full":
        chosen = named
    elif which == "xattn":
        chosen = {name: p for name, p in named.items() if text_side & set(name.split("."))}
    elif which == "noxattn":
        layers = {
            name
            for name, layer in module.named_modules()
            if isinstance(layer, nn.Linear | nn.modules.conv._ConvNd) and not text_side & set(name.split("."))
        }
        chosen = {name: p for name, p in named.items() if name.rpartition(".")[0] in layers}
    elif which == "lora":
        chosen = {name: p for name, p in named.items() if {"lora_A", "lora_B"} & set(name.split("."))}
    else:
        raise ValueError(f"parameters must be one of 'full', 'xattn', 'noxattn', 'lora', got {which!r}.")
    if not chosen:
        raise ValueError(f"parameters={which!r} selects nothing in a {type(module).__name__}. Choose 'full'.")
    return chosen
