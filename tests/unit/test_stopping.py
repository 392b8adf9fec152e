"""When a run ends early."""

from types import SimpleNamespace

import pytest
from turpentine.pipeline.training.stopping import EarlyStop

RULE = EarlyStop(steps=3, highest=0.2)


def events(above, retain):
    return [SimpleNamespace(above_limit=a, loss_retain=r) for a, r in zip(above, retain, strict=True)]


def test_a_whole_pass_must_be_forgotten_and_retained():
    assert RULE.settled(events([0, 1, 1, 1], [9, 0.1, 0.2, 0.3]))
    assert not RULE.settled(events([1, 1], [0.1, 0.1])), "no whole pass yet"
    assert not RULE.settled(events([1, 1, 0.8], [0.1] * 3))
    assert not RULE.settled(events([1, 1, 1], [0.2, 0.2, 0.3]))


def test_a_resumed_run_finds_the_step_that_the_first_one_found():
    seen = events([0, 1, 1, 1, 1, 0], [0.1, 0.1, 0.1, 0.5, 0.1, 0.1])
    found = [done for done in range(len(seen) + 1) if RULE.settled(seen[:done])]
    assert found == [] and RULE.settled_after(seen) is None
    seen = events([0, 1, 1, 1, 1, 0], [0.1] * 6)
    assert RULE.settled_after(seen) == 4 and RULE.settled_after(seen[:3]) is None


def test_the_bound_is_the_mean_and_two_errors_of_a_pass():
    rule = EarlyStop.after([0.1, 0.3], 4)
    assert rule.highest == pytest.approx(0.2 + 2 * 0.02**0.5 / 2)
    assert EarlyStop.after([0.1], 4).highest == pytest.approx(0.1)


def test_the_rate_falls_to_nothing_in_a_pass():
    assert [RULE.rate(step, 10) for step in (10, 11, 13, 14)] == pytest.approx([1, 2 / 3, 0, 0])
