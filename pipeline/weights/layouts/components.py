"""The layout of a given network: its family's rows for a denoiser, shared tables for the other components."""

from collections.abc import Callable, Iterable

from torch import nn

from ...models.family import Names, Row
from ...models.registry import ADAPTERS, family_of
from ...support.errors import UserError
from .table import Layout, Unmapped, build_layout
from .tables import CLIP, open_clip_rows, vae_rows


def denoiser_layout(module: nn.Module) -> Layout:
    """The original layout of a UNet or transformer, without a prefix.

    Raises:
        UserError: a class that has no table, or a network with parts that its original never had.
    """
    family = family_of(module)
    if family is None or not family.places:
        known = list(dict.fromkeys(each.network.__name__ for each in ADAPTERS if each.places))
        raise UserError(
            f"expected a {', '.join(known[:-1])} or {known[-1]} for the names of the original layout, got "
            f"{type(module).__name__}. Choose the formats diffusers, denoiser or lora_diffusers."
        )
    return _build(module, family.layout(module.config), "denoiser")


def component_layout(module: nn.Module, names: Names) -> Layout:
    """The layout of a component of a checkpoint, without a prefix.

    Raises:
        UserError: a class that has no table, or a network with parts that its original never had.
    """
    makers: dict[Names, Callable[[nn.Module], Layout]] = {
        "denoiser": denoiser_layout,
        "autoencoder": vae_layout,
        "transformers": text_encoder_layout,
        "open_clip": open_clip_layout,
    }
    return makers[names](module)


def vae_layout(vae: nn.Module) -> Layout:
    """The original layout of an `AutoencoderKL`, without a prefix.

    Raises:
        UserError: another class of autoencoder.
    """
    if type(vae).__name__ != "AutoencoderKL":
        raise UserError(
            f"single_file needs an AutoencoderKL, and this model has an {type(vae).__name__}, for which checkpoints "
            "have no place. Choose the formats diffusers, denoiser, lora, lora_diffusers or delta."
        )
    return _build(vae, vae_rows(len(vae.config.up_block_types)), "autoencoder")  # type: ignore[union-attr, arg-type]


def text_encoder_layout(encoder: nn.Module) -> Layout:
    """A text encoder under transformers' names: CLIP's with `text_model`, T5's as they are."""
    is_clip = type(encoder).__name__.startswith("CLIP")
    return _build(encoder, CLIP if is_clip else (("**", "**"),), "text encoder")


def open_clip_layout(encoder: nn.Module) -> Layout:
    """A CLIP text encoder under open_clip's names, q, k and v in one tensor."""
    prefix = "text_model." if any(name.startswith("text_model.") for name in encoder.state_dict()) else ""
    return _build(encoder, open_clip_rows(prefix), "text encoder")


def _build(module: nn.Module, rows: Iterable[Row], what: str) -> Layout:
    names = [name for name in module.state_dict() if not name.endswith("position_ids")]
    try:
        return build_layout(names, rows)
    except Unmapped as error:
        raise UserError(
            f"the {what} has {error}, for which the original layout of its class has no place. Choose the formats "
            "diffusers, denoiser or lora_diffusers."
        ) from None
