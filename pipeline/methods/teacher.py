"""The model as it was before the first step, kept beside the one that trains."""

from collections.abc import Sequence

from torch import nn


class Teacher:
    """The weights as they were, put back into the network within `with`.

    Only the weights that train are kept twice, the others are the teacher's too. They are exchanged, not
    copied; no graph may be built inside or be open across the block.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = parameters
        self.others = [parameter.detach().clone() for parameter in parameters]

    def __enter__(self) -> None:
        self._exchange()

    def __exit__(self, *_: object) -> None:
        self._exchange()

    def _exchange(self) -> None:
        for index, parameter in enumerate(self.parameters):
            parameter.data, self.others[index] = self.others[index], parameter.data
