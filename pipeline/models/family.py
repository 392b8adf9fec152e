"""The facts of a model family: attributes that every adapter fills in, and that others read.

A family is one file: its adapter, and with it how it is recognised, which tensors its published checkpoints
hold where, what LoRAs call its layers, which defaults it starts from, and how large its public models are.
`registry.ADAPTERS` lists the families; nobody else asks for one by name.
"""

from __future__ import annotations

import inspect
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:  # the schema reads a fact from here, and must load without torch
    from torch import Tensor, nn

How = Literal["same", "swap", "transpose", "conv"]
"""As it is, the halves of the first axis exchanged, a matrix transposed, a matrix kept as a 1x1 convolution."""

Row = tuple[str, str] | tuple[str, str, How]
"""A tensor's name in diffusers and in the original checkpoint, see `weights.layouts.table` for the wildcards."""

Names = Literal["denoiser", "autoencoder", "transformers", "open_clip"]
"""Whose names a component's tensors have in a checkpoint: the family's own, the autoencoder's, or a text encoder's."""

LayerNames = Literal["diffusers", "original"]


@dataclass(frozen=True)
class Place:
    """Where a complete checkpoint keeps a component.

    Attributes:
        prefix: stands before each of its keys.
        names: how they go on.
    """

    prefix: str
    names: Names


def tokenizer_of(encoder: str) -> str:
    """The tokenizer's component beside that of a text encoder, "tokenizer_2" for "text_encoder_2"."""
    return encoder.replace("text_encoder", "tokenizer")


class Family:
    """The facts of a family, which hold for every model of it.

    Attributes:
        family: its name, in headers, results and messages.
        component: where its pipelines keep the network that is unlearned, "unet" or "transformer".
    """

    family: str
    component: str

    # how it is recognised
    pipeline_class: ClassVar[Any]
    siblings: ClassVar[tuple[Any, ...]] = ()
    """Pipelines for other tasks that hold the same components (image-to-image, inpainting)."""
    network: ClassVar[type[nn.Module]]
    """Class of the network that is unlearned."""
    marks: ClassVar[tuple[str, ...]] = ()
    """Keys by which a file with its denoiser is known: first of the original layout, then of diffusers'."""
    prefix_alone: ClassVar[str] = ""
    """Prefix that diffusers wants before the keys of a denoiser alone, in the original layout."""
    kinds: ClassVar[tuple[str, ...]] = ()
    """diffusers' names for its checkpoints."""
    other_kinds: ClassVar[tuple[str, ...]] = ()
    """The same for its checkpoints whose denoiser takes more than noisy latents, which are refused for that."""

    # what it starts from
    defaults: ClassVar[tuple[str, ...]] = ("stable-diffusion",)
    """Folders of shipped recipes that hold its defaults, each building on the one before."""

    # where its published checkpoints keep it
    text_encoders: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Text encoders, and where a single-file checkpoint keeps each: component -> prefix of its keys."""
    prompt_tokens: ClassVar[Mapping[str, int]] = MappingProxyType({})
    """Text encoder -> tokens of a prompt that its pipelines let it read, where the tokenizer doesn't say."""
    may_lack: ClassVar[tuple[str, ...]] = ()
    """Text encoders that a complete model may do without."""
    places: ClassVar[Mapping[str, Place]] = MappingProxyType({})
    """Component -> its place in a checkpoint that is written; empty where none was ever published."""

    # LoRAs
    lora_names: ClassVar[LayerNames] = "original"
    """Whose layer names kohya's LoRA files have."""
    attention: ClassVar[tuple[str, ...]] = ("to_q", "to_k", "to_v", "to_out.0")
    """Endings of the names of the linear layers of its attention modules, beside which a LoRA is put."""

    # sizes
    known: ClassVar[Mapping[str, Mapping[str, Any]]] = MappingProxyType({})
    """Public models by a short name: the fields of the network's config that differ from the class's defaults."""
    tiny: ClassVar[Mapping[str, Any]]
    """A config of the network that is small enough for a test."""

    @classmethod
    def owns(cls, module: nn.Module) -> bool:
        """Tell whether a network is of this family."""
        return isinstance(module, cls.network)

    @classmethod
    def needs(cls, held: Container[str]) -> list[str]:
        """The components without which none of its pipelines works.

        Args:
            held: components that are there; a text encoder that a model may lack needs its tokenizer if it is there.
        """
        names = [cls.component, "scheduler", "vae"]
        for encoder in cls.text_encoders:
            if encoder not in cls.may_lack or encoder in held:
                names += [encoder, tokenizer_of(encoder)]
        takes = inspect.signature(cls.pipeline_class.__init__).parameters
        return [name for name in names if name in takes]

    @classmethod
    def checkpoint(cls, pipeline: Any) -> Mapping[str, Place]:
        """The places of the components of one model; `places` unless its versions differ."""
        return cls.places

    @classmethod
    def checkpoint_marks(cls, pipeline: Any) -> dict[str, Tensor]:
        """Tensors that a checkpoint holds beside the weights, by which loaders know what kind of model it is."""
        return {}

    @staticmethod
    def layout(config: Any) -> Iterable[Row]:
        """The rows of the denoiser's original layout, for families that have `places`.

        Args:
            config: of the network.
        """
        raise NotImplementedError

    @staticmethod
    def example_inputs(config: Any, batch_size: int, side: int | None) -> dict[str, Any]:
        """Arguments of the network's `forward` in training.

        Args:
            config: of the network.
            batch_size: B.
            side: height and width of the latents; None for what the model was trained at.
        """
        raise NotImplementedError
