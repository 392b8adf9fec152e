"""`turpentine ui`: the app in a browser."""

from ...ui.__main__ import EXAMPLES, add_arguments, run

__all__ = ["EXAMPLES", "add_arguments", "run"]
