"""What a LoRA file says of the scale of its factors.

A layer changes by scale x up x down, with scale = alpha / rank, or alpha / sqrt(rank) in a rank-stabilised LoRA
(Kalajdzievski 2023). Alpha is the file's own tensor, else what the file's metadata or peft's `adapter_config.json`
beside it says of that layer, else the rank. A file whose metadata can't be followed is refused.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..support.errors import UserError, given
from ..support.numbers import finite

PEFT = "base_model.model"
"""Stands before the names of layers in files that peft itself saved; `adapter_config.json` beside them has the rest."""
PEFT_FILE = "adapter_model.safetensors"
"""How peft calls such a file."""

_CONFIG = "adapter_config.json"
_METADATA = "lora_adapter_metadata"
_ALPHA = 8
"""Of peft, where a configuration has none."""

_UNREAD = {
    "use_dora": "a DoRA, which also sets the length of each row of the weights",
    "lora_bias": "a LoRA with biases",
    "use_qalora": "a QALoRA, whose factors are for quantised weights",
    "use_bdlora": "a block-diagonal LoRA",
    "layer_replication": "a LoRA that repeats layers of the network",
    "kasa_config": "a KaSA, which also changes the base's weights",
}
"""Options of peft's LoRA that make it something else."""
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Ways in which peft starts a LoRA that take something away from the base's weights."""
_STABILISED = ("rs_lora", "use_rslora", "rank_stabilized")
"""The names that kohya's and LyCORIS's arguments have for it."""


@dataclass(frozen=True)
class Layer:
    """One layer of a LoRA file.

    Attributes:
        name: in the file, for kohya's files; without what stands before diffusers' name, for peft's.
        rank: of its factors.
        alpha: of the file's own tensor, if it has one.
        spatial: whether it belongs to a convolution with a kernel of more than one pixel.
    """

    name: str
    rank: int
    alpha: float | None = None
    spatial: bool = False


class KohyaScale:
    """The scales of a file with kohya's metadata, or with none.

    LyCORIS saves alpha times sqrt(rank) for a rank-stabilised layer, so that alpha / rank is its scale everywhere;
    other programs save alpha as it was given. Which it is can be told by `ss_network_alpha`.

    Args:
        metadata: of the file.

    Raises:
        UserError: `ss_network_args` is no JSON object.
    """

    def __init__(self, metadata: Mapping[str, str]) -> None:
        arguments = _json(metadata.get("ss_network_args", "{}"), "ss_network_args")
        self.stabilised = any(str(arguments.get(name)).lower() in ("true", "1") for name in _STABILISED)
        self.alpha = _number(metadata.get("ss_network_alpha"))
        self.conv_alpha = _number(arguments.get("conv_alpha"))

    def __call__(self, layer: Layer) -> float:
        """The scale of a layer.

        Raises:
            UserError: a rank-stabilised layer whose alpha may or may not hold the factor.
        """
        said = self.conv_alpha if layer.spatial and self.conv_alpha else self.alpha
        alpha = next((alpha for alpha in (layer.alpha, said) if alpha is not None), layer.rank)
        root = math.sqrt(layer.rank)
        if not self.stabilised:
            return alpha / layer.rank
        if layer.alpha is None or layer.rank == 1 or _close(alpha, said):
            return alpha / root
        if said is not None and _close(alpha, said * root):
            return alpha / layer.rank
        raise UserError(
            f"{layer.name}: the LoRA is rank-stabilised, and its alpha {alpha:g} is neither ss_network_alpha nor that "
            f"times the root of its rank {layer.rank}, so that its scale is not known."
        )


class PeftScale:
    """The scales that a configuration of peft gives.

    Args:
        config: `LoraConfig` as a mapping.

    Raises:
        UserError: a kind of adapter that can't be applied.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        kind = config.get("peft_type") or "LORA"
        if kind != "LORA":
            raise UserError(f"it is of peft's type {kind}, not a LoRA.")
        for field, meaning in _UNREAD.items():
            if config.get(field):
                raise UserError(f"it is {meaning}.")
        if config.get("bias") not in (None, "none"):
            raise UserError(f"it is {_UNREAD['lora_bias']}.")
        start = str(config.get("init_lora_weights")).lower()
        if start.startswith(_CHANGES_BASE):
            raise UserError(f"it is a LoRA that was started by {start}, which also changes the base's weights.")
        self.config = config

    def __call__(self, layer: Layer) -> float:
        """The scale of a layer.

        Raises:
            UserError: no such numbers, or factors of another rank than the configuration says.
        """
        rank = self._of(layer.name, "rank_pattern", "r", layer.rank)
        if rank != layer.rank:
            raise UserError(f"{layer.name}: its factors have rank {layer.rank}, and the metadata says {rank:g}.")
        alpha = self._of(layer.name, "alpha_pattern", "lora_alpha", _ALPHA) if layer.alpha is None else layer.alpha
        return alpha / (math.sqrt(layer.rank) if self.config.get("use_rslora") else layer.rank)

    def _of(self, layer: str, pattern: str, field: str, default: float) -> float:
        """A number of a layer: by the first pattern that matches the end of its name, as peft does, else for all."""
        numbers = self.config.get(pattern) or {}
        if not isinstance(numbers, dict):
            raise UserError(f"expected a JSON object as {pattern}, got {given(numbers)}.")
        for key, value in numbers.items():
            try:
                matches = re.match(rf"(.*\.)?({key})$", layer)
            except re.error:
                raise UserError(f"the metadata's {pattern} holds {key!r}, which is no regular expression.") from None
            if matches:
                return finite(f"{pattern} of {layer}", value)
        return finite(field, self.config.get(field, default))


def adapter_configs(metadata: Mapping[str, str], beside: Path | None) -> dict[str, dict[str, Any]]:
    """Read peft's configurations: what stands before a layer's name in the file -> the configuration.

    Args:
        metadata: of the file; diffusers writes the configuration of each component there.
        beside: the folder of a file that peft saved; None for other files.

    Raises:
        UserError: no JSON object.
    """
    found: dict[str, dict[str, Any]] = {}
    for key, value in _json(metadata.get(_METADATA, "{}"), _METADATA).items():
        component, _, field = key.rpartition(".")
        found.setdefault(component, {})[field] = value
    if beside is not None and (beside / _CONFIG).is_file():
        try:
            found[PEFT] = _json((beside / _CONFIG).read_text(encoding="utf-8"), _CONFIG)
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"can't read {beside / _CONFIG}: {error}") from None
    return found


def _json(text: str, name: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = text
    if not isinstance(found, dict | None):
        raise UserError(f"expected a JSON object as {name}, got {text[:40]!r}.")
    return found or {}


def _number(value: object) -> float | None:
    """What the metadata says, if it is a number other than 0: kohya reads 0 as the rank."""
    try:
        number = float(str(value))
    except ValueError:  # "None", or "Dynamic" after a LoRA was resized
        return None
    return number if math.isfinite(number) and number else None


def _close(a: float, b: float | None) -> bool:
    return b is not None and math.isclose(a, b, rel_tol=1e-2)  # alpha may be stored in half precision
