"""`events.jsonl`: one record, one reader."""

import json

import pytest
from turpentine.pipeline.schema.events import Event, append_event, read_events, write_events
from turpentine.pipeline.support.errors import UserError

FIELDS = [
    "step", "loss_forget", "loss_retain", "norm_forget", "norm_retain", "cosine", "conflict", "truncated",
    "change_forget", "change_retain", "violates_forget", "violates_retain", "learning_rate", "seconds",
    "above_limit", "forget_limit",
]  # fmt: skip
"""What other programs read: these keys, in this order."""


def event(step=0, **changed):
    known = {"loss_forget": 1.5, "loss_retain": None, "cosine": -0.25, "conflict": True, "truncated": False}
    return Event(**{**known, "step": step, "change_forget": -1e-3, "change_retain": None, "learning_rate": 1e-5,
                    "seconds": 0.5, **changed})  # fmt: skip


def test_lines_keep_their_keys_and_come_back(tmp_path):
    path, steps = tmp_path / "events.jsonl", [event(0), event(1, above_limit=0.5, forget_limit=1.6)]
    for step in steps:
        append_event(path, step)
    assert [list(json.loads(line)) for line in path.read_text().splitlines()] == [FIELDS] * 2
    assert read_events(path) == steps
    assert read_events(path, first=1) == steps[:1] and read_events(path, first=0) == []
    write_events(path, steps[:1])
    assert read_events(path) == steps[:1]
    assert read_events(tmp_path / "none.jsonl") == []


def test_keys_of_a_newer_version_are_left_alone(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text(json.dumps({**event().model_dump(), "of_tomorrow": [1]}) + "\n\n")
    assert read_events(path) == [event()]


def test_lines_of_an_older_version_lack_what_came_later(tmp_path):
    path = tmp_path / "events.jsonl"
    older = {k: v for k, v in event().model_dump().items() if k not in ("above_limit", "forget_limit")}
    path.write_text(json.dumps(older) + "\n")
    assert read_events(path) == [event()]


def test_a_line_that_is_being_written_is_left_out_of_a_run_that_goes_on(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text(event().line() + '{"step": 1, "lo')
    assert read_events(path, running=True) == [event()]
    assert read_events(path, first=1) == [event()], "a resumed run reads no further than its checkpoint"
    with pytest.raises(UserError, match=r"line 2: expected one JSON object, got '\{\"step\": 1, \"lo'"):
        read_events(path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"conflict": "perhaps"}, r"line 1: expected true or false for 'conflict', got 'perhaps'"),
        ({"seconds": None}, r"line 1: expected a number for 'seconds', got None"),
        ({"step": 0.5}, r"line 1: expected a number for 'step', got 0\.5"),
    ],
)
def test_values_of_another_kind_are_told(tmp_path, changed, message):
    path = tmp_path / "events.jsonl"
    path.write_text(json.dumps({**event().model_dump(), **changed}) + "\n")
    with pytest.raises(UserError, match=message):
        read_events(path)
