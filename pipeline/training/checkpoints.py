"""The checkpoints of a run: the trained weights and what the optimizer remembers, in safetensors.

Tensors are whole on disk, however many processes hold parts of them, so that a run may go on with another
number of processes.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..support.files import replacing
from .optimizers import moments, restore_moments
from .parallel import Parallel

_KEPT = 2


class Checkpoints:
    """The newest checkpoints of a run, written and read.

    Args:
        folder: of the run; None keeps nothing.
        parallel: says what of each tensor this process holds.
        optimizer: whose memory is kept beside the weights.
    """

    def __init__(self, folder: Path | None, parallel: Parallel, optimizer: torch.optim.Optimizer) -> None:
        self.folder = folder / "checkpoints" if folder else None
        self.parallel, self.optimizer = parallel, optimizer

    def found(self) -> list[Path]:
        """The checkpoints on disk, oldest first."""
        return sorted(self.folder.glob("step-*.safetensors")) if self.folder else []

    def save(self, step: int) -> Path | None:
        """Write one for the end of a step and drop all but the newest few; all processes have to ask."""
        if not self.folder:
            return None
        tensors = {}
        for name, parameter in self._held().items():
            tensors[f"weights.{name}"] = self._whole(name, parameter.detach())
            for key, value in moments(self.optimizer, parameter).items():
                tensors[f"optimizer.{key}.{name}"] = self._whole(name, value)
        path = self.folder / f"step-{step:06d}.safetensors"
        if self.parallel.processes.main:
            with replacing(path) as partial:
                save_file(tensors, partial, metadata={"step": str(step)})
            for old in self.found()[:-_KEPT]:
                old.unlink()
        return path

    @torch.no_grad()
    def restore(self) -> int:
        """Load the newest one; gives its step, 0 if there is none."""
        found = self.found()
        if not found:
            return 0
        with safe_open(found[-1], "pt") as file:
            step = int(file.metadata()["step"])
            kept: dict[str, dict[str, Tensor]] = {name: {} for name in self._held()}
            for key in file.keys():
                if key.startswith("optimizer."):
                    _, field, name = key.split(".", 2)
                    kept[name][field] = self.parallel.part(name, file.get_tensor(key))
            for name, parameter in self._held().items():
                parameter.copy_(self.parallel.part(name, file.get_tensor(f"weights.{name}")))
                restore_moments(self.optimizer, parameter, kept[name])
        return step

    def _held(self) -> Mapping[str, nn.Parameter]:
        return dict(zip(self.parallel.named, self.parallel.parameters, strict=True))

    def _whole(self, name: str, held: Tensor) -> Tensor:
        return self.parallel.whole(name, held).cpu().contiguous()
