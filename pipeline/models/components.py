"""The components of a diffusers folder: their files, and networks without a weight that is not in them.

The rule: a network is loaded only if its files are whole and hold every tensor of it. Where a component has its
weights in one variant alone (`*.fp16.safetensors`), that one is loaded; where it has both, the full one.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import ModelMixin, SchedulerMixin
from torch import nn
from transformers import PreTrainedTokenizerBase

from ..support.errors import UserError
from .family import Family
from .files import FAULTS, check_file, read_header, read_json, reason_of
from .stages import Stages

INDEX = "model_index.json"
_HALVES = {"F16": torch.float16, "BF16": torch.bfloat16}
"""safetensors' words for the number formats of half the size."""
_PICKLES = ("*.bin", "*.ckpt", "*.pt", "*.pth", "*.msgpack")


@dataclass(frozen=True)
class Component:
    """An entry of `model_index.json`.

    Attributes:
        name: of the component, and of its folder.
        kind: its class.
        folder: where it lies.
    """

    name: str
    kind: type
    folder: Path

    @property
    def is_network(self) -> bool:
        """Whether it has weights."""
        return issubclass(self.kind, nn.Module)


@dataclass(frozen=True)
class Weights:
    """The files with a network's weights.

    Attributes:
        files: of safetensors, one or its shards.
        variant: how diffusers calls these among others ("fp16"); None for the full ones.
    """

    files: tuple[Path, ...]
    variant: str | None


def entries(index: Mapping[str, Any]) -> dict[str, list[str]]:
    """The components that `model_index.json` names: name -> [library, class]."""
    pairs = {name: entry for name, entry in index.items() if isinstance(entry, list) and len(entry) == 2}
    return {name: entry for name, entry in pairs.items() if all(isinstance(each, str) for each in entry)}


def spare(folder: Path, family: type[Family]) -> list[str]:
    """Components that a folder names and does not have, and that no run needs: a safety checker, an image encoder."""
    named = entries(read_json(folder / INDEX))
    return [name for name in named if name not in family.needs(named) and not (folder / name).exists()]


def absent(folder: Path, without: Collection[str]) -> dict[str, None]:
    """What diffusers wants to be told: components that a folder says it lacks (a third text encoder), and others."""
    lacking = [name for name, entry in read_json(folder / INDEX).items() if entry == [None, None]]
    return dict.fromkeys([*lacking, *without])


def components_of(folder: Path, without: Collection[str] = (), weights: bool = True) -> list[Component]:
    """Look at the files of every component of a folder.

    Args:
        folder: with a `model_index.json`.
        without: components that come from elsewhere, or from nowhere.
        weights: whether those of its networks are needed.

    Raises:
        UserError: the first one that is missing or damaged.
    """
    return [component_of(folder, name, weights) for name in entries(read_json(folder / INDEX)) if name not in without]


def component_of(folder: Path, name: str, weights: bool = True) -> Component:
    """A component of a folder, by its name; see `components_of`.

    Raises:
        UserError: there is none, or its files are damaged.
    """
    index = read_json(folder / INDEX)
    if name not in entries(index):
        raise UserError(f"{folder / INDEX} names no {name}.")
    component = _component(folder, name, entries(index)[name], index)
    _check_component(component, weights)
    return component


def load_networks(
    components: Collection[Component], component: str, stages: Stages
) -> tuple[dict[str, nn.Module], tuple[str, ...]]:
    """The networks among components, and what the user should know; see `load_network`."""
    networks = {each.name: load_network(each, component, stages) for each in components if each.is_network}
    variants: dict[str, list[str]] = {}
    for each in components:
        if each.is_network and (variant := weights_of(each).variant):
            variants.setdefault(variant, []).append(each.name)
    return networks, tuple(
        f"the folder holds {' and '.join(names)} in the variant {variant!r} alone; it was loaded."
        for variant, names in variants.items()
    )


def load_network(part: Component, component: str, stages: Stages) -> nn.Module:
    """One network, in evaluation mode, on the CPU.

    Args:
        part: of a pipeline.
        component: name of the network that is unlearned.
        stages: the number format that the part is held in.

    Raises:
        UserError: its file lacks a tensor, or holds one of another shape, or its config is of no such network.
    """
    weights = weights_of(part)
    kind: Any = part.kind
    dtype = stages.dtype_of(part.name, component, _own_dtype(weights))
    how = {"dtype": dtype, "use_safetensors": True, "variant": weights.variant}
    try:
        network, found = kind.from_pretrained(
            part.folder, **how, output_loading_info=True, ignore_mismatched_sizes=True
        )
    except FAULTS as error:
        raise UserError(
            f"can't load the {part.name} in {part.folder}: {reason_of(error)}. Its config.json and its "
            "weights must be of one model: download it again."
        ) from None
    gaps = sorted(found["missing_keys"]) or sorted(str(each[0]) for each in found["mismatched_keys"])
    if gaps:
        raise UserError(
            f"{weights.files[0]} lacks {len(gaps)} tensors of the {part.name} that its config.json describes, for "
            f"example {gaps[0]}. Both must be of one model: download it again."
        )
    return network


def _own_dtype(weights: Weights) -> torch.dtype:
    """The number format of the files, where all weights are in the same half one; else float32."""
    found = {kind for file in weights.files for kind in read_header(file).dtypes.values()}
    return _HALVES.get(next(iter(found)), torch.float32) if len(found) == 1 else torch.float32


def weights_of(component: Component) -> Weights:
    """The files of a network's weights.

    Raises:
        UserError: there are none that can be loaded.
    """
    folder = component.folder
    stem = "diffusion_pytorch_model" if issubclass(component.kind, ModelMixin) else "model"
    found: dict[str | None, Path] = {}
    for file in sorted(folder.iterdir()):
        for pattern in (rf"{stem}(?:\.(\w+))?\.safetensors", rf"{stem}\.safetensors\.index(?:\.(\w+))?\.json"):
            if match := re.fullmatch(pattern, file.name):
                found.setdefault(match[1], file)
    if not found:
        pickles = sorted(each.name for pattern in _PICKLES for each in folder.glob(pattern))
        shards = any(folder.glob(f"{stem}*-of-*.safetensors"))
        others = f", only pickles such as {pickles[0]}, which can run any code" if pickles else ""
        others = f", only shards without their {stem}.safetensors.index.json" if shards else others
        raise UserError(
            f"expected the weights of the {component.name} in {folder / stem}.safetensors, found none{others}. "
            "Download the model with its safetensors weights."
        )
    variant = None if None in found else "fp16" if "fp16" in found else min(filter(None, found))
    file = found[variant]
    return Weights(_shards(file) if file.suffix == ".json" else (file,), variant)


def _shards(index: Path) -> tuple[Path, ...]:
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(each, str) for each in places.values()):
        raise UserError(
            f"expected a weight_map in {index}, that says which file holds which tensor. Download it again."
        )
    return tuple(index.parent / name for name in sorted({*places.values()}))


def _component(folder: Path, name: str, entry: list[str], index: Mapping[str, Any]) -> Component:
    library, kind = entry
    try:
        inside = hasattr(diffusers.pipelines, library)  # such as the safety checker's "stable_diffusion"
        home = getattr(diffusers.pipelines, library) if inside else import_module(_known(library))
        found = getattr(home, kind)
    except (ImportError, AttributeError):
        version = index.get("_diffusers_version", "unknown")
        raise UserError(
            f"{folder / INDEX} asks for {kind} of {library} as its {name}, which is not in the installed libraries "
            f"(made with diffusers {version}, installed is {diffusers.__version__}). Custom code is not run."
        ) from None
    if not (folder / name).is_dir():
        raise UserError(f"{folder / INDEX} names a {name}, and the folder {folder / name} is missing.")
    return Component(name, found, folder / name)


def _known(library: str) -> str:
    if library not in ("diffusers", "transformers"):
        raise ImportError(library)
    return library


def _check_component(component: Component, weights: bool) -> None:
    folder, kind = component.folder, component.kind
    if component.is_network:
        config = read_json(folder / "config.json")
        if config.get("quantization_config"):
            raise UserError(
                f"the {component.name} is quantised ({folder / 'config.json'} has a quantization_config), and a run "
                "needs whole weights. Give the same model in float32, float16 or bfloat16; training.base_precision "
                "quantises it for a LoRA."
            )
        for file in weights_of(component).files if weights else ():
            read_header(file)
        return
    if issubclass(kind, SchedulerMixin) and not read_json(folder / "scheduler_config.json"):
        raise UserError(f"{folder / 'scheduler_config.json'} holds no settings. Download it again.")
    if issubclass(kind, PreTrainedTokenizerBase):
        _check_tokenizer(folder, kind)
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.suffix == ".json":
            read_json(file)
        elif file.is_file() and file.suffix in (".txt", ".model"):
            check_file(file)


def _check_tokenizer(folder: Path, kind: type[PreTrainedTokenizerBase]) -> None:
    """A tokenizer is one file, or all the older ones that its class names."""
    names = dict(kind.vocab_files_names)
    whole = names.pop("tokenizer_file", "tokenizer.json")
    if (folder / whole).is_file():
        if "model" not in read_json(folder / whole):
            raise UserError(f"{folder / whole} describes no tokenizer. Download it again.")
        return
    for name in names.values():
        if not (folder / name).is_file():
            raise UserError(
                f"the tokenizer in {folder} has neither {whole} nor {name}. Download the whole model again."
            )
