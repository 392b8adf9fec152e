"""Several processes that do one run together: who does what, and how they agree.

They are started by `accelerate launch` (or `torchrun`), one for each device. Each holds the whole
run in its own memory; files are written, and figures measured, by the first one alone.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypeVar

import torch
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
        """True for the one process that writes, prints and measures."""
        return self.rank == 0

    @property
    def sharded(self) -> bool:
        """True if each holds only a part of the weights while it trains."""
        return self.strategy == "fsdp" and self.size > 1

    def share(self, indices: Tensor) -> Tensor:
        """This process's part of (N,) indices, in their order; parts differ by one at most."""
        return indices.tensor_split(self.size)[self.rank]

    def split(self, count: int, size: int) -> list[int]:
        """Which of `count` things this process does: neighbouring batches of `size`, as many as the others do."""
        batches = torch.arange(count).split(size)
        return [int(index) for place in self.share(torch.arange(len(batches))) for index in batches[place]]

    def gather(self, rows: Tensor | None) -> Tensor:
        """The rows of all processes, (N, ...) on the CPU, one process's after the other's; None for no rows."""
        parts = [rows]
        if self.size > 1:
            from accelerate.utils import gather_object  # heavy, and of no use to a process that is alone

            parts = gather_object(parts)
        return torch.cat([part for part in parts if part is not None])

    def sums(self, values: Sequence[float]) -> list[float]:
        """Numbers added over the processes, in one exchange."""
        return self.total(torch.tensor(values, dtype=torch.float64)).tolist()

    def total(self, table: Tensor) -> Tensor:
        """A float64 table on the CPU, added over the processes in one exchange."""
        if self.size == 1:
            return table
        from accelerate.utils import reduce

        return reduce(table.to(self.device), "sum").cpu()

    def together(self, advance: Callable[..., None]) -> Callable[..., None]:
        """A progress report after which all processes stop if one of them was told to.

        Each has to call it equally often.
        """
        if self.size == 1:
            return advance

        def told(*arguments: Any) -> None:
            stop = False
            try:
                advance(*arguments)
            except Cancelled:
                stop = True
            if self.sums([stop])[0]:
                raise Cancelled("Stopped.")

        return told

    def on_main(self, work: Callable[[], Result]) -> Result:
        """Let the first process work while the others wait; all get its result, or its error."""
        if self.size == 1:
            return work()
        from accelerate.utils import broadcast_object_list

        outcome: list[Any] = [None, None]
        if self.main:
            try:
                outcome[0] = work()
            except Exception as error:
                outcome[1] = error
        broadcast_object_list(outcome)
        if outcome[1] is not None:
            raise outcome[1]
        return outcome[0]

    @contextmanager
    def holding(self, context: AbstractContextManager[Result]) -> Iterator[Result]:
        """Hold something in the first process while all do the block; all get what it gives, or its error."""
        with ExitStack() as held:
            yield self.on_main(lambda: held.enter_context(context))

    def main_first(self) -> AbstractContextManager[None]:
        """The block, in the first process before it starts in the others, who find the files that it left."""
        if self.size == 1:
            return nullcontext()
        from accelerate import PartialState

        return PartialState().main_process_first()


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
