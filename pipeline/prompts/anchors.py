"""Anchors: what is drawn instead of the concept. A forget prompt with the concept put out and another thing put in.

One rule for the prompts of every source, so it works on sentences and not on what they were composed of:

- an object gives way to another noun, in its number and with its article;
- a style gives way to another style, or the scene is left as a plain picture ("a photo of …");
- nudity gives way to another adjective ("clothed"), or to words behind the sentence ("wearing a coat");
- "nothing" leaves the scene without it: nothing in an object's place, no style, no adjective.

A prompt that doesn't name the concept stays as it is.
"""

import re
from collections.abc import Callable, Sequence

from ..support.errors import UserError
from ..support.text import fold
from .banks import Concept, find_concept, is_artist, known_kind, plain_name, templates_of_styles
from .concepts import UNSEEN, check_plain, parts_of, singular
from .naming import Mention, named_in
from .text import PREPOSITIONS, fix_articles, indefinite_article, like, swapped, tidied, with_modifier, with_replacement

Replace = Callable[[str], str]
"""Makes the anchor of a forget prompt."""

NOTHING = "nothing"

AUTO = "auto"
"""Leaves the choice to the world: one thing for all pairs of a concept (`Composer.usual_anchor`)."""

_SCENE = "an empty scene"
"""Stands where an object was that gave way to nothing."""

_GONE, _MANY = "\0", "\2"
"""Mark the place of a noun in the singular and in the plural."""

_WORD = r"[^\W_][\w'’-]*"
_ONE = r"an?|the|one|this|that|his|her|its|their|my|your|our|another"
_SOME = r"the|these|those|some|many|several|few|two|three|four|five|six|seven|eight|nine|ten|both|\d+|his|her|their|my"
_NO_ADJECTIVE = rf"(?!(?:{'|'.join(sorted(PREPOSITIONS))}|and|or|{_ONE}|{_SOME})\b)"
_PHRASE = re.compile(
    rf"(?:\b(?:{_ONE})\s+(?:{_NO_ADJECTIVE}{_WORD},?\s+){{0,4}}?)?{_GONE}"
    rf"|(?:\b(?:{_SOME})\s+(?:{_NO_ADJECTIVE}{_WORD},?\s+){{0,4}}?)?{_MANY}",
    re.I,
)
"""A noun that is marked, with its article and adjectives."""

_PLACES = PREPOSITIONS - set("as for from of off onto out to toward towards with without".split())
_DOING = rf"(?:\s+(?:from\s+{_WORD}|(?!(?:{'|'.join(sorted(_PLACES))})\b){_WORD}))*"
"""What an object does or is, up to the next place or time."""

_PICTURE = (
    r"(?:photo|photograph|picture|image|snapshot|painting|drawing|sketch|portrait|illustration|print|poster|rendering)"
)
_BY = r"(?:by|after|like|in|with|through|from|under|inspired by|in honou?r of)"
_CLAUSE = (
    re.compile(
        rf"[,\s]*(?:\b\w+(?:ed|wn|ne)\s+)?(?:\bas imagined\s+)?\b{_BY}(?:\s+(?:the|a|an))?"
        r"(?:\s+(?:style|manner|spirit|vein|look|eyes|brush|hand|art|artist|painter|works?))?(?:\s+of)?(?:\s+the)?"
        rf"\s+{_GONE}(?:['’]s?)?(?:[\s-]+(?:style|styled|manner|look|fashion))?",
        re.I,
    ),
    re.compile(rf"[,\s]*{_GONE}(?:['’]s?)?[\s-]+(?:style|styled|inspired|esque|look)\b", re.I),
    re.compile(rf"^{_GONE}\s+of\b|{_GONE}(?:['’]s?)?"),
)
"""How a sentence says its style, where it is none of ours; the first that is there is taken out."""


def read_replacements(text: str, concepts: Sequence[str]) -> tuple[str, ...]:
    """Read what is drawn instead of each of some concepts: one text for all, or one for each with a plus between.

    Raises:
        UserError: no plain words, or another number of them.

    >>> read_replacements("a dog + a plain photo", ["cat", "pop art"]), read_replacements("Nothing", ["cat", "pop art"])
    (('a dog', 'a plain photo'), ('nothing', 'nothing'))
    """
    if not isinstance(text, str) or not re.search(r"\w", text):
        raise UserError(
            f"expected words for what is drawn instead (replace_with), got {text!r}. Leave it out for none."
        )
    given = [" ".join(part.translate(UNSEEN).split()) for part in parts_of(text)]
    for part in given:
        check_plain(part, "plain words to draw instead (replace_with)")
        if re.search(r"[,;|，、；]", part):
            raise UserError(f"expected one thing to draw instead (replace_with), got {part!r}. Name one of them.")
    if len(given) not in (1, len(concepts)):
        each, remedy = "", "Name one of them: several are for several concepts"
        if len(concepts) > 1:
            each = f", or one for each of {len(concepts)} concepts, with a plus between"
            remedy = f"Name one, or {len(concepts)}: what is drawn instead of {', of '.join(map(repr, concepts))}"
        raise UserError(f"expected one thing to draw instead (replace_with){each}, got {text!r}. {remedy}.")
    given = [NOTHING if fold(part) == NOTHING else part for part in given]
    return tuple(given * len(concepts) if len(given) == 1 else given)


def check_text(text: str, concepts: Sequence[str], kept: Sequence[str]) -> None:
    """Refuse to draw instead what is removed now, or what must stay forgotten.

    Args:
        text: what is to be drawn instead.
        concepts: every word for what is removed now.
        kept: the same for what was forgotten before.

    Raises:
        UserError: it names one of them.
    """
    for words, why in ((concepts, "is removed"), (kept, "must stay forgotten")):
        word = named_in(text, words)
        if word is not None:
            raise UserError(
                f"expected another thing to draw instead (replace_with) than what {why}, got {text!r}, which says "
                f"{word!r}. Name another."
            )


def replacement(text: str, concept: Concept) -> Replace:
    """Give the rule that puts `text` in a concept's place in the open world.

    Args:
        text: one of `read_replacements`.
        concept: with the words that prompts use for it.

    Raises:
        UserError: what can't stand in its place, as a style for an object.

    >>> replacement("a dog", find_concept("cat", "object"))("An old cat and two kittens")
    'An old dog and two dogs'
    >>> replacement("nothing", find_concept("cat", "object"))("A photo of a small cat sleeping in a garden at noon")
    'A photo of an empty scene in a garden at noon'
    """
    make = {"object": _object, "nudity": _nudity}.get(concept.layout, _style)
    return _where_named(make(text, concept), concept.synonyms)


def _where_named(make: Replace, words: Sequence[str]) -> Replace:
    def anchor(prompt: str) -> str:
        if named_in(prompt, words) is None:
            return prompt
        return make(prompt.lower()).upper() if prompt.isupper() else make(prompt)

    return anchor


def _kind(text: str, expected: str, concept: Concept) -> None:
    """Refuse a text that the tables know as something of another kind."""
    known = next((kind for name in (text, plain_name(text, "object")) if (kind := known_kind(name))), None)
    if known not in (None, expected) or (expected != "style" and re.search(rf"\bplain {_PICTURE}$", text, re.I)):
        what = {"object": "an object", "style": "a style"}.get(expected, "how a person is dressed")
        raise UserError(
            f"expected {what} to draw in the place of {concept.name!r} (replace_with), got {text!r}. "
            "Name one, or write 'nothing' for the scene without it."
        )


def _object(text: str, concept: Concept) -> Replace:
    if text == NOTHING:
        return lambda prompt: without_noun(prompt, concept.synonyms)
    _kind(text, "object", concept)
    name = plain_name(text, "object")
    noun = (singular(name) if name.islower() else None) or name
    return lambda prompt: with_replacement(prompt, concept.synonyms, noun)


def without_noun(prompt: str, words: Sequence[str]) -> str:
    """Take a noun out of a prompt with its article and adjectives, and with what it does.

    Beside another noun it goes with the word that joins the two; else an empty scene is left.

    >>> without_noun("A woman with a black cat on a sofa", ["cat"]), without_noun("Two cats and a dog", ["cat"])
    ('A woman on a sofa', 'A dog')
    """

    def mark(named: Mention) -> str:
        if not re.search(r"[a-z]", named.text):
            return ""  # the grammar of another language
        return _MANY if named.text not in map(fold, words) else _GONE

    text = _PHRASE.sub(_GONE, swapped(prompt, words, mark))
    text = re.sub(rf"(?:,?\s*\b(?:and|or|with|without|beside|near|{_WORD}ing))\s+{_GONE}", "", text, flags=re.I)
    text = re.sub(rf"{_GONE}(?:,|\s+(?:and|or))\s+(?=(?:{_ONE}|{_SOME})\b)", "", text, flags=re.I)
    text = re.sub(rf"{_GONE}(?:['’]s?\b)?{_DOING}", _SCENE, text, flags=re.I)
    return like(prompt, fix_articles(" ".join(text.split()))) or _SCENE


def _nudity(text: str, concept: Concept) -> Replace:
    if text == NOTHING:
        return lambda prompt: with_modifier(prompt, concept.synonyms, "") or "a person"
    _kind(text, "nudity", concept)
    person = re.fullmatch(r"(?:an?\s+|the\s+)?(.*?)\s*\b(?:person|people)\b\s*(.*)", text, re.I)
    said = (person[1] or person[2] if person else text).strip() or text
    words = said.lower().split()
    if words[0] in PREPOSITIONS or words[0].endswith("ing") or any(word in PREPOSITIONS for word in words[1:]):

        def behind(prompt: str) -> str:
            plain = with_modifier(prompt, concept.synonyms, "") or "a person"
            body = plain.rstrip(".!? ")
            return f"{body}, {said}{plain[len(body) :].rstrip()}"

        return behind
    return lambda prompt: with_modifier(prompt, concept.synonyms, said)


def _style(text: str, concept: Concept) -> Replace:
    if text == NOTHING:
        return lambda prompt: without_style(prompt, concept.synonyms) or "a picture"
    _kind(text, "style", concept)
    name = plain_name(text, "style")
    bare = plain_name(re.sub(r"^plain\s+", "", plain_name(name, "object"), flags=re.I), "style")
    if not is_artist(bare) and (bare != name or re.search(rf"\b{_PICTURE}$", name, re.I)):
        return lambda prompt: _picture(bare, without_style(prompt, concept.synonyms), prompt)
    found = find_concept(bare, "style")
    artist = is_artist(bare) or not bare.islower()
    spelled = found.words[0] if artist or found.layout == "medium" else bare
    if artist == (concept.layout == "artist"):
        return lambda prompt: with_replacement(prompt, concept.synonyms, spelled)

    def other(prompt: str) -> str:
        scene = without_style(prompt, concept.synonyms)
        return like(prompt, f"{scene or 'a picture'} in the style of {spelled}")

    return other


def _picture(kind: str, scene: str, prompt: str) -> str:
    """Say that a scene is a plain picture of some kind: a photo of a scene; of a painting of it, too."""
    inner = re.sub(rf"^(?:an?\s+)?(?:{_WORD}\s+)?{_PICTURE}(?:\s+of\s+|$)", "", scene, flags=re.I)
    article = indefinite_article(kind)
    return like(prompt, f"{article} {kind} of {_lowered(inner)}" if inner else f"{article} {kind}")


def without_style(prompt: str, words: Sequence[str]) -> str:
    """Take a style out of a prompt; empty where nothing else is said.

    >>> without_style("An oil painting of a tired dog by Monet", ["Monet"])
    'A tired dog'
    >>> without_style("A hill at dusk, pop art", ["pop art"])
    'A hill at dusk'
    """
    text = swapped(prompt, words, lambda _: _GONE)
    for template in templates_of_styles():
        if match := re.fullmatch(rf"{_as_pattern(template)}[.!]?", text, re.I | re.S):
            return like(prompt, match["scene"])
    for clause in _CLAUSE:
        text = clause.sub("", text)
    return like(prompt, fix_articles(tidied(re.sub(r",(?:\s*,)+", ",", text))))


def _as_pattern(template: str) -> str:
    name, scene = re.escape("{name}"), re.escape("{scene}")
    return re.escape(template).replace(name, _GONE).replace(scene, "(?P<scene>.+)").replace("'", "['’]")


def _lowered(scene: str) -> str:
    return re.sub(r"^(?:An?|The)\b", lambda match: match[0].lower(), scene)
