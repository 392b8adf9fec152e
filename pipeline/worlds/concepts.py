"""Several concepts in one text, as people write them: "cat + pop art"."""

import re
from collections.abc import Sequence
from typing import Annotated

from annotated_types import MinLen
from pydantic import BeforeValidator, PlainSerializer

from ..support.errors import UserError
from ..support.text import fold

_JOINT = " + "


def split_concepts(text: str) -> tuple[str, ...]:
    """Read one concept, or several joined by a plus between spaces.

    Raises:
        UserError: nothing on one side of a plus, or one concept twice.

    >>> split_concepts("cat + pop art")
    ('cat', 'pop art')
    """
    parts = [" ".join(part.split()) for part in re.split(r"\s\+(?=\s)", f" {text} ")]
    if len(parts) == 1:
        return (text,)
    if not all(parts):
        raise UserError(f"expected a concept on both sides of each '+', got {text!r}. Leave the plus out.")
    if len({fold(part) for part in parts}) < len(parts):
        raise UserError(f"expected different concepts, got {text!r}. Name each once.")
    return tuple(parts)


def join_concepts(concepts: Sequence[str]) -> str:
    """Write concepts as one text, which `split_concepts` reads.

    >>> join_concepts(("cat", "pop art"))
    'cat + pop art'
    """
    return _JOINT.join(concepts)


def _several(concepts: object) -> object:
    """Read "cat + pop art" as ("cat", "pop art")."""
    if not isinstance(concepts, str):
        return concepts
    if not concepts.strip():
        raise ValueError("expected the name of a concept, got an empty text")
    try:
        return split_concepts(concepts.strip())
    except UserError as error:
        raise ValueError(str(error)) from None


Concepts = Annotated[
    tuple[str, ...], BeforeValidator(_several), PlainSerializer(join_concepts, return_type=str), MinLen(1)
]
"""One or more concepts: a tuple in the program, one text in documents and options."""
