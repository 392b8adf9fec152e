"""The methods in closed form: weights that read a prompt are solved for, so that forget prompts read as their anchors.

No images are drawn and no steps are taken. What is edited are the layers that a prompt's embedding enters
(`maths.parameters.text_entrances`), each from the second moments of its inputs. The papers edit at the concept's last
token alone. Here every token counts, as a causal text encoder writes the concept into all tokens behind it, padding
too; token i of a forget prompt is replaced by token i of its anchor, since attention asks for no order among them.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from pydantic import Field
from torch import Tensor

from ..maths.closed_form import Moments, moved_share
from ..maths.double import double
from ..maths.parameters import text_entrances
from ..models.protocol import Conditioning, Denoiser
from ..support.errors import UserError
from ..support.progress import Progress, batches
from .base import Context, Method, Row
from .config import MethodConfig

EMPTY_SHARE = 0.1
"""Weight of the empty prompt beside all other preserved prompts: guidance asks for it in every step of a drawing."""

_PAIRS = 8  # that are embedded at once


class ClosedFormConfig(MethodConfig):
    """Options that all methods in closed form share.

    A few dozen prompts say what there is to say: embedding them is most of the time that an edit takes.
    """

    recipe: ClassVar[Mapping[str, Mapping[str, object]]] = {"prompts": {"n": 64, "replace_with": "auto"}}
    terms: ClassVar[tuple[str, ...]] = ()
    closed_form: ClassVar[bool] = True
    needs_unconditional: ClassVar[bool] = True
    needs_whole_weights: ClassVar[bool] = True
    sees: ClassVar[tuple[str, ...]] = ()

    @property
    def edits_with(self) -> str:
        """Itself."""
        return self.name

    @property
    def redirects(self) -> bool:
        """Always: forget prompts are read as their anchors."""
        return True


SIZE = "lambda: weight of the size of the change"


class ScaledConfig(ClosedFormConfig):
    """Options of UCE, and of RECE, which repeats it."""

    erase_scale: float = Field(default=1.0, gt=0, le=1000, description="weight of the forget prompts")
    preserve_scale: float = Field(default=1.0, ge=0, le=1000, description="weight of the prompts to be kept")
    lamb: float = Field(default=0.01, gt=0, le=1000, description=SIZE)


Config = TypeVar("Config", bound=ClosedFormConfig)


class Encoder(Protocol):
    """What embeds prompts; a `Denoiser` does."""

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """Name -> tensor with a row for each prompt."""
        ...


class ClosedForm(Method[Config]):
    """Base of the methods that solve for the weights. One says how the layers that read the same are edited."""

    @abstractmethod
    def solve(self, weights: Sequence[Tensor], moments: Moments) -> Iterator[Tensor]:
        """The edited weights, in turn.

        Args:
            weights: of all layers that read the same part of the conditioning, each (O, D), float64.
            moments: of their inputs, scaled.
        """

    def edit(self, denoiser: Denoiser, rows: Sequence[Row], progress: Progress) -> float:
        """Solve for the weights that read the prompts' embeddings."""
        weights = check_network(dict(denoiser.module.named_parameters()), self.config.name)
        return self.edit_weights(weights, gather(denoiser, rows, progress), progress)

    def edit_weights(self, weights: Mapping[str, Tensor], seen: Mapping[str, Moments], progress: Progress) -> float:
        """Solve for those of some weights that read prompts, from the moments of what they are conditioned on.

        Returns:
            See `edit`.
        """
        entrances = text_entrances(weights)
        edited: list[tuple[Tensor, Tensor]] = []
        covered = whole = 0.0
        with progress.stage("editing layers", sum(map(len, entrances.values()))) as advance:
            for part, named in entrances.items():
                moments = seen[part].scaled()
                before = [_columns(weight, moments) for weight in named.values()]
                after: list[Tensor] = []
                for new in self.solve(before, moments):
                    after.append(new)
                    advance()
                moved, all_of_it = moved_share(before, after, moments)
                covered, whole = covered + moved, whole + all_of_it
                edited += zip(named.values(), (new.float() for new in after), strict=True)
        with torch.no_grad():
            for weight, new in edited:
                weight[:, : new.shape[1]] = new
        return covered / whole if whole > 0 else 0.0


def _columns(weight: Tensor, moments: Moments) -> Tensor:
    """What of a weight reads the inputs that the moments are of, in float64 on the CPU."""
    return double(weight[:, : len(moments.forget)])


def check_network(weights: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The weights that a method in closed form changes, by name.

    Args:
        weights: of the network.
        name: of the method, for the message.

    Raises:
        UserError: a network that takes no prompts.
    """
    found = {key: weight for named in text_entrances(weights).values() for key, weight in named.items()}
    if not found:
        raise UserError(
            f"{name} edits the layers that a prompt enters, and this network has none that are known. Choose a method "
            "that trains, such as rgd."
        )
    return found


def check_warm_start(name: str, weights: Mapping[str, Tensor]) -> None:
    """Refuse an edit of weights that don't train afterwards.

    Args:
        name: of the method in closed form.
        weights: that will train.

    Raises:
        UserError: none of them reads a prompt.
    """
    if not text_entrances(weights):
        raise UserError(
            f"method.warm_start {name!r} edits the layers that a prompt enters, and none is among the weights that "
            "train. With training.parameters 'full' every layer trains; if that is set, this network has none that is "
            "known: set warm_start to 'none'."
        )


def warm_start(method: ClosedForm[Any], context: Context) -> None:
    """Edit the weights that will train before the first step, from the embeddings of the data.

    Args:
        method: the one in closed form.
        context: of the method that trains.
    """
    seen: dict[str, Moments] = {}
    for batch in context.batches("forget"):
        _see(seen, batch.conditioning, batch.anchor, {})
    for batch in context.batches("retain"):
        _see(seen, {}, {}, batch.conditioning)
    _see_empty(seen, context.empty_prompt())
    method.edit_weights(context.parameters, seen, context.progress)


def gather(encoder: Encoder, rows: Sequence[Row], progress: Progress) -> dict[str, Moments]:
    """The moments of every part of the conditioning, over the distinct rows of a prompt set.

    Args:
        encoder: embeds them: the model.
        rows: forget prompts, their anchors and retain prompts.
        progress: told of each batch.
    """
    rows = list(dict.fromkeys(rows))
    seen: dict[str, Moments] = {}
    with progress.stage("reading prompts", len(rows)) as advance:
        for part in batches(rows, _PAIRS):
            texts = list(dict.fromkeys(text for row in part for text in row))
            embedded = encoder.encode_prompts(texts)
            places = torch.tensor([[texts.index(text) for text in row] for row in part])
            forget, anchor, retain = (
                {name: values[places[:, role].to(values.device)] for name, values in embedded.items()}
                for role in range(3)
            )
            _see(seen, forget, anchor, retain)
            advance(len(part))
    _see_empty(seen, encoder.encode_prompts([""]))
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
        moments.invariants = double(empty[name]).flatten(0, -2)
