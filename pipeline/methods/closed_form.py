"""The methods in closed form: weights that read a prompt are solved for, so that forget prompts read as their anchors.

No images are drawn and no steps are taken. What is edited are the layers that a prompt's embedding enters
(`maths.parameters.text_entrances`), each from the second moments of its inputs. The papers edit at the concept's last
token alone. Here every token counts, as a causal text encoder writes the concept into all tokens behind it, padding
too; token i of a forget prompt is replaced by token i of its anchor, since attention asks for no order among them.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn

from ..maths.closed_form import Moments, moved_share
from ..maths.parameters import text_entrances
from ..models.protocol import Conditioning, Denoiser
from ..prompts import PromptSet
from ..support.errors import UserError
from ..support.progress import Progress, batches
from .base import Context, Method
from .config import MethodConfig

EMPTY_SHARE = 0.1
"""Weight of the empty prompt beside all other preserved prompts: guidance asks for it in every step of a drawing."""

_PAIRS = 8  # that are embedded at once


class ClosedFormConfig(MethodConfig):
    """Options that all methods in closed form share.

    A few dozen prompts say what there is to say: embedding them is most of the time that an edit takes.
    """

    recipe: ClassVar[Mapping[str, Mapping[str, object]]] = {"prompts": {"n": 64}}
    terms: ClassVar[tuple[str, ...]] = ()
    closed_form: ClassVar[bool] = True
    needs_unconditional: ClassVar[bool] = True
    needs_whole_weights: ClassVar[bool] = True


class ScaledConfig(ClosedFormConfig):
    """Options of UCE, and of RECE, which repeats it."""

    erase_scale: float = Field(default=1.0, gt=0, le=1000, description="weight of the forget prompts")
    preserve_scale: float = Field(default=1.0, ge=0, le=1000, description="weight of the prompts to be kept")
    lamb: float = Field(default=0.01, gt=0, le=1000, description="weight of the size of the change")


Config = TypeVar("Config", bound=ClosedFormConfig)


class ClosedForm(Method[Config]):
    """Base of the methods that solve for the weights. One says how the layers that read the same are edited."""

    @abstractmethod
    def solve(self, weights: Sequence[Tensor], moments: Moments) -> Iterator[Tensor]:
        """The edited weights, in turn.

        Args:
            weights: of all layers that read the same part of the conditioning, each (O, D), float64.
            moments: of their inputs, scaled.
        """

    def check(self, forget_samples: int, parameters: Mapping[str, Tensor] | None = None) -> None:
        """Nothing that the prompts and the network don't say themselves."""

    def edit(self, denoiser: Denoiser, prompts: PromptSet, progress: Progress) -> float:
        """Solve for the weights that read the prompts' embeddings."""
        return self.edit_network(denoiser.module, _gather(denoiser, prompts, progress), progress)

    def edit_network(self, module: nn.Module, seen: Mapping[str, Moments], progress: Progress) -> float:
        """Solve for the weights of a network, from the moments of what it is conditioned on.

        Returns:
            See `edit`.
        """
        entrances = text_entrances(module)
        edited: dict[nn.Parameter, Tensor] = {}
        covered = whole = 0.0
        with progress.stage("editing layers", sum(map(len, entrances.values()))) as advance:
            for part, named in entrances.items():
                moments = seen[part].scaled()
                width = len(moments.forget)
                before = [weight.detach()[:, :width].to("cpu", torch.float64) for weight in named.values()]
                after = []
                for weight, new in zip(named.values(), self.solve(before, moments), strict=True):
                    after.append(new)
                    edited[weight] = new.to(weight.dtype)
                    advance()
                moved, all_of_it = moved_share(before, after, moments)
                covered, whole = covered + moved, whole + all_of_it
        with torch.no_grad():
            for weight, new in edited.items():
                weight[:, : new.shape[1]] = new.to(weight.device)
        return covered / whole if whole > 0 else 0.0


def check_network(module: nn.Module, name: str) -> dict[str, nn.Parameter]:
    """The weights that a method in closed form changes, by name.

    Args:
        module: the network.
        name: of the method, for the message.

    Raises:
        UserError: a network that takes no prompts.
    """
    found = {key: weight for named in text_entrances(module).values() for key, weight in named.items()}
    if not found:
        raise UserError(
            f"{name} edits the layers that a prompt enters, and a {type(module).__name__} has none that are known. "
            "Choose a method that trains, such as rgd."
        )
    return found


def warm_start(name: str, method: "ClosedForm[ClosedFormConfig]", context: Context) -> None:
    """Edit the network before the first step, from the embeddings of the data that will train.

    Raises:
        UserError: see `check_warm_start`.
    """
    check_warm_start(name, context.denoiser.module, context.parameters)
    seen: dict[str, Moments] = {}
    for batch in context.batches("forget"):
        _see(seen, batch.conditioning, batch.paired_conditioning, {})
    for batch in context.batches("retain"):
        _see(seen, {}, {}, batch.conditioning)
    _see_empty(seen, context.empty_prompt())
    method.edit_network(context.denoiser.module, seen, context.progress)


def check_warm_start(name: str, module: nn.Module, parameters: Mapping[str, Tensor]) -> None:
    """Refuse an edit of weights that don't train afterwards.

    Raises:
        UserError: some of them don't, or there are none.
    """
    missing = [key for key in check_network(module, name) if key not in parameters]
    if missing:
        raise UserError(
            f"method.warm_start {name!r} edits {missing[0]} and others, which don't train with these "
            "training.parameters. Set them to 'full', or warm_start to 'none'."
        )


def _gather(denoiser: Denoiser, prompts: PromptSet, progress: Progress) -> dict[str, Moments]:
    """The moments of every part of the conditioning, over the distinct rows of a prompt set."""
    rows = list(dict.fromkeys(zip(prompts.forget_train, prompts.anchor_train, prompts.retain_train, strict=True)))
    seen: dict[str, Moments] = {}
    with progress.stage("reading prompts", len(rows)) as advance:
        for part in batches(rows, _PAIRS):
            texts = list(dict.fromkeys(text for row in part for text in row))
            embedded = denoiser.encode_prompts(texts)
            places = torch.tensor([[texts.index(text) for text in row] for row in part])
            forget, anchor, retain = (
                {name: values[places[:, role].to(values.device)] for name, values in embedded.items()}
                for role in range(3)
            )
            _see(seen, forget, anchor, retain)
            advance(len(part))
    _see_empty(seen, denoiser.encode_prompts([""]))
    return seen


def _see(seen: dict[str, Moments], forget: Conditioning, anchor: Conditioning, preserved: Conditioning) -> None:
    for name in {**forget, **preserved}:
        width = (forget or preserved)[name].shape[-1]
        moments = seen.setdefault(name, Moments.of_width(width))
        if forget:
            moments.see_pairs(forget[name], anchor[name])
        if preserved:
            moments.see_preserved(preserved[name])


def _see_empty(seen: Mapping[str, Moments], empty: Conditioning) -> None:
    for name, moments in seen.items():
        count = empty[name].numel() // empty[name].shape[-1]
        moments.see_preserved(empty[name], EMPTY_SHARE * moments.others / count)
        moments.invariants = empty[name].detach().to("cpu", torch.float64).flatten(0, -2)
