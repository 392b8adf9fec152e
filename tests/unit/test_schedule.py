"""When a run ends early, and with which learning rates it goes on."""

from types import SimpleNamespace

import pytest
from turpentine.pipeline.schema.recipe import TrainingSection
from turpentine.pipeline.training.schedule import EarlyStop, Schedule

RULE = EarlyStop(steps=3, highest=0.2)


def events(above, retain):
    pairs = enumerate(zip(above, retain, strict=True))
    return [SimpleNamespace(step=step, above_limit=a, loss_retain=r) for step, (a, r) in pairs]


def observed(seen, **spec):
    schedule = Schedule(TrainingSection(**{"steps": 20, "learning_rate": 1.0, **spec}), RULE)
    for event in seen:
        schedule.observe(event)
    return schedule


def test_a_whole_pass_must_be_forgotten_and_retained():
    assert RULE.settled(events([0, 1, 1, 1], [9, 0.1, 0.2, 0.3]))
    assert not RULE.settled(events([1, 1], [0.1, 0.1])), "no whole pass yet"
    assert not RULE.settled(events([1, 1, 0.8], [0.1] * 3))
    assert not RULE.settled(events([1, 1, 1], [0.2, 0.2, 0.3]))


def test_a_resumed_run_finds_the_step_that_the_first_one_found():
    seen = events([0, 1, 1, 1, 1, 0], [0.1, 0.1, 0.1, 0.5, 0.1, 0.1])
    found = [done for done in range(len(seen) + 1) if RULE.settled(seen[:done])]
    assert found == [] and observed(seen).settled is None
    seen = events([0, 1, 1, 1, 1, 0], [0.1] * 6)
    assert observed(seen).settled == 4 and observed(seen[:3]).settled is None


def test_the_bound_is_the_mean_and_two_errors_of_a_pass():
    rule = EarlyStop.after([0.1, 0.3], 4)
    assert rule.highest == pytest.approx(0.2 + 2 * 0.02**0.5 / 2)
    assert EarlyStop.after([0.1], 4).highest == pytest.approx(0.1)


def test_the_end_comes_one_pass_after_that_and_the_rate_falls_to_nothing():
    schedule = observed(events([0] * 7 + [1] * 3, [0.1] * 10))
    assert schedule.settled == 10 and schedule.end == 13
    assert [schedule.rate(step) for step in (10, 11, 13, 14)] == pytest.approx([1, 2 / 3, 0, 0])
    assert observed(events([1] * 3, [0.1] * 3), steps=5).end == 5, "no later than without it"
    assert Schedule(TrainingSection(steps=5)).end == 5
