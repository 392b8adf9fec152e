"""`PromptSet`: paired forget and retain prompts, split into train and test (Ko et al. 2024, Appendix D).

Row i of D_f and row i of D_r share everything but the concept. Values of every dimension belong to
the train or to the test rows only; the concept's own words are in both.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, field_validator, model_serializer

from ..support.errors import UserError
from ..support.files import write_text
from ..support.places import user_path
from ..worlds import WORLDS
from . import tables
from .banks import Kind
from .build import build_set, class_set
from .checks import check_rows, rows_cut_off
from .compose import composer_of
from .concepts import Concepts, join_concepts
from .load import load_set
from .pair import PromptPair
from .replacing import without_guards

Source = Literal["template", "llm", "file"]


class PromptSet(BaseModel):
    """Paired prompts: with what is to be forgotten, and without."""

    model_config = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True)

    concepts: Concepts = Field(alias="concept", description="what is to be forgotten")
    kind: Kind | Literal["class"] = "object"
    world: str = Field(default="open", description=f"whose words the prompts use, one of {', '.join(WORLDS)}")
    synonyms: tuple[str, ...] = Field(description="every word that names the concept, lower case; plurals understood")
    attribute_of: str | None = Field(default=None, description="the object whose attribute the concept is")
    keep_forgotten: tuple[str, ...] = Field(default=(), description="what was forgotten before and shall stay so")
    replace_with: str | None = Field(default=None, description="what is drawn instead; none: the retain prompts")
    usual_anchor: bool = Field(default=False, description="whether nobody named that thing, so that the world chose it")
    own_too: bool = Field(default=False, description="whether some rows say it themselves instead of `replace_with`")
    source: Source = "template"
    seed: int = 0
    train: tuple[PromptPair, ...]
    test: tuple[PromptPair, ...]
    warnings: tuple[str, ...] = ()

    build = classmethod(build_set)
    of_classes = classmethod(class_set)
    load = classmethod(load_set)

    @field_validator("world")
    @classmethod
    def _known(cls, world: str) -> str:
        if world not in WORLDS:
            raise ValueError(f"expected one of {list(WORLDS)}, got {world!r}")
        return world

    @model_serializer(mode="wrap")
    def _without_absent_anchor(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write a set without anchors as sets were written before there were any."""
        later = ("replace_with", "usual_anchor", "own_too")
        return {name: value for name, value in write(self).items() if name not in later or value not in (None, False)}

    @property
    def concept(self) -> str:
        """The concepts as one text, for titles and messages."""
        return join_concepts(self.concepts)

    @property
    def forget_train(self) -> list[str]:
        """Prompts of D_f to train on."""
        return [pair.forget for pair in self.train]

    @property
    def retain_train(self) -> list[str]:
        """Prompts of D_r to train on, row by row those of `forget_train` without the concept."""
        return [pair.retain for pair in self.train]

    @property
    def anchor_train(self) -> list[str]:
        """Prompts of what is drawn instead, row by row those of `forget_train`."""
        return [pair.instead for pair in self.train]

    @property
    def rows(self) -> list[tuple[str, str, str]]:
        """Every row to train on: the forget prompt, what is drawn instead, and the retain prompt."""
        return list(zip(self.forget_train, self.anchor_train, self.retain_train, strict=True))

    @property
    def forget_test(self) -> list[str]:
        """Prompts of D_f to test on."""
        return [pair.forget for pair in self.test]

    @property
    def retain_test(self) -> list[str]:
        """Prompts of D_r to test on."""
        return [pair.retain for pair in self.test]

    @property
    def anchor_test(self) -> list[str]:
        """Prompts of what is drawn instead, row by row those of `forget_test`."""
        return [pair.instead for pair in self.test]

    @property
    def drawn_instead(self) -> str | None:
        """Say what is drawn instead of the concepts; None where the retain prompts or each pair say it."""
        if self.replace_with is None or not self.own_too:
            return self.replace_with
        return f"{self.replace_with}, or what a pair says itself"

    def names_concept(self, prompt: str) -> bool:
        """Tell whether a prompt names one of the concepts, by any of its words or their plurals."""
        if self.kind == "class":
            return prompt in self.concepts
        composer = composer_of(self.world)
        return composer.names(prompt, composer.targets(self.concepts, self.kind), self.synonyms)

    @property
    def own_anchors(self) -> bool:
        """Tell whether anything else is drawn instead than the paired retain prompts, guards apart."""
        return any(pair.anchor is not None for pair in (*without_guards(self), *self.test))

    def cut_off(self, read: Callable[[Sequence[str]], Sequence[str]]) -> list[str]:
        """List the rows that teach nothing because a text encoder reads only the start of a prompt.

        Args:
            read: gives the part of each prompt that the text encoders read.

        Returns:
            Places such as "train row 3".
        """
        return rows_cut_off(self, read)

    def check(self) -> None:
        """Check that the rows are what they should be.

        Raises:
            UserError: the first problem, with its row.
        """
        check_rows(self)

    def save(self, path: Path | str) -> None:
        """Write everything as JSON, or the rows as CSV (with their split) or text (forget, tab, retain, tab, anchor).

        Raises:
            UserError: an unknown ending, or the file can't be written.
        """
        path = user_path(path)
        suffix = tables.suffix_of(path)
        if suffix == ".json":
            return write_text(path, self.model_dump_json(indent=1) + "\n")
        rows = [("train", pair) for pair in self.train] + [("test", pair) for pair in self.test]
        if suffix == ".csv":
            roles = ["forget", "retain", *(["anchor"] if any(pair.anchor for _, pair in rows) else [])]
            cells = [[*(getattr(pair, role) or "" for role in roles), split] for split, pair in rows]
            return write_text(path, tables.write_table([*roles, "split"], cells))
        for split, pair in rows:
            if tables.is_comment(pair.forget):
                raise UserError(
                    f"a prompt in a text file can't start with '# ', as comments do, got {split} {pair.forget!r}. "
                    "Use .csv."
                )
        return write_text(path, "".join("\t".join(pair.model_dump().values()) + "\n" for _, pair in rows))

    def preview(self, rows: int = 5) -> str:
        """Show what kind of set this is and its first rows."""
        lines = [
            f"{self.concept} ({self.kind}, {self.world} world): {len(self.train)} train and {len(self.test)} test "
            f"pairs, from {self.source}, seed {self.seed}"
            + (f", drawn instead: {self.drawn_instead}" if self.drawn_instead else "")
        ]
        for pair in self.train[:rows]:
            lines += [f"  forget  {pair.forget}", f"  retain  {pair.retain}"]
            lines += [f"  instead {pair.anchor}"] if pair.anchor is not None else []
        lines += [f"  warning: {warning}" for warning in self.warnings]
        return "\n".join(lines)
