"""Answers of servers that are no good: templates with one warning, or one line where templates are not allowed."""

import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from turpentine.pipeline.prompts import LLMSource, PromptSet
from turpentine.pipeline.support.errors import UserError

pytest.importorskip("openai")
DIMENSIONS = ("mood", "activity", "place", "time")
STARTS = {"activity": "painting ", "place": "near the ", "time": "during "}
WORDS = "alpha bravo charlie delta echo foxtrot golf hotel india juliet kilo lima".split()


def values(words: list[str] | None = None) -> dict[str, list[str]]:
    return {name: [f"{STARTS.get(name, '')}{word}" for word in words or WORDS] for name in DIMENSIONS}


def said(content: object) -> str:
    """A whole answer whose message is `content`, or its JSON."""
    text = content if isinstance(content, str) or content is None else json.dumps(content)
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    return json.dumps({"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]})


def http(body: str | bytes, status: str = "200 OK", kind: str = "application/json", more: str = "") -> bytes:
    data = body.encode() if isinstance(body, str) else body
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\nConnection: close\r\n{more}\r\n"
    )
    return head.encode() + data


@contextmanager
def server(answer: bytes | None) -> Iterator[str]:
    """A server that answers whatever it is asked with these bytes, or breaks the connection off; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection, connection.makefile("rb") as asked, suppress(OSError):
                    if answer is None:
                        asked.readline()
                        linger = struct.pack("ii", 1, 0)
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                        continue
                    heads = list(iter(asked.readline, b"\r\n"))
                    (length,) = (int(head.split(b":")[1]) for head in heads if head.lower().startswith(b"content-l"))
                    asked.read(length)
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        with suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)


def build(url: str, **changes) -> PromptSet:
    source = LLMSource(base_url=url, model="m", timeout=20)
    return PromptSet.build("nudity", "nudity", n=40, n_test=10, source="llm", llm=source, **changes)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch) -> None:
    """The client waits before it asks again; that is its own business."""
    monkeypatch.setattr("openai._base_client.time.sleep", lambda _seconds: None)


TEMPLATES = PromptSet.build("nudity", "nudity", n=40, n_test=10)
USELESS = {
    "HTML": http("<html><body>Welcome</body></html>", kind="text/html"),
    "bad gateway": http("<html>502</html>", "502 Bad Gateway", "text/html"),
    "too many requests": http('{"error": {"message": "slow"}}', "429 Too Many Requests", more="Retry-After: 0\r\n"),
    "no key": http('{"error": {"message": "no"}}', "401 Unauthorized"),
    "error with 200": http('{"error": {"message": "out of memory", "code": 500}}'),
    "empty": http(""),
    "empty object": http("{}"),
    "null": http("null"),
    "no choice": http('{"choices": []}'),
    "null message": http(said(None)),
    "empty message": http(said("")),
    "a number for text": http(said(None).replace('"content": null', '"content": 5')),
    "parts without text": http(said(None).replace('"content": null', '"content": [{"type": "image"}, 3]')),
    "binary": http(bytes(range(256)) * 4),
    "binary message": http(said("".join(map(chr, range(256))))),
    "truncated": http(said(json.dumps(values())[:-30])),
    "truncated transfer": http(said(values()))[:-40],
    "a list of prompts": http(said(["a calm person", "a merry person", "a proud person"])),
    "numbers": http(said({name: list(range(20)) for name in DIMENSIONS})),
    "a word each": http(said(dict.fromkeys(DIMENSIONS, "calm"))),
    "too few": http(said(values(WORDS[:3]))),
    "duplicates": http(said(values(["Alpha", "alpha", "ALPHA "] * 10))),
    "the concept itself": http(said(values(["nude", "naked", "nudity", "Nude"] * 5))),
    "script tags": http(said(values([f"<script>alert({n})</script>" for n in range(20)]))),
    "redirect": http("", "302 Found", more="Location: http://127.0.0.1:1/\r\n"),
    "reset": None,
}  # fmt: skip


@pytest.mark.parametrize("answer", USELESS)
def test_useless_answers(answer):
    with server(USELESS[answer]) as url:
        made = build(url)
        assert made.source == "template" and made.train == TEMPLATES.train
        assert len(made.warnings) == 1 and "\n" not in made.warnings[0] and len(made.warnings[0]) < 500
        with pytest.raises(UserError) as caught:
            build(url, allow_fallback=False)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    if answer in (statuses := {"bad gateway": "502", "too many requests": "429", "no key": "401"}):
        assert statuses[answer] in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        values([*WORDS, *WORDS]),
        values([*WORDS, "<script>alert(1)</script>", "<b>bold</b>"]),
        values([*WORDS, "nude", "naked"]),
        values(WORDS * 3_400),
    ],
    ids=["duplicates", "script tags", "the concept itself", "160,000 values"],
)
def test_what_is_of_use_is_taken(content):
    with server(http(said(content))) as url:
        made = build(url, allow_fallback=False)
    assert made.source == "llm" and made.warnings == ()
    prompts = [*made.forget_train, *made.retain_train, *made.retain_test]
    assert not any("<" in prompt or "script" in prompt for prompt in prompts)
    assert not any(made.names_concept(prompt) for prompt in made.retain_train)


def word(number: int) -> str:
    return "".join(chr(97 + number // 26**place % 26) for place in range(3)) + "ish"


@pytest.mark.parametrize("count", [240, 20_000])
def test_many_different_values_take_no_time(count):
    with server(http(said(values([word(number) for number in range(count)])))) as url:
        start = time.perf_counter()
        made, fewer = (
            PromptSet.build(
                "nudity", "nudity", n=n, n_test=10, source="llm", llm=LLMSource(base_url=url, model="m"), seed=1
            )
            for n in (40, 20)
        )
        assert time.perf_counter() - start < 5
    assert made.source == "llm" and fewer.train == made.train[:20] and fewer.test == made.test
    assert len({pair.forget for pair in made.train}) == 40


def test_a_message_in_parts_is_read():
    parts = json.dumps([{"type": "text", "text": json.dumps(values())}])
    with server(http(said(None).replace('"content": null', f'"content": {parts}'))) as url:
        assert build(url, allow_fallback=False).source == "llm"
