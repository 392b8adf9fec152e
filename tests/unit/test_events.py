"""`events.jsonl`: one record, one reader."""

import json

import pytest
from turpentine.pipeline.schema.events import Event, append_event, read_events, write_events
from turpentine.pipeline.support.errors import UserError

FIELDS = [
    "step", "loss_forget", "loss_retain", "norm_forget", "norm_retain", "cosine", "conflict", "truncated",
    "change_forget", "change_retain", "violates_forget", "violates_retain", "learning_rate", "seconds",
    "above_limit", "forget_limit", "retain_weight", "redirects", "distils", "retain_rise",
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
    assert read_events(path, before=1) == steps[:1] and read_events(path, before=0) == []
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
    told = []
    assert read_events(path, tell=told.append) == [event()]
    assert len(told) == 1 and "1 of 2 lines of" in told[0] and "line 2: " in told[0]


TORN = [
    b'{"step": 1, "lo', b"", b"\xff\xfe{}", b"[1]", b'"text"', b"\0\0\0\0", b"null", b'{"step": 1}', b"{" * 5000,
    *(json.dumps({**event(1).model_dump(), **wrong}).encode() for wrong in (
        {"conflict": "perhaps"}, {"seconds": None}, {"step": 0.5}, {"learning_rate": "fast"}, {"step": None},
    )),
]  # fmt: skip


@pytest.mark.parametrize("torn", TORN)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_line_that_cannot_be_read_is_left_out_with_a_word(tmp_path, torn, place):
    path, told = tmp_path / "events.jsonl", []
    lines = [event(0).line().encode(), event(2).line().encode()]
    lines.insert(place, torn + b"\n")
    path.write_bytes(b"".join(lines))
    assert read_events(path, tell=told.append) == [event(0), event(2)]
    assert len(told) == (1 if torn else 0) and all(f"line {place + 1}: " in text for text in told)
    assert read_events(path, before=2) == [event(0)], "a resumed run reads no further than its checkpoint"


def test_of_a_step_that_stands_there_twice_the_last_is_taken(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text("".join(each.line() for each in (event(0), event(1), event(0, cosine=0.5))))
    assert read_events(path) == [event(0, cosine=0.5), event(1)]


def test_a_folder_in_the_place_of_the_file(tmp_path):
    with pytest.raises(UserError, match="can't read"):
        read_events(tmp_path)
