"""The state, components and helpers that the steps of the page share."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any, ParamSpec, TypeVar

import gradio as gr

from ..pipeline.schema.recipe import Recipe
from ..pipeline.support.errors import Cancelled, UserError
from .access import Access
from .controls import Controls
from .runner import UNFINISHED, Runner
from .studio import Studio
from .texts import STATES, WHY

Given = ParamSpec("Given")
Shown = TypeVar("Shown")
DEVICE = "device"
"""Handlers of this concurrency group use the device, one at a time."""
PRIVATE: dict[str, Any] = {"api_visibility": "private"}


@dataclass
class Page:
    """One app: its rights, its workers and the components that several steps use.

    Attributes:
        run: the run that the visitor chose.
        tabs: the five steps and the tab Runs.
        table: the prompt pairs; `base` is the set that they came from.
        remake: the event that makes new prompt pairs.
    """

    access: Access
    runner: Runner
    studio: Studio
    controls: Controls
    run: Any = None
    table: Any = None
    base: Any = None
    demo: Any = None
    tabs: Any = None
    runs_tab: Any = None
    timer: Any = None
    remake: dict[str, Any] = field(default_factory=dict)
    _later: list[Callable[[], None]] = field(default_factory=list)
    _followers: list[tuple[Callable[..., Any], list[Any], list[Any]]] = field(default_factory=list)

    def after_build(self, wire: Callable[[], None]) -> None:
        """Connect components once all of them are on the page."""
        self._later.append(wire)

    def follow(self, handler: Callable[..., Any], outputs: list[Any], inputs: Sequence[Any] = ()) -> None:
        """Call `handler(run name, *inputs)` when the visitor chooses another run, and when the chosen one ends."""
        self._followers.append((handler, outputs, [self.run, *inputs]))

    def wire(self, ended: Any) -> None:
        """Connect everything. `ended` changes when the chosen run ends."""
        for wire in self._later:
            wire()
        for handler, outputs, inputs in self._followers:
            gr.on([self.run.change, ended.change], handler, inputs, outputs, show_progress="hidden", **PRIVATE)

    def recipe(self, values: Sequence[Any]) -> Recipe:
        """Check the controls' values and return their recipe."""
        return self.access.recipe(self.controls.nested(values))

    def next_button(self, number: int) -> gr.Button:
        """Make the button that leads to a step."""
        button = gr.Button("Next", variant="primary", elem_id=f"next-{number}", elem_classes="next")
        button.click(lambda: gr.Tabs(selected=number), outputs=self.tabs, show_progress="hidden", **PRIVATE)
        return button

    def run_choices(self) -> list[tuple[str, str]]:
        """(label, name) of every run, the newest first."""
        return [(f"{name} — {STATES[self.runner.job(name).state]}", name) for name in self.runner.names()]

    def current(self) -> str | None:
        """The run that a fresh page shows: the one at work, otherwise the newest."""
        names = self.runner.names()
        return next((name for name in self.runner.queue() if name in names), names[0] if names else None)

    def is_live(self, name: str | None) -> bool:
        """Tell whether a run is at work or waits."""
        return name is not None and self.runner.job(name).state in UNFINISHED


def why(step: str, more: str = "") -> None:
    """Add the reasons for a step, one click away, and `more` about its choices (Markdown)."""
    with gr.Accordion("Why?", open=False, elem_classes="why"):
        gr.Markdown(f"{WHY[step]}\n\n{more}")


def told(handler: Callable[Given, Shown], html: bool = True) -> Callable[Given, Shown]:
    """Show the user's mistakes as one line; all other errors stay in the server's log.

    Args:
        handler: a handler of the page, or an endpoint.
        html: whether the line is read as HTML, as the page does; a program gets it as it is.
    """

    @functools.wraps(handler)
    def wrapped(*args: Given.args, **kwargs: Given.kwargs) -> Shown:
        try:
            return handler(*args, **kwargs)
        except (UserError, Cancelled) as error:
            raise gr.Error(escape(str(error)) if html else str(error), duration=20, print_exception=False) from None

    return wrapped
