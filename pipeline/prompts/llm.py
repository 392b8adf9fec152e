"""Sub-concepts from a large language model (Ko et al. 2024, Appendix D) instead of the built-in banks.

The model is asked for values per dimension, never for whole prompts: rows are composed by the same
templates, so that pairs stay pairs and the split stays clean whatever it answers.
"""

import json
import os
import random
import re
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from ..support.errors import MissingExtra, UserError
from ..support.places import user_path
from .banks import Bank, Concept, Layout, template_banks, without_concept
from .text import PREPOSITIONS, unique

Answer = TypeVar("Answer")

ASKED = 16
"""Values asked for per dimension, about as many as the paper's train and test banks together."""

NEEDED = 8
"""Values that have to be left after the checks: five to train on, three to test on."""

MOST = 256
"""Values that are looked at per dimension; a model that goes on and on adds nothing of use."""

_MEANINGS: dict[str, str] = {
    "mood": "adjectives for the mood or bearing of the one who is shown, such as 'cheerful'",
    "activity": "activities that start with a verb in -ing, such as 'reading a letter'",
    "place": "places that start with a preposition, such as 'in an old library'",
    "time": "times of day, seasons or weather that start with a preposition, such as 'at dusk'",
    "adjective": "adjectives that fit an animal, a person and a thing alike, such as 'small'",
    "doing": "poses or views that fit an animal, a person and a thing alike, such as 'seen from the side'",
    "subject": "animals or people in the singular, without article, such as 'dog'",
    "other": "things, animals or people in the singular, without article, unrelated to the concept",
}
_OTHER_STYLES: dict[Layout, str] = {
    "artist": "full names of artists, real or invented, whose style is unlike the concept's",
    "medium": "visual styles or techniques, in lower case, unlike the concept",
}
_MOST_WORDS = {"mood": 2, "adjective": 2, "subject": 2, "other": 4}
_TIME_STARTS = PREPOSITIONS | {"late", "early", "just", "shortly", "long"}


class LLMSource(BaseModel):
    """Where to ask: an OpenAI-compatible server (Ollama, vLLM, llama.cpp, OpenAI) or a local folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str = Field(default="http://localhost:11434/v1", description="address of the server's API, up to /v1")
    model: str = Field(default="", description="name of the model on the server")
    api_key_env: str = Field(default="OPENAI_API_KEY", description="environment variable that holds the API key")
    timeout: float = Field(default=120.0, gt=0, description="seconds to wait for the whole answer")
    max_new_tokens: int = Field(default=1500, ge=1, description="longest answer of a local model, in tokens")
    local_model: str | None = Field(default=None, description="folder of a transformers text-generation model instead")

    def banks(self, concept: Concept, seed: int) -> dict[str, Bank]:
        """Ask for the sub-concepts of every dimension, check them, and split them into train and test.

        Raises:
            UserError: no answer, or one of no use.
            MissingExtra: the `openai` package is not installed.
        """
        builtin = template_banks(concept)
        asked = [dimension for dimension in builtin if dimension != "template"]
        fields: dict[str, Any] = {
            dimension: (list[str], Field(description=_meaning(dimension, concept))) for dimension in asked
        }
        schema = create_model("SubConcepts", **fields)
        question = _question(concept, asked)
        answer = self._ask_local(question, schema) if self.local_model else self._ask_server(question, schema, seed)
        banks = {dimension: _split(values, dimension, concept, seed) for dimension, values in answer.items()}
        return {dimension: banks.get(dimension, bank) for dimension, bank in builtin.items()}

    def _ask_server(self, question: str, schema: type[BaseModel], seed: int) -> dict[str, list[str]]:
        if not self.model:
            raise UserError(
                "the LLM source must name a model (on the server) or a local_model (a folder), got neither."
            )
        try:
            import openai
        except ImportError as error:
            raise MissingExtra("openai", "llm", "asking an LLM server for sub-concepts") from error
        # Local servers want no key, but the client refuses to start without one.
        key = os.environ.get(self.api_key_env) or "none"
        where = f"the LLM {self.model!r} at {self.base_url}"
        # Every key required, no others; `parse` of the client would refuse an answer with words around its JSON.
        wanted: Any = {**schema.model_json_schema(), "additionalProperties": False}
        form: Any = {"name": schema.__name__, "strict": True, "schema": wanted}

        def ask() -> str:
            client = openai.OpenAI(base_url=self.base_url, api_key=key, timeout=self.timeout, max_retries=1)
            completion = client.chat.completions.create(
                model=self.model,
                messages=[{"role": "user", "content": question}],
                response_format={"type": "json_schema", "json_schema": form},
                seed=seed,
            )
            return _text_of(completion.choices[0].message.content if completion.choices else None)

        try:
            answer = within(self.timeout, ask)
        except (openai.APITimeoutError, TimeoutError) as error:
            raise UserError(
                f"expected an answer of {where} within {self.timeout:g} s, got none. "
                "Raise the timeout or use templates."
            ) from error
        except openai.APIConnectionError as error:
            raise UserError(f"can't reach {where}. Start the server, correct the address, or use templates.") from error
        except openai.APIStatusError as error:
            raise UserError(
                f"expected an answer of {where}, got HTTP status {error.status_code}. "
                f"Check the model's name and the key in {self.api_key_env}, or use templates."
            ) from error
        except (openai.OpenAIError, ValueError, TypeError, AttributeError) as error:
            raise UserError(_babble(where)) from error
        return read_answer(answer, schema, where)

    def _ask_local(self, question: str, schema: type[BaseModel]) -> dict[str, list[str]]:
        folder = user_path(str(self.local_model))
        where = f"the model in {folder}"
        if not (folder / "config.json").is_file():
            raise UserError(f"local_model must be a folder with a transformers model (config.json), got {folder}.")
        import transformers

        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model = transformers.AutoModelForCausalLM.from_pretrained(
                folder, local_files_only=True, use_safetensors=True
            )
            generate = transformers.pipeline("text-generation", model=model, tokenizer=tokenizer)
            message: Any = [{"role": "user", "content": question}] if tokenizer.chat_template else question
            # Greedy: the same answer every time, and no touch to the global generator.
            answer = generate(message, max_new_tokens=self.max_new_tokens, do_sample=False, return_full_text=False)
            text = answer[0]["generated_text"]
        except (OSError, ValueError, KeyError, IndexError, RuntimeError, ImportError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"can't write with {where}: {reason}. Use another folder, a server, or templates."
            ) from error
        return read_answer(text if isinstance(text, str) else _text_of(text[-1].get("content")), schema, where)


def within(seconds: float, ask: Callable[[], Answer]) -> Answer:
    """Give what a function gives, if it does so in time; a client's own timeout is between two bytes.

    The thread of a function that is late goes on by itself and holds up nothing.

    Raises:
        TimeoutError: it takes longer.
    """
    answer: Future[Answer] = Future()

    def work() -> None:
        try:
            answer.set_result(ask())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return answer.result(seconds)


def read_answer(text: str, schema: type[BaseModel], where: str) -> dict[str, list[str]]:
    """Find the first JSON object of the schema in an answer that may have words around it.

    Raises:
        UserError: there is none.
    """
    decoder = json.JSONDecoder()
    for match in re.finditer(r"\{", text):
        try:
            value, _ = decoder.raw_decode(text, match.start())
            return schema.model_validate(value).model_dump()
        except (json.JSONDecodeError, ValidationError, RecursionError):
            continue
    raise UserError(_babble(where))


def _text_of(content: object) -> str:
    """The text of a message, whose content may be a list of parts; empty where it has none."""
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _babble(where: str) -> str:
    return f"expected lists of words from {where}, got something else. Use a larger model, or templates."


def _meaning(dimension: str, concept: Concept) -> str:
    if dimension == "other":
        return _OTHER_STYLES.get(concept.layout, _MEANINGS["other"])
    return _MEANINGS[dimension]


def _question(concept: Concept, dimensions: list[str]) -> str:
    wanted = "\n".join(f'- "{dimension}": {ASKED} {_meaning(dimension, concept)}' for dimension in dimensions)
    return (
        f"We compose varied captions of pictures around the concept {concept.name!r}. Answer with one JSON object "
        f"with these keys, each a list of short, different strings that don't mention {concept.name!r} "
        f"or anything that means the same:\n{wanted}\nAnswer with the JSON object only."
    )


def usable_values(values: list[str], dimension: str) -> list[str]:
    """Clean what a language model suggested and keep what fits the dimension's place in a sentence."""
    kept = []
    for value in values:
        text = re.sub(r"^[\s\-*\d.)\"'“]+|[\s.,;:!\"'”]+$", "", " ".join(value.split()))
        if dimension in ("mood", "adjective", "subject", "other"):
            text = re.sub(r"^(?:an?|the)\s+", "", text, flags=re.I)
        words = text.lower().split()
        if not words or len(words) > _MOST_WORDS.get(dimension, 8) or len(text) > 80:
            continue
        if not re.fullmatch(r"[^\W\d_][\w '’.,&-]*", text):
            continue
        starts_well = {
            "place": words[0] in PREPOSITIONS,
            "time": words[0] in _TIME_STARTS,
            "activity": words[0].endswith("ing"),
        }
        if starts_well.get(dimension, True):
            kept.append(text)
    return unique(kept)


def _split(values: list[str], dimension: str, concept: Concept, seed: int) -> Bank:
    usable = usable_values(values[:MOST], dimension)
    left = without_concept(Bank(tuple(usable), ()), dimension, concept).train
    if len(left) < NEEDED:
        raise UserError(
            f"expected at least {NEEDED} usable values for {dimension!r} from the LLM, got {len(left)}. "
            "Use a larger model, or templates."
        )
    order = list(left)
    random.Random(f"{seed} {dimension}").shuffle(order)
    cut = round(len(order) * 0.62)
    return Bank(tuple(order[:cut]), tuple(order[cut:]))
