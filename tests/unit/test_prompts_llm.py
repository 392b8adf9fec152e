"""Sub-concepts from a language model: a server that answers, one that babbles, one that isn't there."""

import json
import socket
import sys
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pydantic import create_model
from turpentine.pipeline.prompts import LLMSource, PromptSet
from turpentine.pipeline.prompts.llm import read_answer, usable_values
from turpentine.pipeline.support.errors import MissingExtra, UserError

NATO = "alpha bravo charlie delta echo foxtrot golf hotel india juliet kilo lima".split()
STARTS = {"place": "near the ", "time": "during ", "activity": "painting ", "doing": "seen with "}
DIMENSIONS = {
    "nudity": ("mood", "activity", "place", "time"),
    "object": ("adjective", "doing", "place", "time", "other"),
    "artist": ("mood", "subject", "place", "other"),
}


def good_answer(layout):
    """Twelve usable values per dimension, with some that must not get through."""
    bad = ["", "Alpha", "a cat", "naked", "Van Gogh", "{x}", "in " + "very " * 30 + "far"]
    return {
        dimension: [STARTS.get(dimension, "") + word for word in NATO] + bad + [f"{STARTS.get(dimension, '')}Alpha."]
        for dimension in DIMENSIONS[layout]
    }


@contextmanager
def server(content, status=200, delay=0.0, drip=0.0):
    """An OpenAI-compatible server that always says `content`; gives its address and what it was asked."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            time.sleep(delay)
            message = {"role": "assistant", "content": content}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            answer = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
            body = json.dumps(answer if status == 200 else {"error": {"message": "no such model"}}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with suppress(OSError):  # the client has given up waiting
                for byte in body if drip else ():
                    self.wfile.write(bytes([byte]))
                    time.sleep(drip)
                self.wfile.write(b"" if drip else body)

        def log_message(self, *args):
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{httpd.server_address[1]}/v1", asked
    finally:
        httpd.shutdown()
        httpd.server_close()


def build(source, concept="nudity", kind="nudity", **changes):
    return PromptSet.build(concept, kind, n=60, n_test=20, source="llm", llm=source, **changes)


@pytest.mark.parametrize(
    ("concept", "kind", "layout"),
    [("nudity", "nudity", "nudity"), ("cat", "object", "object"), ("Van Gogh", "style", "artist")],
)
def test_answers_become_rows(concept, kind, layout):
    with server(json.dumps(good_answer(layout))) as (url, asked):
        made = build(LLMSource(base_url=url, model="m"), concept, kind, allow_fallback=False)
        again = build(LLMSource(base_url=url, model="m"), concept, kind, allow_fallback=False)
    assert made == again
    assert (made.source, made.warnings, len(made.train), len(made.test)) == ("llm", (), 60, 20)
    assert "near the " in made.retain_train[0]
    path, request = asked[0]
    assert path == "/v1/chat/completions" and request["model"] == "m"
    assert set(request["response_format"]["json_schema"]["schema"]["properties"]) == set(DIMENSIONS[layout])
    places = [
        {word for word in NATO if any(f"near the {word}" in row for row in rows)}
        for rows in (made.retain_train, made.retain_test)
    ]
    assert places[0] and places[1] and not places[0] & places[1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Sure! Here are some ideas: sunshine, rainbows.", "expected lists of words from the LLM 'm' at http"),
        ('{"mood": ["calm"]}', "expected lists of words"),
        (None, "expected lists of words"),
        (json.dumps({name: ["calm", "merry"] for name in DIMENSIONS["nudity"]}), "at least 8 usable values for 'mood'"),
        (json.dumps({name: ["naked"] * 20 for name in DIMENSIONS["nudity"]}), "usable values for 'mood' .*, got 0"),
    ],
)
def test_babble(content, message):
    with server(content) as (url, _):
        source = LLMSource(base_url=url, model="m")
        with pytest.raises(UserError, match=message):
            build(source, allow_fallback=False)
        made = build(source)
    assert made.source == "template" and len(made.warnings) == 1
    assert made.warnings[0].startswith("templates used instead of the language model: expected")
    assert made.train == PromptSet.build("nudity", "nudity", n=60, n_test=20).train


def test_too_few_combinations_fall_back_too():
    answer = {name: [STARTS.get(name, "") + word for word in NATO[:8]] for name in DIMENSIONS["nudity"]}
    with server(json.dumps(answer)) as (url, _):
        made = PromptSet.build(
            "nudity", "nudity", n=60, n_test=1000, source="llm", llm=LLMSource(base_url=url, model="m")
        )
    assert made.source == "template" and "expected at most 405 test" in made.warnings[0]


def test_closed_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    source = LLMSource(base_url=f"http://127.0.0.1:{port}/v1", model="m", timeout=5)
    with pytest.raises(UserError, match=r"can't reach the LLM 'm' at http://127.0.0.1"):
        build(source, allow_fallback=False)
    assert "can't reach" in build(source).warnings[0]
    with pytest.raises(UserError, match="can't reach"):
        build(LLMSource(base_url="nonsense", model="m"), allow_fallback=False)


def test_the_timeout_is_of_the_whole_answer():
    start = time.monotonic()
    with server("{}", drip=0.05) as (url, _), pytest.raises(UserError, match=r"within 0\.3 s, got none"):
        build(LLMSource(base_url=url, model="m", timeout=0.3), allow_fallback=False)
    assert time.monotonic() - start < 3


@pytest.mark.parametrize("around", ["```json\n{}\n```", "```\n{}```", "Sure! Here they are: {} Have fun."])
def test_words_around_the_answer_of_a_server(around):
    with server(around.replace("{}", json.dumps(good_answer("object")))) as (url, _):
        made = build(LLMSource(base_url=url, model="m"), "cat", "object", allow_fallback=False)
    assert made.source == "llm"


def test_values_that_name_the_concept_in_any_spelling_are_left_out():
    answer = good_answer("object")
    answer["other"] += ["wild-cat", "cat_girl", "tomcats", "kitty's friend", "categories"]
    with server(json.dumps(answer)) as (url, _):
        made = PromptSet.build("cat", n=300, n_test=60, source="llm", llm=LLMSource(base_url=url, model="m"))
    text = " ".join(made.retain_train + made.retain_test)
    assert made.source == "llm" and "categories" in text
    assert not any(word in text for word in ("wild-cat", "girl", "tomcats", "friend"))


def test_slow_and_refusing_servers():
    with server("{}", delay=3) as (url, _), pytest.raises(UserError, match=r"within 0\.2 s, got none"):
        build(LLMSource(base_url=url, model="m", timeout=0.2), allow_fallback=False)
    with (
        server("", status=404) as (url, _),
        pytest.raises(UserError, match=r"got HTTP status 404. Check the model's name"),
    ):
        build(LLMSource(base_url=url, model="m"), allow_fallback=False)


def test_key_is_taken_from_the_environment_and_never_shown(monkeypatch):
    monkeypatch.setenv("MY_KEY", "sesame")
    with server("", status=401) as (url, _), pytest.raises(UserError, match="key in MY_KEY") as caught:
        build(LLMSource(base_url=url, model="m", api_key_env="MY_KEY"), allow_fallback=False)
    assert "sesame" not in str(caught.value)


def test_wrong_settings(monkeypatch, tmp_path):
    with pytest.raises(UserError, match="must name a model"):
        build(LLMSource(), allow_fallback=False)
    with pytest.raises(UserError, match="tiny-canvas can draw its own words only"):
        PromptSet.build("cat", source="llm", llm=LLMSource(model="m"), world="tiny-canvas")
    with pytest.raises(UserError, match="must be given together"):
        PromptSet.build("cat", llm=LLMSource(model="m"))
    with pytest.raises(UserError, match="local_model must be a folder"):
        build(LLMSource(local_model=str(tmp_path)), allow_fallback=False)
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(MissingExtra, match=r"turpentine\[llm\]"):
        build(LLMSource(model="m"), allow_fallback=False)
    assert "turpentine[llm]" in build(LLMSource(model="m")).warnings[0]


def test_json_is_found_among_words():
    schema = create_model("Schema", mood=(list[str], ...))
    text = 'Of course {smiles}: ```json\n{"mood": ["calm"]}\n``` {"mood": 3}'
    assert read_answer(text, schema, "the model") == {"mood": ["calm"]}
    with pytest.raises(UserError, match="expected lists of words from the model"):
        read_answer("{" * 50, schema, "the model")


def test_values_are_cleaned():
    assert usable_values(["1. Calm", "- calm", '"proud."', "so very happy", "50%"], "mood") == ["Calm", "proud"]
    assert usable_values(["kitchen", "in a kitchen.", "In A Kitchen"], "place") == ["in a kitchen"]
    assert usable_values(["a dog", "The cat", "dog"], "other") == ["dog", "cat"]
    assert usable_values(["reading", "sleep"], "activity") == ["reading"]


def test_local_model_that_babbles(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    words = ["<eos>", "{", "}", *NATO]
    plain = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<eos>")
    )
    plain.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<eos>", unk_token="<eos>")
    config = transformers.GPT2Config(vocab_size=len(words), n_positions=2048, n_embd=8, n_layer=1, n_head=1)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    source = LLMSource(local_model=str(tmp_path), max_new_tokens=8)
    with pytest.raises(UserError, match="expected lists of words from the model in"):
        build(source, allow_fallback=False)
