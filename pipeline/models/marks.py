"""What a checkpoint of one file says of itself.

The rule: what a file says in its keys or its header counts for more than the configs that it is loaded with, and where
they differ the user is told. What it says and no objective here stands for is refused by its name.
"""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers import DDIMScheduler

from ..support.errors import UserError
from .files import Header

PREFIX = "model.diffusion_model."
"""Stands before the denoiser's keys in a complete checkpoint of the original layout."""

V_PRED, ZERO_SNR = "v_pred", "ztsnr"
"""Keys of empty tensors: the network predicts the velocity, and its noisiest timestep is noise alone."""

_EMA = "model_ema."
_EDM = ("edm_mean", "edm_std", "edm_vpred.", "edm_eps.")
_PREDICTION = "modelspec.prediction_type"
_WORDS = {
    **dict.fromkeys(("epsilon", "eps", "noise"), "epsilon"),
    **dict.fromkeys(("v", "v_prediction", "v-prediction", "v_pred", "velocity"), "v_prediction"),
}


@dataclass(frozen=True)
class Marks:
    """What a file says of itself.

    Attributes:
        prediction_type: in diffusers' words; None where it says nothing.
        zero_snr: whether it was trained with betas that are rescaled to a terminal signal of zero.
        where: the key or field that says it.
        ema: whether it holds averaged weights beside the raw ones.
    """

    prediction_type: str | None
    zero_snr: bool
    where: str
    ema: bool


def read_marks(header: Header, path: Path) -> Marks:
    """Read the marks of a file whose denoiser is a UNet.

    Raises:
        UserError: it was trained for something that no objective here stands for.
    """
    keys = {key.removeprefix(PREFIX) for key in header.shapes}
    if edm := sorted(key for key in keys if key.startswith(_EDM)):
        raise UserError(
            f"{path} says that it was trained as an EDM ({edm[0]}): its noise levels are not those of a diffusers "
            "scheduler that can be trained here. Give an epsilon or v-prediction model."
        )
    said = {key: value.strip().lower() for key, value in header.metadata.items()}
    kind, where = None, ""
    if V_PRED in keys:
        kind, where = "v_prediction", f"the key {V_PRED}"
    elif word := said.get(_PREDICTION):
        if word not in _WORDS:
            raise UserError(f"{path} says that it predicts {word!r} ({_PREDICTION}); expected one of {sorted(_WORDS)}.")
        kind, where = _WORDS[word], f"{_PREDICTION} in its header"
    elif said.get("ss_v_parameterization") == "true":
        kind, where = "v_prediction", "ss_v_parameterization in its header"
    zero_snr = ZERO_SNR in keys or said.get("ss_zero_terminal_snr") == "true"
    raw = any(key.startswith(PREFIX) for key in header.shapes)
    return Marks(kind, zero_snr, where, raw and any(key.startswith(_EMA) for key in keys))


def without_marks(weights: dict[str, Any]) -> dict[str, Any]:
    """The tensors of a file that are weights."""
    return {key: value for key, value in weights.items() if key.removeprefix(PREFIX) not in (V_PRED, ZERO_SNR)}


def follow(marks: Marks, pipeline: Any, path: Path, folder: Path) -> tuple[str, ...]:
    """Let a pipeline's scheduler say what the file says; gives what the user should know.

    Args:
        marks: of the file.
        pipeline: loaded from it; its scheduler is exchanged.
        path: the file.
        folder: where the scheduler's config came from.
    """
    told: list[str] = []
    config = {"prediction_type": "epsilon", **pipeline.scheduler.config}
    wanted: dict[str, Any] = {"prediction_type": marks.prediction_type or config["prediction_type"]}
    if marks.zero_snr and wanted["prediction_type"] == "v_prediction":
        wanted |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    other = {key: value for key, value in wanted.items() if config.get(key) != value}
    if other:
        kind: Any = type(pipeline.scheduler)
        if not {*other} <= {*inspect.signature(kind.__init__).parameters}:  # PNDM can't rescale its betas
            kind = DDIMScheduler
        config.pop("_use_default_values", None)  # what diffusers would set to the class's own defaults again
        pipeline.scheduler = kind.from_config({"clip_sample": False, **config}, **other)
        said = ", ".join(f"{key} {value}" for key, value in other.items())
        told.append(
            f"{path.name} says of itself ({marks.where or ZERO_SNR}) what the scheduler in {folder} doesn't: {said}. "
            "The file was followed."
        )
    if marks.ema:
        told.append(
            f"{path.name} holds averaged weights too ({_EMA}*): the raw ones ({PREFIX}*) were used, and what is "
            "written has no others."
        )
    return tuple(told)
