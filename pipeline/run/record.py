"""`run.json`: what a run began with, so that it can be told from any other.

The recipe as it was, and hashes of what lies outside of it: the model, the prompts, and the files that the recipe
names. Whoever goes on with a run compares them with what is there now.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from diffusers import SchedulerMixin
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from ..data.pictures import find_pictures
from ..models import Denoiser
from ..prompts import PromptPair, PromptSet
from ..schema.defaults import stored_recipe
from ..schema.fields import value_at
from ..schema.recipe import Recipe
from ..support.errors import UserError
from ..support.files import sha256, write_text
from ..support.places import user_path
from ..weights import tensors_sha256

MAY_CHANGE = {
    "device": "where the same is computed",
    "model": "the place of the model, which its hashes tell",
    "model_config_folder": "the same of its configs",
    "samples.offload": "the same numbers in less memory",
    "training.gradient_checkpointing": "the same numbers in less memory",
    "training.checkpoint_every": "how much work a crash costs",
    "training.preview_every": "pictures that nothing is made of",
    "output.formats": "what is written of the weights",
    "output.dtype": "how it is written",
    "output.lora_rank": "the same",
    "output.lora_energy": "the same",
}
"""Fields of a recipe that may be edited while a run is stopped -> why. Every other field decides the weights or the
figures, one that comes later too."""

_OUTSIDE = ("method.mask", "data.dataset")
"""Fields that may name a file or folder whose content decides the weights. Prompts have a hash of their own."""

_OF_THE_FILE = ("architectures", "dtype", "torch_dtype", "transformers_version", "_name_or_path")
"""Settings of a transformers model that say how and by what it was saved."""

_NO_FOLDERS = ("digits", "cifar10")
"""Data sets that are named, whatever lies around."""


class RunRecord(BaseModel):
    """The content of `run.json`.

    Attributes:
        format: version of this file.
        recipe: the recipe that the run began with, complete.
        prompts: hash of the prompts; None as long as the run waits for its turn, with the two below empty.
        model: component -> hash, see `model_sha256`.
        files: field of the recipe -> hash of the file that it names. Of a folder the names and sizes are hashed. The
            pictures to forget have a key each, with the name of the file behind a slash.
        sha256: of all that decides the weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    recipe: dict[str, Any]
    prompts: str | None = None
    model: dict[str, str] = {}
    files: dict[str, str] = {}
    sha256: str = ""

    @classmethod
    def of(cls, recipe: Recipe, prompts: PromptSet | None = None, denoiser: Denoiser | None = None) -> "RunRecord":
        """The record of a run that begins; without prompts and model, of one that waits."""
        return cls(
            recipe=recipe.model_dump(mode="json"),
            prompts=prompts_sha256(prompts) if prompts else None,
            model=model_sha256(denoiser, _texts(prompts)) if denoiser else {},
            files=dict(_outside(recipe)) if denoiser else {},
        ).signed()

    @classmethod
    def load(cls, path: Path) -> "RunRecord":
        """Read what `save` wrote.

        Raises:
            UserError: damaged, edited, or of a newer version.
        """
        try:
            record = cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise UserError(f"{path} can't be read: {_reason(error)}.") from None
        if record.signed().sha256 != record.sha256:
            raise UserError(f"{path} was edited: its hash is that of another run.")
        return record

    def save(self, path: Path) -> None:
        """Write as JSON, whole or not at all."""
        write_text(path, self.model_dump_json(indent=1) + "\n", lasting=True)

    @property
    def began(self) -> bool:
        """False as long as the run waits for its turn."""
        return self.prompts is not None

    def check_outside(self, now: "RunRecord", run: Path) -> None:
        """Compare what lies outside of the recipe with what was there when the run began.

        Raises:
            UserError: another model, prompts or file.
        """
        anew = f"Put it back, or {start_anew(run)}"
        for name in sorted({*self.model, *now.model}):
            if self.model.get(name) != now.model.get(name):
                raise UserError(
                    f"the model {now.recipe['model']!r} is not the one that {run} began with: its {name} is another. "
                    f"{anew}"
                )
        for field in sorted({*self.files, *now.files}):
            if self.files.get(field) != now.files.get(field):
                field, _, name = field.partition("/")
                place = Path(value_at(now.recipe, tuple(field.split("."))), name)
                raise UserError(f"{place} ({field}) has changed or gone since {run} began, or is new. {anew}")
        if self.prompts != now.prompts:
            raise UserError(f"the prompts are not those that {run} began with. {anew}")

    def signed(self) -> "RunRecord":
        """The same record with the hash of all that decides."""
        decisive = {key: value for key, value in _flat(self.recipe) if key not in MAY_CHANGE}
        return self.model_copy(
            update={"sha256": _sha256([self.format, decisive, self.prompts, self.model, self.files])}
        )


def check_recipe(before: Mapping[str, Any], now: Recipe, run: Path) -> None:
    """Compare a recipe with the one that a run began with.

    Args:
        before: the recipe as it was; what it leaves out, as one of an older version does, has its default.
        now: as it is.
        run: its folder.

    Raises:
        UserError: a field differs that decides the weights or the figures.
    """
    old, new = (dict(_flat(recipe.model_dump(mode="json"))) for recipe in (stored_recipe(before), now))
    keys = [key for key in dict.fromkeys((*old, *new)) if key not in MAY_CHANGE and old.get(key) != new.get(key)]
    if "method.name" in keys:  # the options of another method say no more
        keys = ["method.name"]
    if keys:
        found = "; ".join(f"{key} {old.get(key)!r}, and the recipe now says {new.get(key)!r}" for key in keys)
        raise UserError(f"{run} was begun with {found}. Put it back in recipe.yaml, or {start_anew(run)}")


def start_anew(run: Path) -> str:
    """What to do instead of going on with a run."""
    return f"start anew: turpentine unlearn --recipe {run / 'recipe.yaml'} --out NEW"


def prompts_sha256(prompts: PromptSet) -> str:
    """Hash of what prompts ask for; not of where they came from and how they are kept."""
    rows = [[_texts_of(pair) for pair in pairs] for pairs in (prompts.train, prompts.test)]
    return _sha256([prompts.concepts, rows])


def _texts(prompts: PromptSet | None) -> list[str]:
    return [text for pair in (*prompts.train, *prompts.test) for text in _texts_of(pair)] if prompts else []


def _texts_of(pair: PromptPair) -> list[str]:
    return [pair.forget, pair.retain, *([] if pair.anchor is None else [pair.anchor])]


def model_sha256(denoiser: Denoiser, texts: Sequence[str] = ()) -> dict[str, str]:
    """Hashes of all of a pipeline that decides what is drawn and trained.

    Args:
        denoiser: the model.
        texts: the prompts; what a tokenizer makes of them stands for it.

    Returns:
        Component -> hash: of weights and settings, of a tokenizer its tokens. "pipeline": its own settings.
    """
    pipeline, found = denoiser.pipeline, {}
    for name, part in pipeline.components.items():
        if isinstance(part, PreTrainedTokenizerBase):
            tokens = part(list(texts), verbose=False)["input_ids"] if texts else []
            found[name] = _sha256([tokens, part.model_max_length])
        elif isinstance(part, nn.Module | SchedulerMixin):
            weights = tensors_sha256(part.state_dict(), torch.float32) if isinstance(part, nn.Module) else None
            found[name] = _sha256([type(part).__name__, weights, _settings(part)])
    own = {key: value for key, value in _settings(pipeline).items() if key not in pipeline.components}
    return found | {"pipeline": _sha256(own)}


def _settings(part: Any) -> dict[str, Any]:
    """The settings that are not the defaults of their class, to which a newer version may add some."""
    config = getattr(part, "config", None)
    if isinstance(config, PreTrainedConfig):
        given = config.to_diff_dict()
        return {key: value for key, value in given.items() if key not in _OF_THE_FILE}
    usual = {name: _plain(each.default) for name, each in signature(type(part).__init__).parameters.items()}
    own = {key: _plain(value) for key, value in config.items()} if isinstance(config, Mapping) else {}
    return {
        key: value
        for key, value in own.items()
        if not key.startswith("_") and (key not in usual or value != usual[key])
    }


def _plain(value: Any) -> Any:
    """A setting as JSON has it: schedulers of ComfyUI's models have their betas in an array."""
    if isinstance(value, np.ndarray | Tensor):
        return value.tolist()
    return list(value) if isinstance(value, tuple) else value


def _outside(recipe: Recipe) -> Iterator[tuple[str, str]]:
    for field in _OUTSIDE:
        named = value_at(recipe, tuple(field.split(".")))
        path = user_path(named) if named and named not in _NO_FOLDERS else None
        if path and path.is_file():
            yield field, sha256(path)
        elif path and path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.is_file())
            yield field, _sha256([[file.relative_to(path).as_posix(), file.stat().st_size] for file in files])
    if recipe.data.forget_images is not None:
        for picture in find_pictures(recipe.data.forget_images):
            yield from ((f"data.forget_images/{file.name}", sha256(file)) for file in picture.files)


def _flat(nested: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, Any]]:
    """The fields of a recipe by their keys with dots."""
    for key, value in nested.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{place}{key}.")
        else:
            yield f"{place}{key}", value


def _sha256(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _reason(error: OSError | ValidationError) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}"
