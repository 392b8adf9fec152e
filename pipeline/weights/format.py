"""The description of a weights format: how it is written, refused, loaded by people, and read back."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from torch import Tensor, nn

from ..models import Denoiser
from ..models.family import Family
from ..support.errors import UserError
from .change import Change
from .job import Job, Written
from .layouts import Entry, Layout, denoiser_layout
from .names import names_are_diffusers

PIPELINE = "from diffusers import DiffusionPipeline\n\n"
BASE = f'{PIPELINE}pipeline = DiffusionPipeline.from_pretrained("BASE")  # the base model\n'


@dataclass
class Keys:
    """The tensors of a weights file that no format has claimed yet, and the network that they are for.

    Attributes:
        path: of the file.
        names: what is left to claim.
        get: gives a tensor by its name.
        metadata: of the file.
        module: the network.
    """

    path: Path
    names: set[str]
    get: Callable[[str], Tensor]
    metadata: Mapping[str, str]
    module: nn.Module
    shapes: Mapping[str, tuple[int, ...]] = field(init=False)

    def __post_init__(self) -> None:
        self.shapes = {name: tuple(tensor.shape) for name, tensor in self.module.state_dict().items()}

    @cached_property
    def original(self) -> Layout:
        """The network's original layout; empty for a network that needs none, as its names are diffusers' anyway.

        Raises:
            UserError: a network whose original layout is not known.
        """
        try:
            return denoiser_layout(self.module)
        except UserError:
            if not names_are_diffusers(self.module):
                raise
            return {}

    def spread(self, entry: Entry, tensor: Tensor) -> Iterable[Change]:
        """The changes that one tensor of the original layout stands for."""
        return (Change(name, value) for name, value in entry.to_diffusers(tensor, self.shapes).items())


Claim = tuple[set[str], Iterable[Change]]
"""Names that a format recognises as its own, and the changes that they are, worked out one at a time."""


def _apply(path: str, family: type[Family] | None) -> str:
    return f"import turpentine\n{BASE}turpentine.apply(pipeline, {path})"


def _nothing(denoiser: Denoiser) -> None:
    """Refuse no model."""


@dataclass(frozen=True)
class Format:
    """A weights format; its name is that of its file, and its meaning stands in `schema.choices.WEIGHT_FORMATS`.

    Attributes:
        write: writes the file or folder.
        rank: which one a person should load first, the lowest; whole models come before what needs the base.
        of_difference: whether it holds a difference from the weights before unlearning.
        check: refuses, with a UserError, a model that can't be written so.
        load: Python that loads it as `pipeline`, or a comment; of the path (a Python string) and the family.
        read: claims the names of a file that it can read back; None for whole models.
    """

    write: Callable[[Job], Written]
    rank: int
    of_difference: bool = False
    check: Callable[[Denoiser], None] = _nothing
    load: Callable[[str, type[Family] | None], str] = _apply
    read: Callable[[Keys], Claim] | None = None
