"""The options of a method, and what it needs of the rest of the program.

A configuration is all that a recipe, a command line or a node has to know of a method, so nothing here
imports torch. The needs are class variables: whoever has to decide something asks for the need, never
for the name of a method.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
)
from pydantic_core import PydanticKnownError

DATA = "diverse: many paired forget/retain prompts (the D of RGD); uniform: one forget and one retain prompt"


class Options(BaseModel):
    """Values that a person chose: frozen, strict about their keys, finite, and no truth values for numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_value_for_a_number(cls, value: object, info: ValidationInfo) -> object:
        if isinstance(value, bool) and info.field_name:
            kind = cls.model_fields[info.field_name].annotation
            kinds = get_args(kind) or (kind,)
            if bool not in kinds and {int, float} & set(kinds):
                raise PydanticKnownError("int_type" if int in kinds else "float_type")
        return value


class MethodConfig(Options):
    """Base of the methods' options. A subclass gives `name` a default, by which recipes find it.

    Attributes:
        recipe: what the method's definition asks of the other sections of a recipe, whatever the model.
        terms: the loss terms, in the order in which they are differentiated.
        two_gradients: whether `combine` reads the forget and the retain gradient one tensor at a time, so that the
            first may wait in less room (`training.forget_gradient`).
        projects: whether `combine` takes inner products that may be those of Adam's metric (`training.metric`).
        sees: the terms whose images a loss, or `prepare`, looks at. Of the others the prompts are enough, and nothing
            is drawn.
        needs_unconditional: whether `prepare` is to be given the empty prompt's conditioning.
        needs_whole_weights: whether `prepare` looks at whole weights, which FSDP cuts in parts.
        variants: the option whose values have defaults of their own, in `<method>-<value>.yaml`; "" for none.
        closed_form: whether `edit` does all of it from the prompts alone: no samples, no steps, no terms.
    """

    recipe: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    terms: ClassVar[tuple[str, ...]] = ("forget", "retain")
    two_gradients: ClassVar[bool] = False
    projects: ClassVar[bool] = False
    sees: ClassVar[tuple[str, ...]] = ("forget", "retain")
    needs_unconditional: ClassVar[bool] = False
    needs_whole_weights: ClassVar[bool] = False
    variants: ClassVar[str] = ""
    closed_form: ClassVar[bool] = False

    name: str
    data: Literal["diverse", "uniform"] = Field(default="diverse", description=DATA)

    @property
    def gradients(self) -> int:
        """How many gradients are in memory when they are combined."""
        return len(self.terms)

    @property
    def compares(self) -> bool:
        """True if the method asks what the retain loss was on the data of each step."""
        return False

    @property
    def ascends(self) -> bool:
        """True if the forget loss that people read is a denoising loss that is meant to rise, all the time."""
        return False

    @property
    def redirects(self) -> bool:
        """True if the forget loss looks at the anchors: what is to be drawn instead."""
        return False

    @property
    def edits_with(self) -> str:
        """The name of the method in closed form that edits the layers that read prompts; "" for none."""
        return ""

    @property
    def has_teacher(self) -> bool:
        """True if a loss looks at the original model, so that the weights that train are kept as they were, too."""
        return False

    def idle(self) -> Mapping[str, str]:
        """The options that others leave without effect, and why: "with method.mask"."""
        return {}

    def refuses(self) -> Mapping[str, str]:
        """The fields of `training` that must stay as they are with these options, and why."""
        return {}


class RetainWeight(MethodConfig):
    """Options of a method that weighs the retain gradient."""

    retain_weight: float = Field(
        default=1.5, ge=0, le=100, description="lambda: weight of the retain direction beside the forget direction"
    )


class ForgetLimit(MethodConfig):
    """Options of a method that stops pushing where the forget loss is high enough."""

    forget_limit: float | Literal["auto"] | None = Field(
        default=1.6,
        gt=0,
        le=100,
        description="alpha: above this denoising loss on forget data a step no longer pushes it up (none: no limit; "
        "auto: at each timestep, the distance between the targets of two samples)",
    )

    @field_validator("forget_limit", mode="wrap")
    @classmethod
    def _auto_or_number(cls, value: object, number: ValidatorFunctionWrapHandler) -> object:
        return value if value == "auto" else number(value)
