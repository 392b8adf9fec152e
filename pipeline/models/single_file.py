"""A model out of one `.safetensors` file, with the configs and tokenizers that such a file lacks."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.loaders.single_file_utils import (
    SingleFileComponentError,
    fetch_diffusers_config,
    infer_diffusers_model_type,
)
from huggingface_hub import snapshot_download
from safetensors.torch import load_file
from torch import Tensor, nn

from ..support.errors import UserError
from ..support.places import user_path
from .components import INDEX, absent, component_of, components_of, load_network, load_networks, spare
from .family import Family, tokenizer_of
from .files import FAULTS, read_header, read_json, reason_of
from .marks import PREFIX, follow, read_marks, without_marks
from .registry import ADAPTERS, pipeline_class_called
from .stages import Stages

Shapes = dict[str, list[int]]
_VAE_PREFIXES = ("first_stage_model.", "vae.")
_CONFIGS = ["*.json", "**/*.json", "*.txt", "**/*.txt", "**/*.model"]


def load_single_file(path: Path, config_folder: str | None, stages: Stages) -> tuple[Any, tuple[str, ...]]:
    """Load a checkpoint as a diffusers pipeline, on the CPU.

    Configs and tokenizers come from `config_folder`, else from the hub's cache, else from the hub.

    Args:
        path: a complete checkpoint, or a denoiser alone in the original or in diffusers' layout.
        config_folder: a diffusers folder of the same architecture. Whatever network the file lacks is
            loaded from there, so for a denoiser alone it must hold the other weights.
        stages: the number formats of its parts.

    Returns:
        The pipeline, and what the user should know.

    Raises:
        UserError: not such a file, a folder of another family, or something missing.
    """
    header = read_header(path)
    shapes = header.shapes
    adapter = recognise(shapes, path)
    marks = read_marks(header, path) if adapter.component == "unet" else None
    meta = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    kind = infer_diffusers_model_type(meta)
    kinds = [each for family in ADAPTERS for each in family.kinds]  # the first stands for "unknown", too
    if kind not in kinds and not any(kind in family.other_kinds for family in ADAPTERS):
        raise UserError(f"{path} is a checkpoint of the kind {kind!r}; expected one of {', '.join(kinds)}.")
    complete = any(key.startswith(_VAE_PREFIXES) for key in shapes)
    if not complete and not config_folder:
        raise UserError(
            f"{path} holds a {adapter.component} alone ({adapter.family}), and unlearning needs the whole model. Give "
            "model_config_folder, a diffusers folder of the same model whose other parts are to be used."
        )
    folder = _checked(user_path(config_folder), adapter) if config_folder else _from_hub(meta, path)
    try:
        components_of(folder, spare(folder, adapter), weights=False)
        load = _load_complete if complete else _load_denoiser_into
        pipeline = load(path, folder, adapter, shapes, stages)
    except NotImplementedError:  # torch's word for a weight that was never given a value
        raise UserError(
            f"{path} lacks weights of the networks that {folder} describes. Give a model_config_folder of exactly "
            "this model, or a complete file."
        ) from None
    except (*FAULTS, SingleFileComponentError) as error:
        raise UserError(
            f"can't load {path} with the configs in {folder}: {reason_of(error)}. Give a model_config_folder with the "
            f"configs, tokenizers and missing weights of exactly this {adapter.family} model."
        ) from None
    for name, part in pipeline.components.items():
        if isinstance(part, nn.Module):
            _refuse_gaps(part, name, path, folder)
            own = next((each.dtype for each in part.parameters()), torch.float32)
            part.to(stages.dtype_of(name, adapter.component, own))  # not before: diffusers would hide missing weights
    return pipeline, () if marks is None else follow(marks, pipeline, path, folder)


def recognise(keys: Iterable[str], path: Path) -> type[Family]:
    """Tell the family from a checkpoint's keys.

    Raises:
        UserError: no family's.
    """
    have = {key.removeprefix(PREFIX) for key in keys}
    for family in reversed(ADAPTERS):  # one that builds on another has its marks, too
        if have.intersection(family.marks):
            return family
    families = ", ".join(family.family for family in ADAPTERS if family.marks)
    lora = any("lora" in key for key in have)
    found = "a LoRA, which holds no model: give its base model" if lora else f"keys such as {sorted(have)[:3]}"
    raise UserError(f"expected a checkpoint of one of these families in {path}: {families}; found {found}.")


def _checked(folder: Path, adapter: type[Family]) -> Path:
    if not (folder / INDEX).exists():
        raise UserError(f"expected a diffusers folder for model_config_folder, found no {INDEX} in {folder}.")
    index = read_json(folder / INDEX)
    name = index.get("_class_name")
    if name not in [kind.__name__ for kind in (adapter.pipeline_class, *adapter.siblings)]:
        raise UserError(
            f"the checkpoint is of the family {adapter.family}, so model_config_folder must be of a "
            f"{adapter.pipeline_class.__name__}; {folder} is of a {name}."
        )
    return folder


def _from_hub(meta: dict[str, Tensor], path: Path) -> Path:
    repository = fetch_diffusers_config(meta)["pretrained_model_name_or_path"]
    for cached in (True, False):
        try:
            found = Path(snapshot_download(repository, allow_patterns=_CONFIGS, local_files_only=cached))
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            continue
        if (found / "model_index.json").is_file():
            return found
        reason = "the cache holds a part of it only"
    raise UserError(
        f"{path} needs the configs and tokenizers of {repository}, which are neither in the hub's cache nor reachable "
        f"({reason}). Give model_config_folder, a diffusers folder of that model; it needs no weights."
    )


def _load_complete(path: Path, folder: Path, adapter: type[Family], shapes: Shapes, stages: Stages) -> Any:
    other: dict[str, Any] = dict.fromkeys(spare(folder, adapter))
    for part, prefix in adapter.text_encoders.items():
        if any(key.startswith(prefix) for key in shapes):
            continue
        if any((folder / part).glob("*.safetensors")):
            other[part] = load_network(component_of(folder, part), adapter.component, stages)
        elif part in adapter.may_lack:
            other |= {part: None, tokenizer_of(part): None}
        else:
            raise ValueError(f"neither of them holds weights of the {part}.")
    return adapter.pipeline_class.from_single_file(str(path), config=str(folder), local_files_only=True, **other)


def _load_denoiser_into(path: Path, folder: Path, adapter: type[Family], shapes: Shapes, stages: Stages) -> Any:
    index = read_json(folder / INDEX)
    weights = without_marks(load_file(path))
    if adapter.marks[0] in weights:
        weights = {adapter.prefix_alone + key: value for key, value in weights.items()}
    network = getattr(diffusers, index[adapter.component][1]).from_single_file(
        weights, config=str(folder), subfolder=adapter.component, local_files_only=True
    )
    lacking = spare(folder, adapter)
    others, _ = load_networks(components_of(folder, without=[adapter.component, *lacking]), adapter.component, stages)
    kind = pipeline_class_called(index["_class_name"])
    return kind.from_pretrained(folder, **absent(folder, lacking), **{adapter.component: network}, **others)


def _refuse_gaps(part: nn.Module, name: str, path: Path, folder: Path) -> None:
    """Refuse weights without values: diffusers leaves those that it found nowhere so, and says nothing."""
    gaps = [key for key, value in part.state_dict().items() if value.is_meta]
    if gaps:
        raise UserError(
            f"{path} lacks {len(gaps)} tensors of the {name} that {folder} describes, for example {gaps[0]}. "
            "Give a model_config_folder of exactly this model."
        )
