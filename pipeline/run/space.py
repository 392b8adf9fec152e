"""The room on the disk that a run takes, worked out before anything is drawn."""

import math
import shutil
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from ..models import Denoiser
from ..prompts import PromptSet
from ..schema.recipe import Recipe
from ..support.errors import UserError
from ..support.text import size
from ..weights import DTYPES, FORMATS
from .cost import moment_bytes

_KEPT = 2
"""Checkpoints that lie beside each other while a run trains; a third is there for the moment of writing."""


def room_needed(denoiser: Denoiser, recipe: Recipe, prompts: PromptSet, trained: Mapping[str, Tensor]) -> int:
    """Bytes that a run writes at least: its samples, its checkpoints, and its weights in every format.

    Args:
        denoiser: the model.
        recipe: what is to be done.
        prompts: of the run.
        trained: the weights that will change.
    """
    written = sum(_format_bytes(name, denoiser, recipe, trained) for name in recipe.output.formats)
    if recipe.method.closed_form:
        return written
    moments = sum(moment_bytes(tensor, recipe.training) for tensor in trained.values())
    checkpoint = moments + sum(tensor.numel() * 4 for tensor in trained.values())
    saved = math.ceil(recipe.training.steps / recipe.training.checkpoint_every)
    return min(saved, _KEPT) * checkpoint + written + _sample_bytes(denoiser, recipe, prompts)


def check_room(out: Path, needed: int, free: int | None = None) -> None:
    """Refuse a run that its disk has no room for.

    Args:
        out: the run folder; what lies in it already counts as room, as a run that goes on has written some of it.
        needed: bytes, see `room_needed`.
        free: bytes that are free; None looks.

    Raises:
        UserError: there are fewer.
    """
    held = sum(file.lstat().st_size for file in out.rglob("*") if file.is_file()) if out.is_dir() else 0
    if free is None:
        there = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
        free = shutil.disk_usage(there).free
    if free + held < needed:
        raise UserError(
            f"the run will write at least {size(needed)} into {out}, whose disk has {size(free + held)} free. Free "
            "some space, choose another --out, or fewer --formats."
        )


def _format_bytes(name: str, denoiser: Denoiser, recipe: Recipe, trained: Mapping[str, Tensor]) -> int:
    """Bytes of one format; of an extracted LoRA with a share of the change instead of a rank, at least none."""
    network = _count(denoiser.module)
    parts = [part for part in denoiser.pipeline.components.values() if isinstance(part, nn.Module)]
    if not FORMATS[name].of_difference:
        count = network if FORMATS[name].read else sum(map(_count, parts))
    elif name == "delta":
        count = network if recipe.training.parameters == "lora" else sum(tensor.numel() for tensor in trained.values())
    elif recipe.training.parameters == "lora":
        count = sum(tensor.numel() for tensor in trained.values())
    else:
        matrices = [tensor for tensor in trained.values() if tensor.ndim in (2, 4)]
        ranks = [min(recipe.output.lora_rank, each.shape[0], each[0].numel()) for each in matrices]
        count = sum(rank * (each.shape[0] + each[0].numel()) for rank, each in zip(ranks, matrices, strict=True))
        count = 0 if recipe.output.lora_energy else count
    return count * DTYPES[recipe.output.dtype].itemsize


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _sample_bytes(denoiser: Denoiser, recipe: Recipe, prompts: PromptSet) -> int:
    """Latents of the terms that are looked at, and the embeddings of the distinct prompts."""
    if recipe.data.dataset is not None:
        return 0
    rows = denoiser.encode_prompts(prompts.forget_train[:1])
    embedding = sum(tensor.numel() * tensor.element_size() for tensor in rows.values())
    latents = len(recipe.method.sees) * len(prompts.train) * math.prod(denoiser.latent_shape(recipe.samples.image_size))
    return 4 * latents + embedding * (
        len({*prompts.forget_train}) + len({*prompts.retain_train, *prompts.anchor_train})
    )
