"""What travels along TURPENTINE_MODEL wires: a loaded model, and the weights that it shall have.

The model itself always keeps the weights that it was loaded with. A node that needs other weights,
or trains, borrows it, and it goes back bit for bit as it was, whatever happens in between.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import host

if TYPE_CHECKING:
    from torch import Tensor

    from ..pipeline.models import Denoiser

TYPE = "TURPENTINE_MODEL"


@dataclass(frozen=True)
class Native:
    """The ComfyUI objects behind a model that came over the bridge.

    Attributes:
        patcher: the MODEL.
        clip: the CLIP.
        vae: the VAE.
        patched: gives a MODEL that has the change from one set of weights to another, added as a patch.
    """

    patcher: Any
    clip: Any
    vae: Any
    patched: "Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Any]"


@dataclass(frozen=True)
class Model:
    """A model on a wire.

    Attributes:
        denoiser: as it was loaded.
        weights: of the denoiser's module, on the CPU; None: its own.
        run: the run folder of the last unlearning, if any.
        applied: the last weights file that was put in, if any, and its strength.
        native: where it came from, if that was ComfyUI.
    """

    denoiser: "Denoiser"
    weights: "Mapping[str, Tensor] | None" = None
    run: Path | None = None
    native: Native | None = None
    applied: tuple[Path, float] | None = None

    @contextmanager
    def borrowed(self, to_train: bool = False) -> "Iterator[tuple[Denoiser, Mapping[str, Tensor]]]":
        """Put the model on ComfyUI's device, with this wire's weights.

        Args:
            to_train: its weights will change.

        Yields:
            The denoiser, and the weights that it was loaded with (empty unless they are about to change).
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
    denoiser.device = device
