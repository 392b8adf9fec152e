"""Prompt sets from files: saved ones, and rows of the user's own."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from pydantic import ValidationError

from ..support.errors import UserError
from ..support.places import user_path
from ..support.text import squeezed
from ..worlds import find_world
from ..worlds.open import Open
from . import tables
from .anchors import AUTO
from .banks import Kind, Named, known_kind
from .compose import GUARD_EVERY, composer_for, composer_of, guard_beside, guard_prompts, unguarded_warnings
from .concepts import other_names, plural_warnings, read_concepts, same_concept, same_concepts
from .from_file import read_pairs
from .pair import PromptPair
from .replacing import replaced
from .text import unique

if TYPE_CHECKING:
    from .prompt_set import PromptSet


def load_set(
    cls: "type[PromptSet]",
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
) -> "PromptSet":
    """Read a saved set, or a CSV or text file of one's own.

    CSV has the columns `forget`, and `retain`, `anchor` and `split` (train or test), which may be absent;
    text has forget, tab, retain on a line, perhaps a tab and the anchor, or forget prompts only. Where retain
    prompts are absent they are made: nudity loses its adjectives, an object or a style gives way to another.

    Args:
        cls: `PromptSet`, whose class method this is.
        path: a .json, .csv or .txt file.
        concept: needed for CSV and text.
        kind: guessed from the concept if left out.
        n_test: rows at the end to test on, where there is no split column; a ninth if left out.
        seed: decides what takes the place of an object or a style.
        synonyms: more words for the concept, beside those that the tables or a saved set know.
        attribute_of: the object whose attribute the concept is; then every row needs its retain prompt.
        keep_forgotten: what was forgotten before and shall stay so. A row whose retain prompt asks for it is
            added behind every three train rows; a saved set that guards it already stays as it is.
        world: of `composed_worlds`, whose words retain prompts, added rows and anchors use, where the file doesn't say
            it.
        replace_with: what is drawn instead of the concept in the rows whose anchor the file doesn't say; None or
            "auto": what their retain prompts say.

    Raises:
        UserError: the file can't be read, or a row is wrong.
    """
    path = user_path(path)
    instead = None if replace_with == AUTO else replace_with
    if tables.suffix_of(path) == ".json":
        made = _read_json(cls, path)
        if concept is not None and not same_concepts(concept, made.concepts):
            raise UserError(f"{path} has concept {made.concept!r}, got {concept!r}. Leave it out to use the file's.")
        for name, given, has in (
            ("kind", kind, made.kind),
            ("n_test", n_test, len(made.test)),
            ("attribute_of", attribute_of, made.attribute_of),
            ("replace_with", instead, made.replace_with or instead),
        ):
            if given is not None and squeezed(str(given)) != squeezed(str(has)):
                raise UserError(f"{path} has {name} {has!r}, got {given!r}. Leave it out to use the file's.")
        more, _, kept = other_names(made.concepts, synonyms, None, keep_forgotten)
        made = made.model_copy(update={"synonyms": tuple(unique([*made.synonyms, *map(str.lower, more)]))})
    else:
        if concept is None:
            raise UserError(f"{path.suffix} files don't say what the concept is, got none. Give the concept too.")
        names = read_concepts(concept)
        if len(names) > 1:
            raise UserError(f"{path.suffix} files are about one concept, got {concept!r}. Use a saved .json.")
        more, attribute_of, kept = other_names(names, synonyms, attribute_of, keep_forgotten)
        if kind is not None and kind not in get_args(Kind):
            raise UserError(f"kind must be one of {list(get_args(Kind))}, got {kind!r}.")
        target = Named(names[0], kind or known_kind(names[0]) or "object", more, attribute_of)
        composer = composer_for(world, names)
        read = read_pairs(path, target, n_test, seed, composer, composer.guarded(kept, target.kind))
        made = cls(
            concept=(read.concept.name,),
            kind=target.kind,
            synonyms=read.concept.synonyms,
            attribute_of=attribute_of,
            source="file",
            seed=seed,
            train=read.train,
            test=read.test,
            warnings=(*plural_warnings([*names, *more, *kept]), *read.warnings),
        )
    world = world if made.world == Open.name else made.world
    if instead is not None and made.replace_with is None:
        made = replaced(made, instead, world, more, kept)
    made = _guarding(made, kept, world)
    made.check()
    return made


def _read_json(cls: "type[PromptSet]", path: Path) -> "PromptSet":
    data = tables.read_json(path)
    try:
        return cls.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole file"
        if first["type"] == "extra_forbidden":
            fields = (PromptPair if len(first["loc"]) > 1 else cls).model_fields
            meant = tables.question(where.rpartition(".")[2], [info.alias or name for name, info in fields.items()])
            raise UserError(
                f"{path} is not a saved prompt set: unknown key {where}{meant}. Rename or remove it."
            ) from error
        raise UserError(f"{path} is not a saved prompt set: {where}: {first['msg']}.") from error


def _guarding(prompts: "PromptSet", names: Sequence[str], world: str) -> "PromptSet":
    """Add rows that guard what was forgotten before, where none do yet."""
    missing = [name for name in names if not any(same_concept(name, kept) for kept in prompts.keep_forgotten)]
    if not missing or prompts.kind == "class":
        return prompts
    composer = composer_of(world)
    known = composer.known_as(filter(find_world(world).can_say, prompts.concepts), prompts.kind)
    count = -(-len(prompts.train) // (GUARD_EVERY - 1))
    kept = composer.guarded(missing, prompts.kind)
    guards, unguarded = guard_prompts(kept, count, prompts.seed, composer, known, prompts.names_concept)
    return prompts.model_copy(
        update={
            "train": tuple(guard_beside(prompts.train, guards)),
            "keep_forgotten": (*prompts.keep_forgotten, *(name for name in missing if name not in unguarded)),
            "warnings": (*prompts.warnings, *unguarded_warnings(unguarded, prompts.concept)),
        }
    )
