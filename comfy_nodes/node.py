"""The base class of all nodes."""

from collections.abc import Callable
from typing import Any, ClassVar

from . import host


class Node:
    """A node of ComfyUI's first interface (V1). A subclass declares inputs and outputs and defines `work`."""

    TITLE: ClassVar[str]
    """The node's name in menus."""
    CATEGORY: ClassVar[str] = "Turpentine"
    FUNCTION: ClassVar[str] = "run"
    DESCRIPTION: ClassVar[str] = ""
    SEARCH_ALIASES: ClassVar[tuple[str, ...]] = ()

    def run(self, **inputs: Any) -> Any:
        """Do the node's work; ComfyUI calls this with the values of all inputs."""
        with host.working():
            return self.work(**inputs)

    work: Callable[..., Any]
    """Turns the inputs into the outputs; `run` calls it where gradients are allowed."""


def shown(text: str, *result: Any) -> dict[str, Any]:
    """The result of an output node, with a text for ComfyUI's history."""
    return {"ui": {"text": (text,)}, "result": result}
