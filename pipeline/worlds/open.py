"""The open world: prompts in any words, for models that were trained on the whole web."""

from typing import ClassVar

from .base import World


class Open(World):
    """Anything may be said, so no list of classes exists for an accuracy."""

    name: ClassVar[str] = "open"
