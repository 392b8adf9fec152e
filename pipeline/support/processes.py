"""Several processes that do one run together: who does what, and how they agree.

They are started by `accelerate launch` (or `torchrun`), one for each device. Each holds the whole
run in its own memory; files are written, and figures measured, by the first one alone.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from .errors import Cancelled, UserError

Result = TypeVar("Result")

_PATIENCE = timedelta(hours=24)  # the others wait while the first process measures or writes


@dataclass(frozen=True)
class Processes:
    """The processes of a run, as one of them sees them; by default it is alone.

    Attributes:
        rank: which one this is, from 0.
        size: how many there are.
        strategy: "ddp", each with all of the weights, or "fsdp", each with a part of them.
        device: where tensors must lie to be exchanged.
    """

    rank: int = 0
    size: int = 1
    strategy: Literal["ddp", "fsdp"] = "ddp"
    device: str = "cpu"

    @property
    def main(self) -> bool:
        """Whether this one writes, prints and measures."""
        return self.rank == 0

    @property
    def sharded(self) -> bool:
        """Whether each holds only a part of the weights while it trains."""
        return self.strategy == "fsdp" and self.size > 1

    def share(self, indices: Tensor) -> Tensor:
        """This process's part of (N,) indices, in their order; parts differ by one at most."""
        return indices.tensor_split(self.size)[self.rank]

    def dealt(self, count: int, size: int) -> list[int]:
        """Which of `count` things this process does, when batches of `size` are dealt out in turn."""
        return [index for index in range(count) if index // size % self.size == self.rank]

    def gathered(self, rows: Tensor | None, places: Sequence[int]) -> Tensor:
        """Everybody's rows put together, (N, ...), row i of each at `places[i]`.

        Args:
            rows: (n, ...) on the CPU; None for no rows.
            places: n places; those of all processes are 0 to N - 1.
        """
        parts: list[Any] = [None] * self.size
        if self.size > 1:
            dist.all_gather_object(parts, (rows, list(places)))
        else:
            parts = [(rows, places)]
        known = [(held, at) for held, at in parts if held is not None]
        whole = known[0][0].new_empty(sum(len(held) for held, _ in known), *known[0][0].shape[1:])
        for held, at in known:
            whole[list(at)] = held
        return whole

    def sums(self, values: Sequence[float]) -> list[float]:
        """Numbers added over the processes, in one exchange."""
        return self.total(torch.tensor(values, dtype=torch.float64)).tolist()

    def total(self, table: Tensor) -> Tensor:
        """A float64 table on the CPU, added over the processes in one exchange."""
        if self.size == 1:
            return table
        total = table.to(self.device)
        dist.all_reduce(total)
        return total.cpu()

    def agreed(self, advance: Callable[..., None]) -> Callable[..., None]:
        """A progress report after which all processes stop if one of them was told to.

        Each has to call it equally often.
        """
        if self.size == 1:
            return advance

        def together(*arguments: Any) -> None:
            stop = False
            try:
                advance(*arguments)
            except Cancelled:
                stop = True
            if self.sums([stop])[0]:
                raise Cancelled("Stopped.")

        return together

    def on_main(self, work: Callable[[], Result]) -> Result:
        """Let the first process work while the others wait; all get its result, or its error."""
        if self.size == 1:
            return work()
        outcome: list[Any] = [None, None]
        if self.main:
            try:
                outcome[0] = work()
            except Exception as error:
                outcome[1] = error
        dist.broadcast_object_list(outcome, src=0)
        if outcome[1] is not None:
            raise outcome[1]
        return outcome[0]

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """The block, in the first process before it starts in the others, who find the files that it left."""
        if not self.main:
            self._wait()
        yield
        if self.main:
            self._wait()

    def _wait(self) -> None:
        if self.size > 1:
            dist.barrier()


ALONE = Processes()
"""A run in one process."""


def launched(device: str = "auto") -> Processes:
    """The processes that a launcher has started, connected; `ALONE` without one.

    Args:
        device: the recipe's; "cpu" keeps them all on the CPU, else each takes an accelerator of its own.

    Raises:
        UserError: a launcher's mode that is not supported, or one device for all of them.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return ALONE
    _check_mode()
    if ":" in device:
        raise UserError(
            f"expected device 'auto', 'cuda' or 'cpu' for several processes, each of which takes a device of its own; "
            f"got {device!r}."
        )
    from accelerate import PartialState

    state = PartialState(cpu=device == "cpu", timeout=_PATIENCE)
    strategy: Literal["ddp", "fsdp"] = "fsdp" if _asked("ACCELERATE_USE_FSDP") else "ddp"
    return Processes(state.process_index, state.num_processes, strategy, str(state.device))


def launched_rank() -> int:
    """Which of the launched processes this is, before they are connected."""
    return int(os.environ.get("RANK", "0"))


def _check_mode() -> None:
    if _asked("ACCELERATE_USE_DEEPSPEED"):
        raise UserError(
            "DeepSpeed is not supported: its optimizer takes one gradient, and unlearning combines two. "
            "Launch with --multi_gpu (each process holds all weights) or --use_fsdp --fsdp_version 2 (each a part)."
        )
    if _asked("ACCELERATE_USE_MEGATRON_LM"):
        raise UserError("Megatron-LM is not supported. Launch with --multi_gpu or --use_fsdp --fsdp_version 2.")
    if _asked("ACCELERATE_USE_FSDP") and os.environ.get("FSDP_VERSION", "1") != "2":
        raise UserError(
            f"expected FSDP version 2, got {os.environ.get('FSDP_VERSION', '1')}. Launch with --fsdp_version 2."
        )


def _asked(variable: str) -> bool:
    return os.environ.get(variable, "false").lower() in ("true", "1")
