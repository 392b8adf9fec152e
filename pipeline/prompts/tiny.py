"""Rows for the tiny-canvas world, whose words and pictures are known exactly."""

import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from ..support.errors import UserError
from ..support.text import squeezed
from ..worlds import tiny_canvas as canvas
from .anchors import NOTHING, Replace
from .banks import Kind, Named, plain_name
from .composer import Caption, Composed, Composer, Retain, Scope
from .concepts import singular
from .naming import named_in
from .templates import PromptRow, Scene, Split, check_named, draw, generator
from .text import like, swapped, unique, with_replacement

Value = tuple[str, str]
"""A dimension of this world, and one of its values."""

_HALF = {"train": slice(0, 2), "test": slice(2, 4)}
"""Split -> its phrases of each value; those of the concept belong to both splits, as in the paper."""


class TinyComposer(Composer):
    """Only what the bundled models can draw is said."""

    takes_llm: ClassVar[bool] = False

    def kind_of(self, concept: str, kind: Kind) -> Kind:
        """Take the kind of the concept's dimension."""
        return kind_of(concept, kind)

    def check(self, concept: Named) -> None:
        """Look the concept up among the values."""
        find(concept)

    def compose(self, concept: Named, scope: Scope, avoid: Sequence[Named] = ()) -> Composed:
        """Combine phrases of this world; attributes it has none."""
        if concept.attribute_of is not None:
            raise UserError(
                f"tiny-canvas draws no attributes, got {concept.name!r} from {concept.attribute_of!r}. "
                "Use a larger model."
            )
        gone, value = set(map(find, avoid)), find(concept)
        names = names_of(value)
        _check_synonyms(value, concept.synonyms)
        test = diverse_rows(value, scope.n_test, "test", scope.seed, gone)
        if scope.structure == "uniform":
            train = [uniform_row(value, gone)] * scope.n
        else:
            train = diverse_rows(value, scope.n, "train", scope.seed, gone)
        return Composed(" ".join(concept.name.split()), names, train, test)

    def caption_rows(
        self, captions: Sequence[Caption], concept: Named, scope: Scope, avoid: Sequence[Named] = ()
    ) -> Composed:
        """Change the concept's value in the captions; of a concept without a name here, any value that they name."""
        gone = set(map(find, avoid))
        value = find(concept) if canvas.dimension_of(concept.name) else None
        plain = uniform_row(value)[0] if value else concept.name
        said = [_Caption.read(text or plain, where, value) for text, where in captions]
        rng, train = generator(scope.seed, "train"), []
        for row in range(scope.n):
            turn, place = divmod(row, len(said))
            retain = said[place].neighbour(rng, "train", gone)
            train.append((said[place].near(rng) if turn % 2 else said[place].text, retain))
        if value:
            near = self.compose(concept, scope, avoid)
            turns = [(row // len(said)) % 2 for row in range(scope.n)]
            mixed = [other if turn else own for turn, own, other in zip(turns, train, near.train, strict=True)]
            return replace(near, train=mixed)
        rng = generator(scope.seed, "test")
        tested = [said[row % len(said)] for row in range(scope.n_test)]
        test = [(each.near(rng), each.neighbour(rng, "test", gone)) for each in tested]
        name = concept.name
        return Composed(" ".join(name.split()), (name.lower(), *concept.synonyms), train, test)

    def retain(self, concept: Named, rng: random.Random, avoid: Sequence[Named] = ()) -> Retain:
        """Put a phrase of any other value of the concept's dimension in its place."""
        value, gone = find(concept), set(map(find, avoid))
        words = self._words(value, concept)
        others = [
            (key, phrase) for key in _allowed(value, gone)[value[0]] for phrase in canvas.DIMENSIONS[value[0]][key]
        ]

        def made(prompt: str, where: str, remedy: str) -> str:
            check_named(prompt, concept.name, words, where, remedy)
            key, phrase = rng.choice(others)
            return _put(value, words, phrase, key)(prompt)

        return made

    def own_words(self, concept: Named) -> tuple[str, ...]:
        """The phrases of the concept's value."""
        return names_of(find(concept))

    def _words(self, value: Value, concept: Named) -> tuple[str, ...]:
        return tuple(unique([*names_of(value), *concept.synonyms]))

    def replacement(
        self, text: str, concept: Named, removed: Sequence[Named] = (), kept: Sequence[Named] = ()
    ) -> Replace:
        """Put another value of the concept's dimension in its place; of a label, another subject into its scene."""
        gone = {canvas.dimension_of(other.name) for other in (*removed, *kept)}
        if canvas.dimension_of(concept.name) is None:
            return _in_scene(concept.name, *_instead(text, ("subject", concept.name), gone))
        value = find(concept)
        return _put(value, self._words(value, concept), *_instead(text, value, gone))

    def usual_anchor(self, concept: Named, gone: Sequence[Named] = ()) -> str:
        """The first other value of the concept's dimension: a photo for a style, a subject for a label."""
        known = canvas.dimension_of(concept.name) is not None
        dimension, own = find(concept) if known else ("subject", concept.name)
        away = {(dimension, own), *map(find, gone)}
        choices = [key for key in canvas.DIMENSIONS[dimension] if (dimension, key) not in away]
        if not choices:
            raise UserError(f"nothing is left to take the place of {own!r}. Forget fewer concepts at once.")
        return choices[0]

    def subjects(self, prompts: Iterable[str]) -> list[Named]:
        """Read them."""
        shown = dict.fromkeys(canvas.labels_of(prompt).get("subject") for prompt in prompts)
        return [Named(subject, "object") for subject in shown if subject is not None]

    def names(self, prompt: str, concepts: Sequence[Named], synonyms: Sequence[str]) -> bool:
        """Read the values that the prompt shows, then look for the words in any other spelling."""
        labels, known = canvas.labels_of(prompt), [each for each in concepts if canvas.dimension_of(each.name)]
        shown = any(labels.get(dimension) == value for dimension, value in map(find, known))
        return shown or named_in(prompt, synonyms) is not None


@dataclass(frozen=True)
class _Caption:
    """A caption in words of this world.

    Attributes:
        text: as it was given.
        labels: dimension -> value that it names.
        changes: the dimensions in which its neighbours may differ.
    """

    text: str
    labels: dict[str, str]
    changes: tuple[str, ...]

    @classmethod
    def read(cls, text: str, where: str, known: Value | None) -> "_Caption":
        """Read a caption.

        Args:
            text: of the caption.
            where: it stands, for messages.
            known: the concept's value, if this world has it.

        Raises:
            UserError: it doesn't name the concept, or names nothing that tiny-canvas knows.
        """
        labels = canvas.labels_of(text)
        if known and labels.get(known[0]) != known[1]:
            raise UserError(f"{where}: expected a caption that names {known[1]!r}, got {text!r}. Add the word.")
        if "subject" not in labels:
            raise UserError(
                f"{where}: expected a caption that names one of tiny-canvas's subjects ({', '.join(canvas.SUBJECTS)}), "
                f"got {text!r}. Write what the picture shows into a NAME.txt beside it."
            )
        return cls(text, labels, (known[0],) if known else tuple(labels))

    def near(self, rng: random.Random) -> str:
        """The same in other words."""
        return _sentence({name: rng.choice(canvas.DIMENSIONS[name][value]) for name, value in self.labels.items()})

    def neighbour(self, rng: random.Random, split: Split, avoid: Collection[Value]) -> str:
        """A prompt that differs in one or two of the values."""
        changed = rng.sample(self.changes, min(len(self.changes), rng.choice((1, 2))))
        words = {name: rng.choice(canvas.DIMENSIONS[name][value]) for name, value in self.labels.items()}
        for name in changed:
            value = rng.choice(_allowed((name, self.labels[name]), avoid)[name])
            words[name] = rng.choice(canvas.DIMENSIONS[name][value][_HALF[split]])
        return _sentence(words)


def _sentence(words: dict[str, str]) -> str:
    """A prompt of a phrase of some dimensions; a photo where no style is said."""
    style, place, time = (words.get(name, "") for name in ("style", "place", "time"))
    return " ".join(canvas.compose(style or canvas.STYLES["photo"][0], words["subject"], place, time).split())


def find(concept: Named) -> Value:
    """Find the value that a concept names.

    Raises:
        UserError: this world can't draw it, or it is of another kind.
    """
    name, kind = concept.name, concept.kind
    if not name.strip():
        raise UserError(f"the concept must be at least one word, got {name!r}.")
    found = canvas.dimension_of(name)
    if found is None:
        values = "; ".join(f"{dimension}: {', '.join(values)}" for dimension, values in canvas.DIMENSIONS.items())
        raise UserError(f"tiny-canvas can't draw {name!r}. Use one of its own concepts ({values}).")
    dimension, value = found
    if kind == "nudity" and dimension != "subject":
        raise UserError(
            f"tiny-canvas has no nudity, expected one of its subjects ({', '.join(canvas.SUBJECTS)}) as a stand-in, "
            f"got {name!r}, a {dimension}. Use a subject or another kind."
        )
    if kind != "nudity" and (kind == "style") != (dimension == "style"):
        right = "style" if dimension == "style" else "object"
        raise UserError(
            f"expected a concept of kind {kind!r}, got {value!r}, a {dimension}. Use kind {right!r} for it."
        )
    return dimension, value


def kind_of(concept: str, kind: Kind) -> Kind:
    """The kind of a concept of this world; `kind` where it fits or the concept is not known."""
    found = canvas.dimension_of(concept)
    if found is None:
        return kind
    if found[0] == "style":
        return "style"
    return kind if kind == "nudity" and found[0] == "subject" else "object"


def _put(value: Value, words: Sequence[str], phrase: str, name: str) -> Replace:
    """Give the rule that puts another value, by a phrase and by its bare name, where a prompt names this one."""
    dimension, own = value
    if dimension == "subject":
        return lambda prompt: with_replacement(prompt, words, phrase)
    phrases = set(map(squeezed, canvas.DIMENSIONS[dimension][own]))
    # a phrase gives way to a phrase, a bare name to a bare name
    return lambda prompt: like(
        prompt, swapped(prompt, words, lambda named: phrase if squeezed(named.text) in phrases else name)
    )


def _in_scene(label: str, phrase: str, name: str) -> Replace:
    """Give the rule that puts another subject into a scene that goes by a label of the user's.

    Raises:
        UserError: from the rule, where the scene shows this subject already.
    """

    def anchor(prompt: str) -> str:
        own = canvas.labels_of(prompt).get("subject")
        if own is None:
            return prompt
        if own == name:
            raise UserError(
                f"expected another subject than what {label!r} shows to draw instead (replace_with), got {phrase!r} "
                f"for {prompt!r}. Name another."
            )
        return _put(("subject", own), names_of(("subject", own)), phrase, name)(prompt)

    return anchor


def _instead(text: str, value: Value, gone: Collection[Value | None]) -> tuple[str, str]:
    """Find the phrase and the other value that a text names, of the same dimension.

    The models draw a subject, a place and a time in every picture: one that a prompt leaves out they choose, and it
    may be the one that is removed. A prompt without a style is a photo to them.

    Raises:
        UserError: the text names no other value of this dimension.
    """
    dimension, own = value
    choices = [key for key in canvas.DIMENSIONS[dimension] if (dimension, key) not in {*gone, value}]
    use = f"Use one of {', '.join(choices)}." if choices else "Forget fewer concepts at once."
    if text == NOTHING and dimension != "style":
        raise UserError(
            f"expected another {dimension} to draw in the place of {own!r} (replace_with), got {text!r}: tiny-canvas "
            f"draws one in every picture. {use}"
        )
    bare = "photo" if text == NOTHING else plain_name(plain_name(text, "object"), "style").removeprefix("plain ")
    names = [text, bare, singular(bare) or bare]
    found = next(filter(None, map(canvas.dimension_of, names)), None)
    if found is None or found[0] != dimension or found[1] not in choices:
        raise UserError(
            f"expected another {dimension} of tiny-canvas to draw in the place of {own!r} (replace_with), got "
            f"{text!r}. {use}"
        )
    phrases, named = canvas.DIMENSIONS[dimension][found[1]], set(map(squeezed, names))
    return next((phrase for phrase in phrases if squeezed(phrase) in named), phrases[0]), found[1]


def names_of(value: Value) -> tuple[str, ...]:
    """List all words for a value; its bare name only where no other value's phrase contains it."""
    dimension, name = value
    others = (
        phrase
        for other_dimension, values in canvas.DIMENSIONS.items()
        for other, phrases in values.items()
        if (other_dimension, other) != value
        for phrase in phrases
    )
    bare = [] if any(named_in(phrase, [name]) for phrase in others) else [name]
    return tuple(unique([*bare, *canvas.DIMENSIONS[dimension][name]]))


def _check_synonyms(value: Value, synonyms: Sequence[str]) -> None:
    """Refuse words that this world doesn't know; those that it knows are used anyway."""
    dimension, name = value
    phrases = canvas.DIMENSIONS[dimension][name]
    known = {squeezed(word) for word in (*phrases, name)}
    if any(squeezed(word) not in known for word in synonyms):
        raise UserError(f"synonyms of {name!r} in tiny-canvas must be among {list(phrases)}, got {list(synonyms)}.")


def diverse_rows(value: Value, n: int, split: Split, seed: int, avoid: Collection[Value] = ()) -> list[PromptRow]:
    """Compose `n` different rows; the retain prompt has another value of the same dimension.

    `avoid` lists the values that no prompt may show.

    Raises:
        UserError: too few combinations.
    """
    dimension, name = value
    phrases = {
        each: [phrase for key in keys for phrase in canvas.DIMENSIONS[each][key][_HALF[split]]]
        for each, keys in _allowed(value, avoid).items()
    }
    others = phrases.pop(dimension)
    words = [(word, other) for other in others for word in canvas.DIMENSIONS[dimension][name]]

    def compose(scene: Scene, pair: PromptRow) -> PromptRow:
        chosen = dict(zip(phrases, scene, strict=True))
        forget, retain = (canvas.compose(**{**chosen, dimension: phrase}) for phrase in pair)
        return forget, retain

    return draw(generator(seed, split), list(phrases.values()), words, compose, n, f"tiny-canvas {split}")


def uniform_row(value: Value, avoid: Collection[Value] = ()) -> PromptRow:
    """Give one short pair: the value's first phrase against the first other value's.

    Raises:
        UserError: `avoid` leaves nothing to put in its place.
    """
    dimension, name = value
    stand_ins = {each: keys[0] for each, keys in _allowed(value, avoid).items()}
    forget, retain = (_short({**stand_ins, dimension: key}, dimension) for key in (name, stand_ins[dimension]))
    return forget, retain


def _allowed(value: Value, avoid: Collection[Value]) -> dict[str, list[str]]:
    """Values of each dimension that prompts may show; of the concept's own, those that may take its place."""
    allowed = {
        dimension: [key for key in values if (dimension, key) not in {*avoid, value}]
        for dimension, values in canvas.DIMENSIONS.items()
    }
    if not all(allowed.values()):
        raise UserError(f"nothing is left to take the place of {value[1]!r}. Forget fewer concepts at once.")
    return allowed


def _short(values: dict[str, str], dimension: str) -> str:
    """Name a style and a subject; a place or a time only if it is the concept."""
    phrases = {name: canvas.DIMENSIONS[name][key][0] for name, key in values.items()}
    tail = f" {phrases[dimension]}" if dimension in ("place", "time") else ""
    return f"{phrases['style']} {canvas.with_article(phrases['subject'])}{tail}"
