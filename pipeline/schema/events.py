"""What a training step leaves behind: one line of `events.jsonl`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """One line of `events.jsonl`: what one step saw and did.

    Losses are denoising losses. `forget_limit` is alpha, and `above_limit` the share of what it looks at that is
    above it; `truncated` says that all of it is. `change_*` is the first-order change of each *objective* (L_f is
    minus the forget loss) under the update that the weights really took: negative is good.
    """

    step: int
    loss_forget: float | None
    loss_retain: float | None
    norm_forget: float | None
    norm_retain: float | None
    cosine: float | None
    conflict: bool
    truncated: bool
    change_forget: float | None
    change_retain: float | None
    violates_forget: bool
    violates_retain: bool
    learning_rate: float
    seconds: float
    above_limit: float | None = None
    forget_limit: float | None = None
