"""Adam, three times: torch's own, bitsandbytes' with moments in 8 bits, and one whose preconditioner is also
the metric of the projection.

Adam divides a direction by the root of its second moments and averages it over steps, so the
direction that leaves the combination is not the one that the weights take. `MetricAdam` lets the
projection use the same preconditioner P that then scales the step. Without momentum,

    g_r . dtheta = -lr <g_r, delta_f + lambda delta_r>_P = -lr lambda <g_r, delta_r>_P <= 0,

and likewise for g_f: the guarantee of Theorem 4 holds for the step that is taken. It does for any P > 0, so P is
taken from the squares of both gradients, not from the square of their sum: where the two nearly cancel, a sum would
give a huge P to a direction that is not small there, and nothing would bound the step.
"""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from ..maths.gradients import Gradient, plain_coefficients
from ..schema.recipe import TrainingSection
from ..support.errors import MissingExtra

_FUSED = ("cpu", "cuda", "mps", "xpu")
"""Devices on which torch has an Adam in one pass, without temporary tensors."""
_TABLES = "qmap"
"""bitsandbytes' tables of the values that 8 bits stand for: the same for every parameter, and not kept."""


class MetricAdam(torch.optim.Optimizer):
    """p <- p - lr P g with P = 1 / (sqrt(v / (1 - beta2^t)) + eps), v the running mean of g_f^2 + lambda^2 g_r^2.

    Args:
        parameters: the weights.
        lr: learning rate.
        beta2: decay of the second moments.
        eps: keeps P finite.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], lr: float, beta2: float = 0.999, eps: float = 1e-8) -> None:
        super().__init__(parameters, {"lr": lr, "beta2": beta2, "eps": eps})
        self.ordered = list(parameters)

    @torch.no_grad()
    def observe(self, grads: Mapping[str, Gradient], retain_weight: float) -> None:
        """Take the squares of the raw gradients, g_f^2 + lambda^2 g_r^2, into the second moments."""
        shares = {term: weight**2 for term, weight in plain_coefficients(grads, retain_weight).items()}
        beta2 = self.defaults["beta2"]
        for index, parameter in enumerate(self.ordered):
            state = self.state[parameter]
            if not state:
                state["step"] = torch.zeros(())
                state["exp_avg_sq"] = torch.zeros_like(parameter)
            state["step"] += 1
            moment = state["exp_avg_sq"].mul_(beta2)
            for term, share in shares.items():
                gradient = grads[term][index]
                moment.addcmul_(gradient, gradient, value=(1 - beta2) * share)

    @property
    def metric(self) -> "Metric":
        """P, one tensor at a time."""
        return Metric(self)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Step every parameter that has a gradient."""
        lr = self.param_groups[0]["lr"]
        for index, parameter in enumerate(self.ordered):
            if parameter.grad is not None:
                parameter.addcmul_(self.metric[index], parameter.grad, value=-lr)


class Metric:
    """The diagonal preconditioner of a `MetricAdam`, computed one tensor at a time."""

    def __init__(self, optimizer: MetricAdam) -> None:
        self.optimizer = optimizer

    def __len__(self) -> int:
        return len(self.optimizer.ordered)

    def __getitem__(self, index: int) -> Tensor:
        state = self.optimizer.state[self.optimizer.ordered[index]]
        correction = 1 - self.optimizer.defaults["beta2"] ** state["step"].item()
        return (state["exp_avg_sq"] / correction).sqrt_().add_(self.optimizer.defaults["eps"]).reciprocal_()


def check_optimizer(spec: TrainingSection) -> None:
    """Find out, before anything is drawn, whether the optimizer is installed.

    Raises:
        MissingExtra: bitsandbytes is not.
    """
    if spec.optimizer == "adam8bit" and find_spec("bitsandbytes") is None:
        raise MissingExtra("bitsandbytes", "adam8bit", "training.optimizer 'adam8bit'")


def build_optimizer(spec: TrainingSection, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
    """Adam without weight decay (Ko et al. 2024), or `MetricAdam`, or bitsandbytes' 8-bit Adam (Dettmers et al. 2022).

    Raises:
        MissingExtra: bitsandbytes is not installed.
    """
    lr = spec.learning_rate
    if spec.metric == "adam":
        return MetricAdam(parameters, lr)
    if spec.optimizer == "adam8bit":
        check_optimizer(spec)
        from bitsandbytes.optim import Adam8bit

        return Adam8bit(parameters, lr)
    fused = all(parameter.device.type in _FUSED for parameter in parameters)
    return torch.optim.Adam(parameters, lr, fused=fused or None)


def moments(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> dict[str, Tensor]:
    """The optimizer's memory of one parameter, as tensors to keep."""
    state = optimizer.state[parameter]
    return {key: torch.as_tensor(value) for key, value in state.items() if not key.startswith(_TABLES)}


def restore_moments(optimizer: Any, parameter: nn.Parameter, kept: Mapping[str, Tensor]) -> None:
    """Put back what `moments` gave."""
    state = optimizer.state[parameter]
    if "state1" not in kept:
        for key, value in kept.items():  # laid out in memory as the parameter is, which a fused Adam relies on
            state[key] = torch.empty_like(parameter).copy_(value) if value.ndim else value.to(parameter.device)
        return
    place = next(i for i, held in enumerate(optimizer.param_groups[0]["params"]) if held is parameter)
    optimizer.init_state(optimizer.param_groups[0], parameter, 0, place)  # bitsandbytes': with its tables
    for key, value in kept.items():
        state[key] = int(value) if key == "step" else state[key].copy_(value)
