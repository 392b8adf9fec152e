"""Pairs of prompts from a CSV or text file of the user's own."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..support.errors import UserError
from ..support.text import counted
from . import attributes, tables
from .banks import Concept, Named, find_concept
from .composer import Composer
from .naming import named_in
from .pair import PromptPair
from .text import unique

_COLUMNS = ("forget", "retain", "anchor", "split")


@dataclass(frozen=True)
class PairsRead:
    """The pairs of a file, and what was noticed about them."""

    concept: Concept
    train: tuple[PromptPair, ...]
    test: tuple[PromptPair, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Line:
    number: int
    forget: str
    retain: str | None
    anchor: str | None
    split: str | None


def read_pairs(
    path: Path, concept: Named, n_test: int | None, seed: int, composer: Composer, kept: Sequence[Named] = ()
) -> PairsRead:
    """Read rows, make the retain prompts that are absent, and split the rows.

    Args:
        path: a .csv or .txt file.
        concept: what is to be forgotten.
        n_test: rows at the end to test on, where there is no split column; a ninth if left out.
        seed: decides what takes the place of an object or a style.
        composer: of the world whose words retain prompts use.
        kept: what must stay forgotten, which no retain prompt is made to ask for.

    Raises:
        UserError: the file can't be read, or a row is wrong.
    """
    found, attribute_of = concept.find(), concept.attribute_of  # which refuses another kind
    concept = replace(concept, synonyms=tuple(unique([*concept.synonyms, *composer.own_words(concept)])))
    found = concept.find()
    lines, noticed = _read_csv(path) if tables.suffix_of(path) == ".csv" else _read_txt(path)
    if attribute_of is not None:
        _check_attribute(found, attribute_of, lines, path)
    rows = [(line, (line.forget, str(line.retain), line.anchor)) for line in lines]
    if any(line.retain is None for line in lines):
        retain = composer.retain(replace(concept, synonyms=found.synonyms), random.Random(seed), kept)
        made = ((line, retain(line.forget, f"{path} line {line.number}", ", or a retain prompt")) for line in lines)
        rows = [(line, (line.forget, text, line.anchor)) for line, text in made]
    texts = ((line.number, f"{line.forget} {line.retain} {line.anchor}") for line in lines)
    warnings = [*noticed, *tables.network_warnings(texts)]
    unnamed = [line.number for line in lines if line.forget and named_in(line.forget, found.synonyms) is None]
    warnings += tables.told(unnamed, "forget prompt", f"without {found.name!r}", "line")
    if attribute_of is not None:
        bearer = find_concept(attribute_of, "object").synonyms
        strays = [line.number for line, row in rows if any(named_in(prompt, bearer) is None for prompt in row[:2])]
        warnings += tables.told(strays, "row", f"not about {attribute_of!r} on both sides", "line")
    if any(line.split is not None for line in lines):
        train = [row for line, row in rows if line.split == "train"]
        test = [row for line, row in rows if line.split == "test"]
        if n_test not in (None, len(test)):
            raise UserError(
                f"{path} has a split column with {counted(len(test), 'test row')}, got n_test {n_test}. Leave it out."
            )
    else:
        different = list(dict.fromkeys(row for _, row in rows))
        if len(different) < len(rows):
            warnings.append(f"{counted(len(rows) - len(different), 'repeated row')} left out")
        count = max(len(different) // 9, int(len(different) > 3)) if n_test is None else n_test
        if not 0 <= count < len(different):
            raise UserError(
                f"n_test must be from 0 to {len(different) - 1} for the {counted(len(different), 'row')} of {path}, "
                f"got {n_test}."
            )
        cut = len(different) - count
        train, test = different[:cut], different[cut:]
    return PairsRead(found, _pairs(train), _pairs(test), tuple(warnings))


def _pairs(rows: Iterable[tuple[str, str, str | None]]) -> tuple[PromptPair, ...]:
    return tuple(PromptPair(forget=forget, retain=retain, anchor=anchor) for forget, retain, anchor in rows)


def _read_csv(path: Path) -> tuple[list[_Line], tuple[str, ...]]:
    table = tables.read_table(path)
    columns = list(table[0][1])
    if "forget" not in columns:
        near = next((name for name in columns if tables.question(name, ("forget",))), None)
        remedy = f"Rename {near!r}." if near else "Rename the column with the prompts to forget."
        if "prompt" in columns:
            remedy += " `turpentine audit --from` and `generate --from` draw a list of prompts as it is."
        raise UserError(
            f"expected the columns forget and perhaps {', '.join(_COLUMNS[1:])} in {path}, got {', '.join(columns)}. "
            f"{remedy}"
        )
    lines = []
    for number, row in table:
        split = row["split"].lower() if "split" in row else None
        if split not in (None, "train", "test"):
            raise UserError(f"{path} line {number}: split must be train or test, got {split!r}.")
        for column in ("forget", "retain"):
            if column in row and not row[column]:
                raise UserError(f"{path} line {number}: expected a {column} prompt, got an empty cell.")
        lines.append(_Line(number, row["forget"], row.get("retain"), row.get("anchor") or None, split))
    return lines, tables.unused_warnings(columns, _COLUMNS)


def _read_txt(path: Path) -> tuple[list[_Line], tuple[str, ...]]:
    numbered, comments = tables.read_lines(path)
    paired = any("\t" in line.strip() for _, line in numbered)
    lines = []
    for number, line in numbered:
        cells = [cell.strip() for cell in line.strip("\r\n").split("\t")] if paired else [line.strip()]
        if len(cells) not in ((2, 3) if paired else (1,)) or not all(cells):
            raise UserError(
                f"{path} line {number}: expected a forget prompt, a tab and a retain prompt, got {line.strip()!r}. "
                "Correct the line (behind another tab may stand what is drawn instead), or leave the tabs out "
                "everywhere to have retain prompts made."
            )
        forget, retain, anchor = (*cells, None, None)[:3]
        lines.append(_Line(number, str(forget), retain, anchor, None))
    return lines, comments


def _check_attribute(attribute: Concept, attribute_of: str, lines: list[_Line], path: Path) -> None:
    attributes.check_names(attribute, find_concept(attribute_of, "object"))
    if any(line.retain is None for line in lines):
        raise UserError(
            f"expected a retain prompt in every row of {path}, since none can be made for an attribute "
            f"({attribute.name!r} of {attribute_of!r}). Add a column 'retain' with the object without it."
        )
