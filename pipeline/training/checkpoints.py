"""The checkpoints of a run: the trained weights and what optimizer and method remember, in safetensors.

Tensors are whole on disk, however many processes hold parts of them, so that a run may go on with another
number of processes.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..methods.base import Method
from ..methods.limit import LIMIT_FILE
from ..methods.mask import MASK_FILE
from ..support.errors import Tell, untold
from ..support.files import replacing, sha256
from ..weights import tensors_sha256
from .optimizers import moments, restore_moments
from .parallel import Parallel

PREPARED = (MASK_FILE, LIMIT_FILE)
"""Files in a run's folder in which methods keep what they prepare before the first step."""

CHECKPOINTS = "checkpoints"
"""Where a run keeps what it is resumed from, in its folder."""

_NAME = re.compile(r"step-\d{6,}\.safetensors")
_KEPT = 2


def checkpoint_files(run: Path) -> list[Path]:
    """The checkpoints of a run, oldest first; files that others put beside them are none."""
    found = [path for path in (run / CHECKPOINTS).glob("step-*") if _NAME.fullmatch(path.name)]
    return sorted(found, key=_step_of)


def is_intact(path: Path) -> bool:
    """Whether a checkpoint holds what was written, as its own hash says."""
    with suppress(OSError, SafetensorError), safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}
        return (file.metadata() or {}).get("sha256") == tensors_sha256(tensors)
    return False


def _step_of(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))


class Checkpoints:
    """The newest checkpoints of a run, written and read.

    Args:
        folder: of the run; None keeps nothing.
        parallel: says what of each tensor this process holds.
        optimizer: whose memory is kept beside the weights.
        method: the same; its memory is a few numbers.
        tell: told of a checkpoint that is damaged.
    """

    def __init__(
        self,
        folder: Path | None,
        parallel: Parallel,
        optimizer: torch.optim.Optimizer,
        method: Method[Any],
        tell: Tell = untold,
    ) -> None:
        self.folder, self.parallel, self.optimizer, self.method, self.tell = folder, parallel, optimizer, method, tell
        self._prepared: dict[str, str] = {}

    def found(self) -> list[Path]:
        """The checkpoints on disk, oldest first."""
        return checkpoint_files(self.folder) if self.folder else []

    def save(self, step: int) -> Path | None:
        """Write one for the end of a step and drop all but the newest few; all processes have to ask."""
        if not self.folder:
            return None
        tensors = {
            f"method.{key}": torch.tensor(kept, dtype=torch.float64) for key, kept in self.method.state_dict().items()
        }
        for name, parameter in self._held().items():
            tensors[f"weights.{name}"] = self._whole(name, parameter.detach())
            for key, value in moments(self.optimizer, parameter).items():
                tensors[f"optimizer.{key}.{name}"] = self._whole(name, value)
        path = self.folder / CHECKPOINTS / f"step-{step:06d}.safetensors"
        if self.parallel.processes.main:
            with replacing(path, lasting=True) as partial:
                marks = {"step": str(step), "sha256": tensors_sha256(tensors), **self._prepared}
                save_file(tensors, partial, metadata=marks)
            for old in self.found()[:-_KEPT]:
                old.unlink()
        return path

    def newest(self) -> Path | None:
        """The newest one that is whole and of this training; all processes have to ask. Removes damaged newer ones."""
        return self.parallel.processes.on_main(self._newest)

    def remember_prepared(self) -> None:
        """Let the checkpoints that follow vouch for the files that the method prepared."""
        self._prepared = self._prepared_now() if self.parallel.processes.main else {}

    def prepared(self, path: Path | None) -> bool:
        """Whether the files that the method prepared are still those of a checkpoint."""
        if path is None:
            return False
        with safe_open(path, "pt") as file:
            then = {name: value for name, value in (file.metadata() or {}).items() if name in PREPARED}
        now = self._prepared_now()
        for name in sorted({*then, *now}):
            if then.get(name) != now.get(name):
                self.tell(f"{name} is not what the run made before it was stopped: it was made again.")
                return False
        return True

    def _prepared_now(self) -> dict[str, str]:
        paths = [self.folder / name for name in PREPARED] if self.folder else []
        return {path.name: sha256(path) for path in paths if path.is_file()}

    def _newest(self) -> Path | None:
        for path in reversed(self.found()):
            if self._is_whole(path):
                return path
            path.unlink()
            self.tell(f"the checkpoint {path} was damaged: the run went on from an older one, or began again.")
        return None

    def _is_whole(self, path: Path) -> bool:
        with suppress(OSError, SafetensorError), safe_open(path, "pt") as file:
            marks, known = file.metadata() or {}, self.parallel.named
            shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}
            remembered = {key.split(".", 2)[2] for key in shapes if key.startswith("optimizer.")}
            return (
                marks.get("step") == str(_step_of(path))
                and remembered in (set(), set(known))  # before the first step nothing is
                and {key: shape for key, shape in shapes.items() if key.startswith("weights.")}
                == {f"weights.{name}": [*weight.shape] for name, weight in known.items()}
                and is_intact(path)
            )
        return False

    @torch.no_grad()
    def restore(self, path: Path | None) -> int:
        """Load one that `newest` gave; gives its step, 0 if there is none."""
        if path is None:
            return 0
        with safe_open(path, "pt") as file:
            kept: dict[str, dict[str, Tensor]] = {name: {} for name in self._held()}
            remembered = {}
            for key in file.keys():
                if key.startswith("method."):
                    remembered[key.removeprefix("method.")] = file.get_tensor(key).item()
                if key.startswith("optimizer."):
                    _, field, name = key.split(".", 2)
                    kept[name][field] = self.parallel.part(name, file.get_tensor(key))
            for name, parameter in self._held().items():
                parameter.copy_(self.parallel.part(name, file.get_tensor(f"weights.{name}")))
                restore_moments(self.optimizer, parameter, kept[name])
        self.method.load_state_dict(remembered)
        return _step_of(path)

    def _held(self) -> Mapping[str, nn.Parameter]:
        return dict(zip(self.parallel.named, self.parallel.parameters, strict=True))

    def _whole(self, name: str, held: Tensor) -> Tensor:
        return self.parallel.whole(name, held).cpu().contiguous()
