"""The methods with a forget and a retain gradient that a rule combines: grad_diff, grad_diff_d, rg and rgd."""

from collections.abc import Mapping, Sequence

from ..maths.gradients import Combination, Gradient, Reduce, Tensors
from ..maths.rules import BY_GRAM, combine, plain, sign_gated
from .base import Loss
from .forgetting import Forgetting, ForgettingConfig
from .moving import Dual, Famo, MovingWeight


class CombinedConfig(ForgettingConfig):
    """Options of a method with a rule; the plain sum where a subclass says nothing."""

    @property
    def rule(self) -> str:
        """The rule, by its name in `RULES`."""
        return "sum"

    @property
    def per_layer(self) -> bool:
        """Whether the rule is applied to each tensor by itself."""
        return False


class Combined(Forgetting[CombinedConfig]):
    """Minimise both losses along the direction of a rule.

    Attributes:
        moving: the weight of the retain loss where the rule moves it; else it is the configuration's.
    """

    def __init__(self, config: CombinedConfig) -> None:
        super().__init__(config)
        self.moving: MovingWeight | None = None
        if config.rule == "budget":
            self.moving = Dual(config.retain_weight, config.allowance)
        elif config.rule == "famo":
            self.moving = Famo(config.retain_weight)

    @property
    def retain_weight(self) -> float:
        """lambda, as it is now."""
        return self.config.retain_weight if self.moving is None else self.moving.value

    def moves(self) -> float | None:
        """Lambda where it moves."""
        return None if self.moving is None else self.moving.value

    def rise(self) -> float | None:
        """The rise that `budget` watches."""
        return self.moving.rise if isinstance(self.moving, Dual) else None

    def compare(self, retain_losses: Sequence[float]) -> None:
        """Keep what the retain loss was, for `budget`."""
        if isinstance(self.moving, Dual):
            self.moving.before = retain_losses

    def observe(self, step: int, losses: Mapping[str, Loss]) -> None:
        """Let lambda move."""
        if self.moving is not None:
            self.moving.observe(step, losses)

    def state_dict(self) -> dict[str, float]:
        """What a lambda that moves remembers."""
        return {} if self.moving is None else self.moving.state_dict()

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go on with it."""
        if self.moving is not None and state:
            self.moving.load_state_dict(state)

    def weigh(self) -> dict[str, float] | None:
        """With `famo` the weights of both losses, which add up to 2 as those of equal gradients in a sum do."""
        if self.config.rule != "famo":
            return None
        whole = (1 + self.retain_weight) / 2
        return {"forget": 1 / whole, "retain": self.retain_weight / whole}

    def combine(
        self, grads: Mapping[str, Gradient], weights: Tensors | None = None, reduce: Reduce | None = None
    ) -> Combination:
        """The rule's direction, by inner products in the metric `weights` where there is one."""
        rule = self.config.rule
        if rule == "famo":
            return Combination(grads, dict.fromkeys(grads, 1.0))
        if rule == "sago":
            return sign_gated(grads, self.retain_weight, reduce)
        known = BY_GRAM.get(rule, plain)  # `budget` is the sum with a lambda that moves
        return combine(
            grads, known, self.retain_weight, per_layer=self.config.per_layer, weights=weights, reduce=reduce
        )
