"""One way to tell the user how far long work has come; front ends bring their own."""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TypeVar

Item = TypeVar("Item")

_log = logging.getLogger(__name__)


class Progress(Protocol):
    """Called by long work: `stage` opens a piece of it, the callable it gives reports."""

    def stage(self, name: str, total: int) -> AbstractContextManager[Callable[..., None]]:
        """Open a piece of work of `total` units; call the result as `advance(units=1, note="")`.

        `advance` may raise `Cancelled` to stop the work.
        """
        ...

    def warn(self, text: str) -> None:
        """Show one line that the user should know before the work starts."""
        ...


class Silent:
    """Reports to nobody; warnings go to the log, which Python shows where nobody set it up."""

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Callable[..., None]]:
        """Give a function that does nothing."""
        yield lambda units=1, note="": None

    def warn(self, text: str) -> None:
        """Log it."""
        _log.warning(text)


class Within(Silent):
    """Work inside a stage that is open: reports nothing of its own, and is cancelled with it.

    Args:
        advance: of the open stage.
    """

    def __init__(self, advance: Callable[..., None]) -> None:
        self.advance = advance

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Callable[..., None]]:
        """Give the outer stage's function, so that a cancel is understood here too."""
        yield lambda units=1, note="": self.advance(0)


def batches(items: "Iterable[Item]", size: int) -> "Iterator[list[Item]]":
    """Split into lists of `size`, the last one shorter."""
    batch: list[Item] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
