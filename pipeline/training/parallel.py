"""The network that trains, as a process holds it: alone, a copy in each (DDP), or a part in each (FSDP2).

All give gradients that are the mean over the processes, of one term at a time. A term's micro-batches
add up locally and are exchanged with the last one; nothing of another term that was not exchanged may be in
between, since both libraries reduce whatever lies in `.grad`.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..methods import MethodConfig, build_method
from ..models import Denoiser
from ..schema.recipe import TrainingSection
from ..support.errors import UserError
from ..support.processes import ALONE, Processes

Result = TypeVar("Result")


class Parallel:
    """The network of a process that is alone; the base of those of several processes.

    Args:
        module: the network.
        named: the parameters that train.
        processes: who else holds it.

    Attributes:
        parameters: what the optimizer holds, in the order of `named`.
    """

    def __init__(self, module: nn.Module, named: Mapping[str, nn.Parameter], processes: Processes = ALONE) -> None:
        self.module, self.named, self.processes = module, named, processes
        self.parameters: list[nn.Parameter] = list(named.values())

    def start(self) -> None:
        """Connect with the others; the parameters that train require gradients, no others do."""

    def compute(self, work: Callable[[], Result]) -> Result:
        """Do the forward passes of one micro-batch."""
        return work()

    def accumulating(self, last: bool) -> AbstractContextManager[Any]:
        """Surrounds forward and backward pass of a micro-batch; gradients are exchanged after the last one."""
        return nullcontext()

    def take_gradients(self) -> list[Tensor]:
        """The accumulated gradients, shaped like `parameters`; `.grad` is empty afterwards."""
        grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self.named.values()]
        self.drop_gradients()
        return grads

    def drop_gradients(self) -> None:
        """Empty every `.grad`."""
        for parameter in (*self.named.values(), *self.parameters):
            parameter.grad = None

    def total(self, table: Tensor) -> Tensor:
        """A table of sums over this process's part of the weights, as sums over all weights."""
        return table

    def whole(self, name: str, held: Tensor) -> Tensor:
        """A whole tensor from what every process holds of it."""
        return held

    def part(self, name: str, whole: Tensor) -> Tensor:
        """The part of a whole tensor that this process holds."""
        return whole


class DDP(Parallel):
    """All of the weights in every process (`DistributedDataParallel`)."""

    def start(self) -> None:
        """Wrap the network, which sends the weights of the first process to the others."""
        # a network may hold weights that a pass doesn't use, and then others would wait for their gradients
        self.parallel = nn.parallel.DistributedDataParallel(
            _Work(self.module), broadcast_buffers=False, find_unused_parameters=True, gradient_as_bucket_view=False
        )

    def compute(self, work: Callable[[], Result]) -> Result:
        """Do the forward passes of one micro-batch, watched by DDP."""
        return self.parallel(work)

    def accumulating(self, last: bool) -> AbstractContextManager[Any]:
        """Exchange gradients in the backward pass of the last micro-batch only."""
        return nullcontext() if last else self.parallel.no_sync()


class _Work(nn.Module):
    """Any work with a network, several passes too, as the one forward pass that DDP watches."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, work: Callable[[], Any]) -> Any:
        return work()


class FSDP2(Parallel):
    """A part of every weight in each process (FSDP2, `fully_shard`).

    The network's parameters are distributed tensors; the optimizer holds plain ones over the same memory,
    so that everything between the gradients and the step is local but for a few sums.
    """

    def __init__(self, module: nn.Module, named: Mapping[str, nn.Parameter], processes: Processes = ALONE) -> None:
        super().__init__(module, named, processes)
        self.parameters = [nn.Parameter(_local(parameter), requires_grad=False) for parameter in named.values()]

    def accumulating(self, last: bool) -> AbstractContextManager[Any]:
        """Exchange gradients in the backward pass of the last micro-batch only."""
        self.module.set_requires_gradient_sync(last)  # type: ignore[operator]
        return nullcontext()

    def take_gradients(self) -> list[Tensor]:
        """This process's parts of the accumulated gradients; `.grad` is empty afterwards."""
        grads = [
            _local(p.grad) if p.grad is not None else torch.zeros_like(held)
            for p, held in zip(self.named.values(), self.parameters, strict=True)
        ]
        self.drop_gradients()
        return grads

    def total(self, table: Tensor) -> Tensor:
        """Add sums over the parts of all processes."""
        return self.processes.total(table)

    def whole(self, name: str, held: Tensor) -> Tensor:
        """Put a tensor together from all parts; every process has to ask."""
        from torch.distributed.tensor import DTensor

        like: Any = self.named[name]
        if not held.ndim:  # Adam's count of steps
            return held
        spread = DTensor.from_local(
            held, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
        )
        return spread.full_tensor()

    def part(self, name: str, whole: Tensor) -> Tensor:
        """The part of a whole tensor that this process holds: even chunks of the first dimension."""
        if not whole.ndim:
            return whole
        chunks = whole.chunk(self.processes.size)
        return chunks[self.processes.rank] if self.processes.rank < len(chunks) else whole[:0]


def parallel_network(module: nn.Module, named: Mapping[str, nn.Parameter], processes: Processes) -> Parallel:
    """The network as these processes were launched to hold it; with "fsdp" inside of `sharded`."""
    kind = Parallel if processes.size == 1 else FSDP2 if processes.sharded else DDP
    return kind(module, named, processes)


@contextmanager
def sharded(denoiser: Denoiser, processes: Processes) -> Iterator[None]:
    """With FSDP, a copy of the network of which each process holds a part, in the denoiser's place.

    Meanwhile the network itself waits on the CPU. After the block it has the weights of the copy.
    """
    if not processes.sharded:
        yield
        return
    try:
        from torch.distributed.fsdp import fully_shard
    except ImportError:
        raise UserError(f"FSDP2 needs torch 2.6 or newer, got {torch.__version__}. Launch with --multi_gpu.") from None

    pipeline, component, network = denoiser.pipeline, denoiser.component, denoiser.module
    network.to("cpu")
    copy = deepcopy(network)
    mesh = torch.distributed.init_device_mesh(torch.device(processes.device).type, (processes.size,))
    for block in _blocks(copy):
        fully_shard(block, mesh=mesh)
    fully_shard(copy, mesh=mesh)
    setattr(pipeline, component, copy)
    try:
        yield
        with torch.no_grad():
            held: dict[str, Any] = dict(copy.named_parameters())
            for name, parameter in network.named_parameters():
                parameter.copy_(held[name].full_tensor())
    finally:
        setattr(pipeline, component, network)
        network.to(denoiser.device)


def _blocks(network: nn.Module) -> list[nn.Module]:
    """The pieces that are put together for a pass one at a time: the members of the network's lists."""
    return [block for child in network.children() if isinstance(child, nn.ModuleList) for block in child]


def _local(tensor: Any) -> Tensor:
    return tensor.detach().to_local()


def check_processes(config: MethodConfig, spec: TrainingSection, processes: Processes) -> None:
    """Find out, before anything is drawn, whether these processes can train this.

    Raises:
        UserError: too few pairs for them all, or a method that needs whole weights.
    """
    smallest = spec.batch_size // spec.gradient_accumulation_steps
    if smallest < processes.size:
        raise UserError(
            f"expected at least one pair of every micro-batch for each of {processes.size} processes, got {smallest} "
            "(batch_size divided by gradient_accumulation_steps). Raise batch_size or start fewer processes."
        )
    if processes.sharded and spec.optimizer != "adam":
        raise UserError(f"optimizer {spec.optimizer!r} can't be cut in parts by FSDP. Set it to 'adam'.")
    if processes.sharded and (spec.torch_compile or spec.channels_last):
        raise UserError("torch_compile and channels_last need a whole network, which FSDP cuts in parts. Leave them.")
    if processes.sharded and spec.base_precision != "fp32":
        raise UserError(
            f"FSDP cuts weights of one number format in parts, got training.base_precision {spec.base_precision!r}. "
            "Launch with --multi_gpu instead of --use_fsdp, or set it to 'fp32'."
        )
    if processes.sharded and spec.preview_every:
        raise UserError("preview_every draws with whole weights, which FSDP has cut in parts. Set it to 0.")
    if processes.sharded and spec.early_stop:
        raise UserError(
            "early_stop looks at whole weights before the first step, which FSDP has cut in parts. Leave it off."
        )
    if processes.sharded and build_method(config).needs_whole_weights:
        raise UserError(
            f"{config.name} looks at whole weights before the first step, which FSDP has cut in parts. "
            "Launch with --multi_gpu instead of --use_fsdp."
        )
