"""What a run shows for itself: a page, a model card and the rows of the before/after table."""

from .model_card import model_card
from .page import write_report
from .summary import Row, Verdict, rows, verdict

__all__ = ["Row", "Verdict", "model_card", "rows", "verdict", "write_report"]
