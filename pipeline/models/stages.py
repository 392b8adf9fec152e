"""What each stage of a run computes in, where its weights wait, and how much it takes at once.

A run embeds prompts, draws, trains, encodes and decodes. The loader, the adapters and the trainer ask one `Stages`
for the number format and the place of each, and nothing else decides them:

| stage | weights | computes in |
|---|---|---|
| embed | text encoders, in `drawing` | `drawing`; embeddings are kept in it |
| draw | the network, cast to `drawing` for as long as it draws | `drawing` |
| train | weights that train in float32, all others in `base` | the recipe's `training.precision` |
| encode, decode | the autoencoder, in float32 | float32, a few pictures at once, large ones in tiles |

Weights that are cast for a stage wait as they were, on the CPU, and come back bit for bit.
"""

import sys
from dataclasses import dataclass

import torch
from torch import nn

from ..support.errors import UserError
from .protocol import BasePrecision, Offload, SamplePrecision

FORMATS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""The number formats of drawing, by their names in a recipe."""

BYTES = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "int8": 1.0, "fp8": 1.0, "nf4": 0.5}
"""Bytes that a weight takes in each number format, but for the scales of quantised ones."""

LARGEST = 2**20
"""Pixels that an autoencoder takes at once, and above which it works in tiles: one picture of 1024 x 1024."""

DECODED = 16
"""Pictures that are decoded at once at most, however small they are."""

_PROMPTS, _FEW, _LARGE = 64, 8, 10**9


@dataclass(frozen=True)
class Stages:
    """The number format and the place of every stage.

    Attributes:
        device: where all of them compute.
        drawing: of the network while it draws, of the text encoders, and of the embeddings that are kept.
        base: of the network's weights that don't train, from the first image to the last.
        offload: which weights leave the device while others compute there.
    """

    device: torch.device
    drawing: torch.dtype = torch.float32
    base: BasePrecision = "fp32"
    offload: Offload = "none"

    @property
    def rest(self) -> torch.device:
        """Where weights are that don't compute at the moment."""
        return self.device if self.offload == "none" else torch.device("cpu")

    @property
    def aside(self) -> torch.device:
        """Where weights wait that are cast for a stage."""
        return torch.device("cpu")

    def dtype_of(self, name: str, component: str, own: torch.dtype) -> torch.dtype:
        """The number format in which a part of a pipeline is held.

        Args:
            name: of the part.
            component: name of the network that is unlearned.
            own: the format in which it came.
        """
        if name == component:  # weights that train do so in float32; a frozen base is made from what came
            return torch.float32 if self.base == "fp32" else own
        return torch.float32 if name == "vae" else self.drawing


def choose_stages(
    device: torch.device, precision: SamplePrecision = "fp32", base: BasePrecision = "fp32", offload: Offload = "none"
) -> Stages:
    """The stages that a recipe asks for, on a device.

    Args:
        device: where they compute.
        precision: "auto" for bf16 where the device or a base in few bits wants it, fp16 where the device lacks bf16,
            and fp32 on a CPU.
        base: format of the frozen weights.
        offload: nothing moves where the device is a CPU.

    Raises:
        UserError: a number format in which the device can't compute, or options that exclude each other.
    """
    if precision == "auto":
        if device.type != "cpu":
            precision = "bf16" if computes(device, torch.bfloat16) else "fp16"
        else:
            precision = "fp32" if base == "fp32" else "bf16"
    drawing = FORMATS[precision]
    if not computes(device, drawing):
        raise UserError(f"the device {device} can't draw in {precision}. Set samples.sample_precision to 'auto'.")
    if base not in FORMATS and precision != "bf16":
        raise UserError(
            f"training.base_precision {base!r} draws in bf16, got samples.sample_precision {precision!r}. Set it to "
            "'auto' or 'bf16'."
        )
    return Stages(device, drawing, base, "none" if device.type == "cpu" else offload)


def computes(device: torch.device, dtype: torch.dtype) -> bool:
    """Tell whether a device multiplies matrices in a number format, in hardware where that can be known."""
    emulated = device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)
    if emulated and dtype == torch.bfloat16:
        return False
    try:
        one = torch.ones(1, 1, device=device, dtype=dtype)
        return bool(torch.matmul(one, one).item() == 1)
    except (RuntimeError, TypeError):
        return False


def bytes_of(base: BasePrecision, trains: bool, linear: bool) -> float:
    """Bytes that a weight of the network takes while it trains, but for the scales of quantised ones.

    Args:
        base: format of the frozen weights.
        trains: whether the weight does.
        linear: whether it is the matrix of a linear layer, which alone is quantised.
    """
    if trains or base == "fp32":
        return BYTES["fp32"]
    return BYTES[base if linear else "bf16"]


def pictures_at_once(pixels: int, most: int = sys.maxsize) -> int:
    """How many pictures the autoencoder takes at once, at least one.

    In float32 a decoder of the published shape takes 3 GiB for each picture of 1024 x 1024 pixels.

    Args:
        pixels: of one picture, height times width.
        most: however small they are.
    """
    return max(1, min(most, LARGEST // max(1, pixels)))


def prompts_at_once(encoders: list[nn.Module]) -> int:
    """How many prompts are embedded at once: few where a text encoder has a thousand million weights or more."""
    large = any(sum(each.numel() for each in encoder.parameters()) >= _LARGE for encoder in encoders)
    return _FEW if large else _PROMPTS
