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

from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from .choices import TrainableParameters

Weight = TypeVar("Weight", bound=Tensor)

CROSS_ATTENTION = "attn2"
"""diffusers' name for the cross-attention module of a transformer block."""

TEXT_STREAM = ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
"""diffusers' names for the text side of a joint attention."""

_TOKENS, _POOLED = "prompt_embeds", "pooled_prompt_embeds"
_ENTRANCES = {"attn2.to_k": _TOKENS, "attn2.to_v": _TOKENS, "add_embedding.linear_1": _POOLED}
_JOINT_ENTRANCES = {"context_embedder": _TOKENS, "time_text_embed.text_embedder.linear_1": _POOLED}


def text_entrances(weights: Mapping[str, Weight]) -> dict[str, dict[str, Weight]]:
    """Those of a network's weights that read a prompt's embedding itself, by which part of it they read.

    A UNet's cross-attention reads the tokens in its key and value projections. A joint attention's own text
    projections read what earlier blocks made of text *and* image, at each timestep something else; the prompt enters
    through `context_embedder`, which is linear, as UCE's code for Flux edits it. The pooled embedding enters SDXL,
    SD3 and Flux beside the time.

    Args:
        weights: by name, all of a network's or some.

    Returns:
        Name of the conditioning -> name of the weight -> the weight, (O, I): it reads an embedding of D entries with
        its first D columns. Empty where none reads the tokens.
    """
    joint = any(name.startswith("context_embedder.") for name in weights)
    found: dict[str, dict[str, Weight]] = {}
    for name, weight in weights.items():
        for layer, part in (_JOINT_ENTRANCES if joint else _ENTRANCES).items():
            if f".{name}".endswith(f".{layer}.weight"):
                found.setdefault(part, {})[name] = weight
    return found if _TOKENS in found else {}


def select_parameters(module: nn.Module, which: TrainableParameters) -> dict[str, nn.Parameter]:
    """Give the parameters to train by name, in the module's order.

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


def largest(tensors: Sequence[Tensor], share: float) -> list[Tensor]:
    """Mask the entries that are largest in magnitude, over all tensors together.

    The threshold is exact and costs no copy of all entries: the bits of a non-negative float32, read as
    a whole number, keep its order, so that counting the upper and then the lower 16 bits finds it.

    Args:
        tensors: of any shapes and devices; taken as float32.
        share: of all entries to keep, in (0, 1]. Entries equal to the smallest one kept are kept too.

    Returns:
        Boolean tensors, shaped like `tensors`.

    Raises:
        ValueError: a share outside of (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"the share to keep must be above 0 and at most 1, got {share}.")
    wanted = max(1, round(share * sum(tensor.numel() for tensor in tensors)))
    upper = _place(sum(_counts(_bits(tensor) >> 16) for tensor in tensors), wanted)
    inside = (_bits(tensor) for tensor in tensors)
    lower = _place(sum(_counts(bits[bits >> 16 == upper[0]] & 0xFFFF) for bits in inside), wanted - upper[1])
    threshold = (upper[0] << 16) + lower[0]
    return [(_bits(tensor) >= threshold).reshape(tensor.shape) for tensor in tensors]


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().float().abs().flatten().view(torch.int32)


def _counts(values: Tensor) -> Tensor:
    return torch.bincount(values, minlength=1 << 16).cpu()


def _place(counts: Tensor | int, wanted: int) -> tuple[int, int]:
    """The bin, counted from the top, in which entry number `wanted` lies, and how many lie above it."""
    falling = torch.as_tensor(counts).flip(0).cumsum(0)
    place = int((falling < wanted).sum())
    above = int(falling[place - 1]) if place else 0
    return len(falling) - 1 - place, above
