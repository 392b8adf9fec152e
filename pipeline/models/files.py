"""Reading the files of a model: whatever is wrong with one is told with its name, in one line."""

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open

from ..support.errors import UserError

FAULTS = (
    *(SafetensorError, OSError, ValueError, RuntimeError, KeyError, IndexError, ArithmeticError),
    *(TypeError, AttributeError, ImportError, StrictDataclassError),
)
"""What libraries raise about a model that they can't load: which of them, depends on the place."""

_POINTER = b"version https://git-lfs"
_SCALED = (
    *("scaled_fp8", ".scale_weight", ".weight_scale", ".scale_input", ".input_scale", ".comfy_quant"),
    *(".absmax", ".quant_map", ".SCB", ".weight_format", ".qweight", ".qzeros", ".wscales"),
)
"""Endings of the keys of tensors that say how quantised weights are to be scaled."""


@dataclass(frozen=True)
class Header:
    """The beginning of a safetensors file.

    Attributes:
        shapes: of each tensor.
        dtypes: of each tensor, in safetensors' words ("F16").
        metadata: what the file says of itself.
    """

    shapes: dict[str, list[int]]
    dtypes: dict[str, str]
    metadata: dict[str, str]


def reason_of(error: Exception) -> str:
    """One line about a library's error."""
    text = " ".join(str(error).split())[:300].rstrip(". ")
    plain = text and not isinstance(error, KeyError | IndexError | AttributeError | TypeError)
    return text if plain else f"{type(error).__name__}: {text}"


def check_file(path: Path) -> None:
    """Refuse a file that is not there, is empty, or stands for one that was not downloaded.

    Raises:
        UserError: which file, and what to do.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing. Download the whole model again.")
    with path.open("rb") as file:
        begin = file.read(len(_POINTER))
    if begin == _POINTER:
        raise UserError(f"{path} is a Git LFS pointer, not the file itself. Run `git lfs pull` in the model's folder.")
    if not begin:
        raise UserError(f"{path} is empty. Download it again.")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        UserError: no such file, or something else in it.
    """
    check_file(path)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({reason_of(error)}). Download it again.") from None
    if not isinstance(found, dict):
        raise UserError(f"expected a JSON object in {path}, found a {type(found).__name__}. Download it again.")
    return found


def read_header(path: Path) -> Header:
    """Shapes, dtypes and metadata of a safetensors file, whose end is looked for too.

    Raises:
        UserError: it can't be read, or its weights are quantised and would be loaded without their scale.
    """
    check_file(path)
    try:
        with safe_open(path, "pt") as file:
            slices = {key: file.get_slice(key) for key in file.keys()}
            shapes = {key: each.get_shape() for key, each in slices.items()}
            header = Header(shapes, {key: each.get_dtype() for key, each in slices.items()}, file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"expected a safetensors checkpoint, can't read {path} ({reason_of(error)}): it is cut short or damaged. "
            "Download it again."
        ) from None
    _refuse_quantised(path, header)
    return header


def _refuse_quantised(path: Path, header: Header) -> None:
    scales = _ending(header.shapes, _SCALED)
    whole = ("I8", "U8", "I4", "U4")
    packed = [key for key, kind in header.dtypes.items() if kind in whole and key.endswith("weight")]
    if scales or packed:
        found = ", ".join([*scales, *packed][:2])
        raise UserError(
            f"the weights in {path} are quantised (it holds {found}), and a run needs whole weights. Give the same "
            "model in float32, float16 or bfloat16."
        )


def _ending(keys: Iterable[str], endings: Collection[str]) -> list[str]:
    return [key for key in keys if key.endswith(tuple(endings)) or ".quant_state." in key]
