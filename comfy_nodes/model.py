"""The values on TURPENTINE_MODEL wires: a loaded model, and the weights to use it with.

The loaded model always keeps its own weights. A node that trains, or needs other weights, borrows the model.
Afterwards it is bit for bit as it was, even after an error or a cancel.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import host

if TYPE_CHECKING:
    from torch import Tensor

    from ..pipeline.models import Denoiser

TYPE = "TURPENTINE_MODEL"


@dataclass(frozen=True)
class Native:
    """The ComfyUI objects behind a model from Model from ComfyUI.

    Attributes:
        patcher: the MODEL.
        clip: the CLIP.
        vae: the VAE.
        patched: gives a MODEL patched with the change from one set of weights to another.
    """

    patcher: Any
    clip: Any
    vae: Any
    patched: "Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Any]"


@dataclass(frozen=True)
class Model:
    """A model on a wire.

    Attributes:
        denoiser: the model as it was loaded.
        weights: weights to use for the denoiser's module, on the CPU; None: its own.
        run: the run folder of the last unlearning, if any.
        native: the ComfyUI objects that it came from, if any.
        applied: the last weights file that was applied and its strength, if any.
        header: what a saved file is to say of the weights instead of the run or the applied file, if anything.
    """

    denoiser: "Denoiser"
    weights: "Mapping[str, Tensor] | None" = None
    run: Path | None = None
    native: Native | None = None
    applied: tuple[Path, float] | None = None
    header: "Mapping[str, str] | None" = None

    @contextmanager
    def borrowed(self, to_train: bool = False) -> "Iterator[tuple[Denoiser, Mapping[str, Tensor]]]":
        """Put the model on ComfyUI's device, with this wire's weights.

        Args:
            to_train: its weights will change.

        Yields:
            The denoiser, and the weights that it was loaded with; these are empty if they stay in place.
        """
        from ..pipeline.models import choose_device
        from ..pipeline.weights import snapshot

        denoiser = self.denoiser
        own = snapshot(denoiser.module) if to_train or self.weights is not None else {}
        host.make_room()
        try:
            move(denoiser, choose_device(host.compute_device()))
            if self.weights is not None:
                denoiser.module.load_state_dict(self.weights)
            yield denoiser, own
        finally:
            denoiser.restore()
            if own:
                denoiser.module.load_state_dict(own)
            if host.running():
                move(denoiser, choose_device("cpu"))


def move(denoiser: "Denoiser", device: Any) -> None:
    """Put a denoiser's pipeline on a device."""
    denoiser.pipeline.to(device)
    denoiser.stages = replace(denoiser.stages, device=device)
