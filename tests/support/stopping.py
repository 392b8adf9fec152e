"""A progress that stops the work, as somebody who presses Ctrl-C does."""

from contextlib import contextmanager
from functools import partial

from turpentine.pipeline.support.errors import Cancelled
from turpentine.pipeline.support.progress import Silent


class StopWhen(Silent):
    """Cancels when `reached(stage, told)` of the units that a stage has been told of so far, call by call."""

    def __init__(self, reached):
        self.reached = reached

    @contextmanager
    def stage(self, name, total):
        told = []

        def advance(units=1, note=""):
            told.append(units)
            if self.reached(name, told):
                raise Cancelled("stop")

        yield advance


StopAfter2 = partial(StopWhen, lambda stage, told: len(told) == 2)
"""Cancels when a stage has advanced twice."""
