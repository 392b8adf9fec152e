"""A run for people to read: a page, a model card and the rows of the before/after table."""

from .model_card import model_card
from .page import write_report
from .summary import Verdict, course, rows, verdict

__all__ = ["Verdict", "course", "model_card", "rows", "verdict", "write_report"]
