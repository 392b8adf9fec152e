"""`PromptSet`: paired forget and retain prompts, split into train and test (Ko et al. 2024, Appendix D).

Row i of D_f and row i of D_r share everything but the concept. Values of every dimension belong to
the train or to the test rows only; the concept's own words are in both.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
)

from ..support.errors import UserError
from ..support.files import write_text
from ..support.places import user_path
from ..support.text import squeezed
from ..worlds import WORLDS, find_world
from ..worlds.classes import Classes
from ..worlds.open import Open
from . import tables
from .anchors import AUTO
from .banks import Kind
from .checks import check_rows, rows_cut_off
from .compose import (
    GUARD_EVERY,
    composed_worlds,
    composer_of,
    few_rows_warnings,
    guard,
    guard_beside,
    guard_prompts,
    interleave,
    shares,
    unguarded_warnings,
    with_kinds,
)
from .composer import Scope
from .concepts import (
    Concepts,
    join_concepts,
    other_names,
    plural_warnings,
    read_concepts,
    same_concept,
    same_concepts,
)
from .from_file import read_pairs
from .llm import LLMSource
from .pair import PromptPair
from .replacing import anchored, chosen, replaced, rule_of, without_guards
from .templates import PromptRow, Structure
from .text import unique

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
    source: Source = "template"
    seed: int = 0
    train: tuple[PromptPair, ...]
    test: tuple[PromptPair, ...]
    warnings: tuple[str, ...] = ()

    @field_validator("world")
    @classmethod
    def _known(cls, world: str) -> str:
        if world not in WORLDS:
            raise ValueError(f"expected one of {list(WORLDS)}, got {world!r}")
        return world

    @model_serializer(mode="wrap")
    def _without_absent_anchor(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write a set without anchors as sets were written before there were any."""
        later = ("replace_with", "usual_anchor")
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

    @classmethod
    def build(
        cls,
        concept: str | Sequence[str],
        kind: Kind = "object",
        n: int = 800,
        n_test: int = 100,
        seed: int = 0,
        world: str = "open",
        structure: Structure = "diverse",
        source: Literal["template", "llm"] = "template",
        synonyms: Sequence[str] | None = None,
        llm: LLMSource | None = None,
        allow_fallback: bool = True,
        attribute_of: str | None = None,
        keep_forgotten: Sequence[str] = (),
        replace_with: str | None = None,
    ) -> Self:
        """Compose a prompt set; the same arguments give the same prompts.

        Args:
            concept: for example "nudity", "Van Gogh", "cat"; several as a sequence, or joined by a plus,
                "cat + pop art". Then each has its share of the rows, and no retain prompt names any of them.
            kind: decides the sentences; with several concepts, of those that the tables don't know.
            n: train rows.
            n_test: test rows; they depend on neither `n` nor `structure`.
            seed: decides which combinations are drawn.
            world: of `composed_worlds`; "tiny-canvas" keeps to what the bundled model can draw.
            structure: "uniform" repeats one pair `n` times, as SalUn does.
            source: "llm" asks `llm` for the sub-concepts.
            synonyms: more words for the concept, beside those that the tables know.
            llm: where to ask.
            allow_fallback: use templates, with a warning, where the LLM fails; otherwise that is an error.
            attribute_of: the object whose attribute the concept is; the retain prompts show it without.
            keep_forgotten: what was forgotten before and shall stay so. Every fourth train row's retain
                prompt asks for it; no other prompt does.
            replace_with: what is drawn instead of the concept (see `anchors`), for several concepts with a plus
                between; "auto": one thing that the world chooses; None: the paired retain prompts.

        Raises:
            UserError: an argument is wrong, or there are too few combinations.
        """
        for name, value, choices in (
            ("kind", kind, get_args(Kind)),
            ("world", world, tuple(composed_worlds())),
            ("structure", structure, get_args(Structure)),
            ("source", source, ("template", "llm")),
        ):
            if value not in choices:
                raise UserError(f"{name} must be one of {list(choices)}, got {value!r}.")
        if not isinstance(n, int) or not isinstance(n_test, int) or n < 1 or n_test < 0:
            raise UserError(
                f"expected whole numbers, n of at least 1 and n_test of at least 0, got {n!r} and {n_test!r}."
            )
        if (source == "llm") != (llm is not None):
            raise UserError(
                f"source 'llm' and an LLM source must be given together, got source {source!r} and LLM source {llm!r}."
            )
        composer = composer_of(world)
        if source == "llm" and not composer.takes_llm:
            raise UserError(f"{world} can draw its own words only, got source 'llm'. Use source 'template'.")

        names = read_concepts(concept)
        more, attribute_of, keep_forgotten = other_names(names, synonyms, attribute_of, keep_forgotten)
        if attribute_of is not None and kind != "object":
            raise UserError(f"expected kind 'object' with an attribute of {attribute_of!r}, got kind {kind!r}.")
        if len(names) > 1 and (more or attribute_of is not None):
            raise UserError(f"synonyms and attributes belong to one concept, got {list(names)}. Name one of them.")
        if n < len(names):
            raise UserError(f"expected a pair for each of {len(names)} concepts, got n {n}.")
        kinds = [kind] if len(names) == 1 else [composer.kind_of(name, kind) for name in names]
        kept = with_kinds(keep_forgotten, kind, composer)
        scope = Scope(structure, seed, llm, allow_fallback)
        targets = list(zip(names, kinds, strict=True))
        usual = replace_with == AUTO
        replace_with = chosen(replace_with, targets, composer, kept, attribute_of)
        replace = rule_of(replace_with, targets, composer, more, kept, attribute_of)
        parts = [
            composer.compose(
                *target,
                rows,
                test_rows,
                scope,
                synonyms=more or None,
                avoid=[*(other for other in targets if other != target), *kept],
                attribute_of=attribute_of,
            )
            for target, rows, test_rows in zip(targets, shares(n, len(names)), shares(n_test, len(names)), strict=True)
        ]
        train: Sequence[PromptPair] = anchored(_pairs(interleave([part.train for part in parts])), replace)
        words = tuple(word for part in parts for word in part.names)
        unguarded: list[str] = []
        if kept:
            guards, unguarded = guard_prompts(
                kept,
                -(-n // GUARD_EVERY),
                seed,
                composer,
                targets,
                lambda text: composer.names(text, names, kind, words),
            )
            train = guard(train, guards) if guards else train
        made = cls(
            concept=tuple(part.name for part in parts),
            kind=kind,
            world=world,
            synonyms=words,
            attribute_of=attribute_of,
            keep_forgotten=tuple(name for name in keep_forgotten if name not in unguarded),
            replace_with=replace_with,
            usual_anchor=usual and replace_with is not None,
            source="llm" if any(part.from_llm for part in parts) else "template",
            seed=seed,
            train=tuple(train),
            test=tuple(anchored(_pairs(interleave([part.test for part in parts])), replace)),
            warnings=(
                *plural_warnings([*names, *more, *keep_forgotten]),
                *(warning for part in parts for warning in part.warnings),
                *unguarded_warnings(unguarded, join_concepts(names)),
                *few_rows_warnings([name for name in keep_forgotten if name not in unguarded], n),
            ),
        )
        made.check()
        return made

    @classmethod
    def of_classes(
        cls, concept: str, names: Sequence[str], n: int, n_test: int, seed: int = 0, replace_with: str | None = None
    ) -> Self:
        """Pair the class to forget with each of the others in turn, for a class-conditional model.

        Args:
            concept: name of the class.
            names: all classes of the model.
            n: train rows.
            n_test: test rows.
            seed: kept with the set.
            replace_with: the class that is drawn instead; "auto": the first other; None: the paired ones.

        Raises:
            UserError: the concept is none of the classes, or what is drawn instead is none of the others.
        """
        if concept not in names:
            raise UserError(f"expected the name of a class, one of {list(names)}; got {concept!r}.")
        others = [name for name in names if name != concept]
        usual = replace_with == AUTO
        if usual:
            replace_with = others[0]
        if replace_with is not None and replace_with not in others:
            raise UserError(f"replace_with: expected another class, one of {others}; got {replace_with!r}.")

        def rows(count: int) -> tuple[PromptPair, ...]:
            retained = (others[row % len(others)] for row in range(count))
            return tuple(PromptPair(forget=concept, retain=name, anchor=replace_with) for name in retained)

        made = cls(
            concept=(concept,),
            kind="class",
            world=Classes.name,
            synonyms=(concept,),
            replace_with=replace_with,
            usual_anchor=usual,
            seed=seed,
            train=rows(n),
            test=rows(n_test),
        )
        made.check()
        return made

    def names_concept(self, prompt: str) -> bool:
        """Tell whether a prompt names one of the concepts, by any of its words or their plurals."""
        if self.kind == "class":
            return prompt in self.concepts
        return composer_of(self.world).names(prompt, self.concepts, self.kind, self.synonyms)

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

    @classmethod
    def load(
        cls,
        path: Path | str,
        concept: str | None = None,
        kind: Kind | None = None,
        n_test: int | None = None,
        seed: int = 0,
        synonyms: Sequence[str] | None = None,
        attribute_of: str | None = None,
        keep_forgotten: Sequence[str] = (),
        world: str = "open",
        replace_with: str | None = None,
    ) -> Self:
        """Read a saved set, or a CSV or text file of one's own.

        CSV has the columns `forget`, and `retain`, `anchor` and `split` (train or test), which may be absent;
        text has forget, tab, retain on a line, perhaps a tab and the anchor, or forget prompts only. Where retain
        prompts are absent they are made: nudity loses its adjectives, an object or a style gives way to another.

        Args:
            path: a .json, .csv or .txt file.
            concept: needed for CSV and text.
            kind: guessed from the concept if left out.
            n_test: rows at the end to test on, where there is no split column; a ninth if left out.
            seed: decides what takes the place of an object or a style.
            synonyms: more words for the concept, beside those that the tables or a saved set know.
            attribute_of: the object whose attribute the concept is; then every row needs its retain prompt.
            keep_forgotten: what was forgotten before and shall stay so. A row whose retain prompt asks for it is
                added behind every three train rows; a saved set that guards it already stays as it is.
            world: of `composed_worlds`, whose words added rows and anchors use, where the file doesn't say it.
            replace_with: what is drawn instead of the concept in the rows whose anchor the file doesn't say; None or
                "auto": what their retain prompts say.

        Raises:
            UserError: the file can't be read, or a row is wrong.
        """
        path = user_path(path)
        if replace_with == AUTO:
            replace_with = None
        if tables.suffix_of(path) == ".json":
            made = cls._load_json(path)
            if concept is not None and not same_concepts(concept, made.concepts):
                raise UserError(
                    f"{path} has concept {made.concept!r}, got {concept!r}. Leave it out to use the file's."
                )
            given = {"kind": kind, "n_test": n_test, "attribute_of": attribute_of, "replace_with": replace_with}
            for name, has in (
                ("kind", made.kind),
                ("n_test", len(made.test)),
                ("attribute_of", made.attribute_of),
                ("replace_with", made.replace_with or replace_with),
            ):
                if given[name] is not None and squeezed(str(given[name])) != squeezed(str(has)):
                    raise UserError(f"{path} has {name} {has!r}, got {given[name]!r}. Leave it out to use the file's.")
            more, _, kept = other_names(made.concepts, synonyms, None, keep_forgotten)
            made = made.model_copy(update={"synonyms": tuple(unique([*made.synonyms, *map(str.lower, more)]))})
        else:
            if concept is None:
                raise UserError(f"{path.suffix} files don't say what the concept is, got none. Give the concept too.")
            names = read_concepts(concept)
            if len(names) > 1:
                raise UserError(f"{path.suffix} files are about one concept, got {concept!r}. Use a saved .json.")
            more, attribute_of, kept = other_names(names, synonyms, attribute_of, keep_forgotten)
            read = read_pairs(path, names[0], kind, n_test, seed, more or None, attribute_of)
            made = cls(
                concept=(read.concept.name,),
                kind=read.kind,
                synonyms=read.concept.synonyms,
                attribute_of=attribute_of,
                source="file",
                seed=seed,
                train=read.train,
                test=read.test,
                warnings=(*plural_warnings([*names, *more, *kept]), *read.warnings),
            )
        world = world if made.world == Open.name else made.world
        if replace_with is not None and made.replace_with is None:
            made = replaced(made, replace_with, world, more, kept)
        made = made._guarding(kept, world)
        made.check()
        return made

    def _guarding(self, names: Sequence[str], world: str) -> Self:
        """Add rows that guard what was forgotten before, where none do yet."""
        missing = [name for name in names if not any(same_concept(name, kept) for kept in self.keep_forgotten)]
        if not missing or self.kind == "class":
            return self
        composer = composer_of(world)
        kind: Kind = self.kind
        targets = [(name, composer.kind_of(name, kind)) for name in self.concepts]
        known = [(name, of) for name, of in targets if not find_world(world).words or find_world(world).find(name)]
        kept = with_kinds(missing, kind, composer)
        count = -(-len(self.train) // (GUARD_EVERY - 1))
        prompts, unguarded = guard_prompts(kept, count, self.seed, composer, known, self.names_concept)
        return self.model_copy(
            update={
                "train": tuple(guard_beside(self.train, prompts)) if prompts else self.train,
                "keep_forgotten": (*self.keep_forgotten, *(name for name in missing if name not in unguarded)),
                "warnings": (*self.warnings, *unguarded_warnings(unguarded, self.concept)),
            }
        )

    @classmethod
    def _load_json(cls, path: Path) -> Self:
        data = tables.read_json(path)
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the whole file"
            raise UserError(f"{path} is not a saved prompt set: {where}: {first['msg']}.") from error

    def preview(self, rows: int = 5) -> str:
        """Show what kind of set this is and its first rows."""
        lines = [
            f"{self.concept} ({self.kind}, {self.world} world): {len(self.train)} train and {len(self.test)} test "
            f"pairs, from {self.source}, seed {self.seed}"
            + (f", drawn instead: {self.replace_with}" if self.replace_with else "")
        ]
        for pair in self.train[:rows]:
            lines += [f"  forget  {pair.forget}", f"  retain  {pair.retain}"]
            lines += [f"  instead {pair.anchor}"] if pair.anchor is not None else []
        lines += [f"  warning: {warning}" for warning in self.warnings]
        return "\n".join(lines)


def _pairs(rows: Sequence[PromptRow]) -> list[PromptPair]:
    return [PromptPair(forget=forget, retain=retain) for forget, retain in rows]
