"""English nouns in the singular and in the plural.

The library inflect knows more plurals, but takes over a second to import and cannot tell a plural from a name that
ends in s.
"""

import re
from functools import cache

from ..support.text import fold

_IRREGULAR: dict[str, tuple[str, ...]] = {
    "person": ("people", "persons"),
    "child": ("children",),
    "mouse": ("mice",),
    "louse": ("lice",),
    "woodlouse": ("woodlice",),
    "goose": ("geese",),
    "foot": ("feet",),
    "tooth": ("teeth",),
    "ox": ("oxen",),
    "die": ("dice",),
    "brother": ("brothers", "brethren"),
    "penny": ("pennies", "pence"),
    "cherub": ("cherubs", "cherubim"),
    "seraph": ("seraphs", "seraphim"),
    "genus": ("genera",),
    "corpus": ("corpora", "corpuses"),
    "datum": ("data",),
    "medium": ("media", "mediums"),
    "stratum": ("strata",),
    "bacterium": ("bacteria",),
    "aquarium": ("aquariums", "aquaria"),
    "phenomenon": ("phenomena", "phenomenons"),
    "criterion": ("criteria",),
    "automaton": ("automatons", "automata"),
    "cactus": ("cacti", "cactuses"),
    "octopus": ("octopuses", "octopi", "octopodes"),
    "fungus": ("fungi", "funguses"),
    "nucleus": ("nuclei",),
    "alumnus": ("alumni",),
    "hippopotamus": ("hippopotamuses", "hippopotami"),
    "larva": ("larvae", "larvas"),
    "alga": ("algae",),
    "antenna": ("antennas", "antennae"),
    "nebula": ("nebulae", "nebulas"),
    "vertebra": ("vertebrae", "vertebras"),
    "formula": ("formulas", "formulae"),
    "supernova": ("supernovae", "supernovas"),
    "paparazzo": ("paparazzi",),
    "virtuoso": ("virtuosos", "virtuosi"),
    "graffito": ("graffiti",),
    "kibbutz": ("kibbutzim",),
    "bus": ("buses", "busses"),
    "staff": ("staffs", "staves"),
    "passerby": ("passersby",),
    "château": ("châteaux", "châteaus"),
    **{
        noun: (noun, f"{noun}s")
        for noun in "sheep deer moose bison swine salmon trout shrimp squid elk reindeer aircraft spacecraft "
        "hovercraft watercraft".split()
    },
    "fish": ("fish", "fishes"),
    "series": ("series",),
    "species": ("species",),
}
"""Singular -> its plurals, the usual one first. Those of one letter more than the rules give are not needed here."""

_ENDINGS = ("person", "child", "mouse", "goose", "foot", "tooth", "fish", "craft")
"""Irregular nouns that others end in: grandchild, dormouse, goldfish."""

_MANS = re.compile(
    r"(?:\w*human|german|roman|norman|shaman|talisman|ottoman|caiman|cayman|brahman|hetman|ataman|dolman|desman|"
    r"mussulman|turkoman|toman|oman|walkman)$"
)
"""Words in -man that are no men."""

_VES = re.compile(r"(?:leaf|loaf|thief|sheaf|[ch]alf|elf|olf|hoof|[ck]arf|harf|dwarf)$|(?:kn|w|l)ife$")

_OES = frozenset("potato tomato hero echo torpedo volcano mosquito mango buffalo domino tornado cargo".split())

_IES = frozenset(
    "cookie movie zombie selfie birdie genie brownie hippie pixie prairie rookie collie calorie magpie necktie junkie "
    "smoothie hoodie lassie budgie doggie newbie yuppie barbie kiddie caddie hottie techie dearie foodie".split()
)
"""Nouns in -ie, which look like those in -y in the plural."""

_HARD_CH = re.compile(r"(?:[ginr]arch|omach|epoch|loch|eunuch|tech)$")
"""Ends that are spoken with a k, and have a plural in -s: monarchs, stomachs."""

_COUNTED = frozenset(
    "mosaics comics critics relics clinics fabrics picnics medics mechanics tunics attics lyrics topics mystics cynics "
    "emus gnus menus gurus haikus tutus bijous caribous "
    "skis taxis kiwis yetis bikinis emojis saris safaris zucchinis tsunamis rabbis hippis martinis paninis "
    "plateaus bureaus tableaus chateaus gateaus".split()
)
"""Plurals that end as names and singulars do: physics, octopus, iris."""

_NOT_MEN = frozenset(
    "amen omen semen ramen specimen abdomen acumen stamen hymen lumen regimen yemen bitumen carmen cyclamen dolmen "
    "rumen albumen gravamen examen cermen".split()
)

_MANY_ONLY = frozenset(
    "glasses sunglasses eyeglasses spectacles goggles binoculars scissors pliers tweezers tongs shears trousers pants "
    "jeans leggings tights shorts pyjamas pajamas overalls dungarees clothes underpants panties briefs knickers "
    "sweatpants headphones earphones stairs thanks".split()
)
"""Nouns that are worn or used in pairs, or are always many."""

_NO_PLURALS = _MANY_ONLY | frozenset(
    "gallows barracks headquarters crossroads news blues rabies diabetes herpes billiards darts checkers pumice "
    # words that end so
    "gas lens alias atlas bias canvas pancreas chaos cosmos rhinoceros albatros pathos ethos eros kudos thermos "
    "asbestos christmas pampas vegas madras corps mass yes does goes has was its always cyclops "
    # names
    "texas kansas arkansas dallas honduras bahamas mars degas rubens hals koons james charles thomas lucas nicolas "
    "nicholas jonas judas midas silas elias matthias tobias andreas douglas barnabas hermes aries achilles hercules "
    "ramses moses socrates archimedes aristoteles sophocles euripides pericles pleiades andes alps philippines "
    "netherlands wales athens naples brussels cannes versailles arles angeles maldives seychelles laos delos patmos "
    "carlos marcos ramos santos thanos kronos helios amos niklas hans jens lars mads fans anders williams adams jones "
    "hughes davies evans roberts richards peters stevens simmons sanders holmes hopkins "
    "jenkins collins robbins dickens mercedes adidas legos sims beatles simpsons smurfs ramones states".split()
)
"""Words and names that end as plurals do and are none."""

_OF = frozenset("of in at by with on to for de du la up and".split())
"""Behind these stands no head of a phrase: a man of war, a mother-in-law."""


@cache
def plurals(noun: str) -> tuple[str, ...]:
    """Give the plurals of a noun, folded, the usual one first.

    >>> plurals("human")[0], plurals("cameraman")[0], plurals("cactus"), plurals("wolf")
    ('humans', 'cameramen', ('cacti', 'cactuses'), ('wolves', 'wolfs'))
    """
    noun = fold(noun)
    irregular = {fold(singular): many for singular, many in _IRREGULAR.items()}
    if noun in irregular:
        return tuple(map(fold, irregular[noun]))
    found: list[str] = []
    for ending in _ENDINGS:
        if noun.endswith(ending):
            many = _IRREGULAR.get(ending, (ending,))
            found += [noun.removesuffix(ending) + form for form in many]
    if noun.endswith("man"):
        men, mans = f"{noun[:-2]}en", f"{noun}s"
        found += [mans] if men in _NOT_MEN else [mans, men] if _MANS.match(noun) else [men, mans]
    if _VES.search(noun):
        found.append(f"{re.sub('fe?$', '', noun)}ves")
    if noun.endswith("sis") or noun == "axis":
        found.append(f"{noun[:-2]}es")
    if re.search(r"[aeiou]z$", noun):
        found.append(f"{noun}zes")
    if re.search(r"[^aeiou]y$|quy$", noun):
        found += [f"{noun[:-1]}ies", f"{noun}s"]
    elif re.search(r"(?:[sxz]|[cs]h)$", noun):
        found += [f"{noun}s"] if _HARD_CH.search(noun) else [f"{noun}es"]
    elif noun.endswith("o"):
        found += [f"{noun}es", f"{noun}s"] if noun in _OES else [f"{noun}s", f"{noun}es"]
    else:
        found.append(f"{noun}s")
    found += _learned(noun)
    return tuple(dict.fromkeys(found))


def _learned(noun: str) -> list[str]:
    """Plurals as Latin and French have them."""
    found = []
    if noun.endswith("us") and len(noun) > 4:
        found.append(f"{noun[:-2]}i")
    if re.search(r"(?:i|tr|ul|nd|rem)um$", noun):
        found.append(f"{noun[:-2]}a")
    if noun.endswith("a"):
        found.append(f"{noun}e")
    if noun.endswith("eau"):
        found.append(f"{noun}x")
    if re.search(r"[ei]x$", noun):
        found.append(f"{noun[:-2]}ices")
    return found


@cache
def _irregular_singulars() -> dict[str, str]:
    return {fold(form): fold(noun) for noun, many in _IRREGULAR.items() if noun not in many for form in many}


@cache
def singulars(word: str) -> tuple[str, ...]:
    """Give the singulars that a word may be a plural of, folded, the likeliest first; none if it is no plural.

    >>> singulars("quokkas"), singulars("men"), singulars("glasses"), singulars("Mars"), singulars("octopus")
    (('quokka',), ('man',), (), (), ())
    """
    word = fold(word)
    known = _irregular_singulars().get(word)
    if known is not None:
        return (known,)
    if word in _COUNTED:
        return (word[:-1],)
    if word in _NO_PLURALS:
        return ()
    for ending in _ENDINGS:
        for form in _IRREGULAR.get(ending, ()):
            if form != ending and len(word) > len(form) and word.endswith(fold(form)):
                return (word.removesuffix(fold(form)) + ending,)
    if word.endswith("men") and len(word) > 2 and word not in _NOT_MEN:
        return (f"{word[:-2]}an",)
    if len(word) < 4 or not re.search(r"(?<![suiaeo'])s$|[aeo]s$", word) or word.endswith("ics"):
        return ()
    return tuple(guess for guess in dict.fromkeys(_guesses(word)) if word in plurals(guess))


def _guesses(word: str) -> list[str]:
    """What a plural in -s may come from, the likeliest first."""
    plain, stem = word[:-1], word[:-3]
    if word.endswith("ses") and word[:-2] in _NO_PLURALS | {"alias"}:
        return [word[:-2]]
    if word.endswith("axes") and not re.search(r"(?:^|ck|le)axes$", word):
        return [word[:-2], plain]
    if word.endswith("ies"):
        return [plain, f"{stem}y"] if plain in _IES or len(word) < 5 else [f"{stem}y", plain]
    if word.endswith("zzes"):
        return [stem, word[:-2]]
    if re.search(r"(?:ss|sh|ch|[^a]x|us|is|o)es$", word):
        return [word[:-2], plain]
    if word.endswith("ves"):
        return [*(one for one in (f"{stem}f", f"{stem}fe") if _VES.search(one)), plain]
    if re.search(r"(?:tr|rt|d)ices$", word):
        return [f"{word[:-4]}ix", f"{word[:-4]}ex", plain]
    return [plain, f"{word[:-2]}is"] if word.endswith("ses") else [plain]


def head(words: list[str]) -> int:
    """Give the place of the word that is inflected in a phrase: the last, or the one before "of" and the like.

    >>> head(["pickup", "truck"]), head(["man", "of", "war"])
    (1, 0)
    """
    inner = next((place for place, word in enumerate(words) if place and word in _OF), len(words))
    return inner - 1


def always_many(noun: str) -> bool:
    """Tell whether a noun phrase has no singular, so that no "a" stands before it.

    >>> always_many("red sunglasses"), always_many("glass")
    (True, False)
    """
    words = fold(noun).split()
    return bool(words) and words[head(words)] in _MANY_ONLY


def plural(noun: str) -> str:
    """Give the plural of a noun phrase.

    >>> [plural(noun) for noun in ("fox", "bird", "pony", "person", "cameraman", "human", "man of war")]
    ['foxes', 'birds', 'ponies', 'people', 'cameramen', 'humans', 'men of war']
    """
    words = noun.split(" ")
    place = head([word.lower() for word in words])
    words[place] = respelled(words[place], plurals(words[place])[0])
    return " ".join(words)


def respelled(word: str, form: str) -> str:
    """Write a folded form of a word with the capitals and accents of the word.

    >>> respelled("Château", "chateaux")
    'Châteaux'
    """
    same = 0
    for ours, theirs in zip(fold(word), form, strict=False):
        if ours != theirs:
            break
        same += 1
    return word[:same] + form[same:]
