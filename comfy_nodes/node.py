"""What the node classes share."""

from collections.abc import Callable
from typing import Any, ClassVar

from . import host


class Node:
    """A node of ComfyUI's first interface (V1). A subclass says what goes in and out, and does its `work`."""

    TITLE: ClassVar[str]
    """Its name in menus."""
    CATEGORY: ClassVar[str] = "Turpentine"
    FUNCTION: ClassVar[str] = "run"
    DESCRIPTION: ClassVar[str] = ""
    SEARCH_ALIASES: ClassVar[tuple[str, ...]] = ()

    def run(self, **inputs: Any) -> Any:
        """Called by ComfyUI with the values of all inputs."""
        with host.working():
            return self.work(**inputs)

    work: Callable[..., Any]
    """Does what the node is for, where gradients are possible and a cancel is understood."""


def shown(text: str, *result: Any) -> dict[str, Any]:
    """The result of an output node, with a text that ComfyUI keeps in its history."""
    return {"ui": {"text": (text,)}, "result": result}
