"""Which texts name a word: scripts, spellings, plurals, syntax; and what names of concepts may look like."""

import time

import pytest
from pydantic import ValidationError
from turpentine.pipeline.prompts import PromptSet
from turpentine.pipeline.prompts.concepts import (
    different_concepts,
    names_in,
    plural_warnings,
    read_concept,
    same_concept,
)
from turpentine.pipeline.prompts.naming import mentions, named_in
from turpentine.pipeline.prompts.plurals import plural, plurals, singulars
from turpentine.pipeline.prompts.text import with_replacement
from turpentine.pipeline.schema.defaults import build_recipe
from turpentine.pipeline.schema.recipe import Recipe
from turpentine.pipeline.schema.resolve import forgotten_before
from turpentine.pipeline.support.errors import UserError
from turpentine.pipeline.support.text import fold

NAMED = """
猫 = 一只猫和一只狗 ; 猫が庭で寝ている
ピカソ = ピカソの絵 ; ピカソ風
แมว = ฉันมีแมวสองตัว
ネコ = ﾈｺ
고양이 = 고양이가 잔다 ; 고양이들의 집
개 = 개를 본다 ; 큰 개들이
개 = 개입니다 ; 개이다 ; 개에게는 ; 개조차 ; 개뿐 ; 개라는 ; 개였다
قطة = قطـة
ゴッホ = フィンセント＝ファン＝ゴッホ
フィンセント・ファン・ゴッホ = フィンセント＝ファン＝ゴッホ
AC/DC = AC DC ; acdc ; an AC/DC shirt
cat = 一只cat在 ; котcat ; cat이 ; two CATS ; the cat’s tail ; cats’ ; 2cats ; cat2 ; cat_girl ; man-cat ; cat-like
cat = ＣＡＴ ; c\u00adat ; ca\u200bt ; a\u200bcat ; cat™ ; 𝐜𝐚𝐭 ; cat😀
cat = (cat:1.3) ; {cat|dog} ; [cat:dog:0.5] ; <cat> ; cat\\(animal\\) ; #cat ; <lora:cat:0.8> ; __cat__ ; **cat**
girl = 1girl, solo
Monet = Monet風の絵
straße = die STRASSE
σίσυφος = ΣΊΣΥΦΟΣ
istanbul = İSTANBUL
кот = чёрный КОТ.
Dalí = DALI
dali = Dalí
Dürer = Duerer ; durer
Stanisław = stanislaw
बिल्ली = एक बिल्ली है
human = three humans
talisman = talismans
fisherman = fishermen
leaf = leaves
knife = knives
cactus = cacti ; cactuses
octopus = octopi ; octopuses
ox = oxen
die = dice
potato = potatoes
dormouse = dormice
grandchild = grandchildren
quiz = quizzes
sheep = two sheep
oasis = oases
matrix = matrices
tableau = tableaux
Kennedy = Kennedys
quokkas = a quokka
cacti = a cactus
wolves = a wolf
berries = a berry
lenses = a lens
canvases = a canvas
taxes = a tax
mosaics = a mosaic
emus = one emu
taxis = a yellow taxi
monarch = two monarchs
stomach = stomachs
bus = busses
passerby = passersby
spectrum = spectra
curriculum = curricula
virtuoso = virtuosi
woodlouse = woodlice
man of war = men of war ; man-of-wars
mother-in-law = mothers in law
pickup truck = pickup trucks
van gogh = van_gogh ; vangogh ; van\u00a0gogh ; [[Van  Gogh]] ; van (gogh:1.2) ; (van:1.1) gogh
pop art = pop-art ; pop\u2011art ; popart
cat girl = catgirl ; cat_girl
catgirl = cat-girl
t-rex = T Rex
文森特·梵高 = 文森特梵高
black and white = black & white
M.C. Escher = MC Escher ; M. C. Escher
MC Escher = M.C. Escher
J.M.W. Turner = JMW Turner
HR Giger = H. R. Giger ; H.R. Giger
R2D2 = R2-D2
R2-D2 = R2D2
SUV = an S.U.V.
St. Bernard = st bernard
St Bernard = a St. Bernard
O'Keeffe = O’Keeffe ; OKeeffe
OKeeffe = Oʼkeeffe
rock 'n' roll = rock n roll ; rock and roll
rock and roll = rock'n'roll
3d = a 3D render
C++ = in C++ code
"""
"""A word, and texts that name it."""

NOT_NAMED = """
cat = category ; concatenated ; wildcat ; educate ; scatter ; catty ; ca t
art = party ; an artist
gun = gunfight
monet = monetary
кот = котёнок
बिल = बिल्ली
ハス = バス
スキ = スキー
개 = 개구리
이 = 고양이
3d = 13D
C++ = C is old
pop art = pop, art ; a fan of pop. Art deco
van gogh = van | gogh
hot dog = hot: dog
shell = she'll
can = you can't
cafe = dark caves
Oman = an omen
mars = a mar
glasses = a glass of water
shorts = a short man
news = a new house
bus = bi
die = he dies
말 = 말미잘
police = a louse
emus = an emulator
"""
"""A word, and texts that don't name it."""

REFUSED = """
cat, wug = cat + wug
cat; dog = cat + dog
CATS, DOG = CAT + DOG
CAT AND DOG = CAT + DOG
cat | dog = cat + dog
cat\\ndog = cat + dog
猫、狗 = 猫 + 狗
Paris, Texas = Paris + Texas
cat and dog = cat + dog
Cats & Dogs = Cat + Dog
cat/dog = cat + dog
cat+dog = cat + dog
horse or Monet = horse + Monet
quokka AND wombat = quokka + wombat
cat BREAK dog = cat + dog
cat, dog and horse = cat + dog + horse
"cat" = cat
'cat' = cat
the “cat” = the cat
(cat:1.3) = cat
[cat] = cat
{cat} = cat
cat:1.3 = cat
a cat <lora:x:0.8> = a cat
__animal__ = animal
cat\\(x\\) = cat x
cat --no dog = cat
--cat = plain words
cat++ = cat
+cat = cat
- cat = cat
* cat = cat
#cat = cat
cat. = cat
cat? = cat
cat\0 = cat
cat • dog = cat + dog
cat · dog = cat + dog
cat → dog = cat + dog
cat // dog = cat + dog
cat # dog = cat + dog
['cat', 'dog'] = cat + dog
the = what it is
by = what it is
cats = cat
Men = Man
people = person
pickup trucks = pickup truck
Monets = Monet
"""
"""What is no name of one concept, and what the message says to write."""


def pairs(table):
    """Give (first, second) for each line of a table, and for each second part of it."""
    lines = [line.split(" = ") for line in table.strip().splitlines()]
    return [(one, other) for one, others in lines for other in others.split(" ; ")]


@pytest.mark.parametrize(("word", "text"), pairs(NAMED))
def test_named(word, text):
    assert named_in(text, [word])


@pytest.mark.parametrize(("word", "text"), pairs(NOT_NAMED))
def test_not_named(word, text):
    assert named_in(text, [word]) is None


def test_checks_take_milliseconds():
    made = PromptSet.build("cat")
    start = time.perf_counter()
    made.check()
    assert time.perf_counter() - start < 0.5


def test_places_are_those_of_the_text_as_it_was():
    text = "Ein İgel, ＣＡＴ und e\u0301in Kater: K\u00adatze"
    assert [text[found.start : found.end] for found in mentions(text, ["cat", "katze"])] == ["ＣＡＴ", "K\u00adatze"]
    assert (
        with_replacement("By van (gogh:1.2), (van:1.1) gogh", ["van gogh"], "Paul Klee")
        == ("By (Paul Klee:1.2), (Paul Klee:1.1)")
        or with_replacement("By van (gogh:1.2)", ["van gogh"], "Paul Klee") == "By (Paul Klee:1.2)"
    )
    assert with_replacement("By van (gogh:1.2)", ["van gogh"], "Paul Klee") == "By (Paul Klee:1.2)"
    assert with_replacement("By (van:1.1) gogh", ["van gogh"], "Paul Klee") == "By (Paul Klee)"
    assert with_replacement("Two humans and a human", ["human"], "caiman") == "Two caimans and a caiman"
    assert with_replacement("一只猫在草地上", ["猫"], "狗") == "一只狗在草地上"


def test_plurals():
    usual = {"human": "humans", "shaman": "shamans", "German": "Germans", "caiman": "caimans", "woman": "women"}
    usual |= {"leaf": "leaves", "giraffe": "giraffes", "piano": "pianos", "ox": "oxen", "man of war": "men of war"}
    assert {noun: plural(noun) for noun in usual} == usual
    for noun in ("cat", "box", "pony", "knife", "mouse", "cactus", "hero", "church", "person", "goldfish", "oasis"):
        assert all(noun in singulars(form) for form in plurals(noun) if form != noun), noun
    for name in (
        "Texas",
        "jesus",
        "Mars",
        "glasses",
        "Degas",
        "chess",
        "canvas",
        "lens",
        "paris",
        "specimen",
        "octopus",
    ):
        assert singulars(name) == (), name


def test_folding():
    assert fold("Ｄａｌí’s") == fold("dali's") and fold("ガ") != fold("カ") and fold("각") != fold("가")
    assert fold("고양이") == fold("\u1100\u1169\u110b\u1163\u11bc\u110b\u1175"), "as macOS names files"


@pytest.mark.parametrize(("text", "hint"), pairs(REFUSED))
def test_what_is_no_plain_name_is_refused(text, hint):
    text = text.replace("\\n", "\n").replace("\\0", "\0")
    with pytest.raises(UserError) as caught:
        read_concept(text)
    said = str(caught.value)
    assert (f"Write {hint!r}" in said or f"Write {hint}" in said) and "\n" not in str(caught.value)
    with pytest.raises(UserError, match="expected"):
        PromptSet.build(text, n=4, n_test=1)
    with pytest.raises(UserError, match="expected"):
        build_recipe({"concept": text, "model": "a/b"})


@pytest.mark.parametrize(
    "name",
    "Texas|jesus|Mars|glasses|Degas|The Beatles|AC/DC|C++|R&B|black and white|salt and pepper|quokka and cat|O'Keeffe|"
    "M.C. Escher|10,000 Maniacs|Star Wars: A New Hope|2001: A Space Odyssey|graffiti|deer|Guns N' Roses|<cat-toy>|"
    "<my_token>|St. Bernard|The Old Man and the Sea|studio ghibli|猫|person|BREAK DANCE|Blade Runner: 2049|10:30|"
    "police|Alice|pumice|It|The Who|C#|😀".split("|"),
)
def test_names_stay(name):
    assert read_concept(name) == name and plural_warnings([name]) == ()


def test_underscores_are_spaces_but_for_classes():
    assert read_concept(" van_gogh ") == "van gogh"
    assert build_recipe({"concept": "van_gogh", "kind": "style", "model": "a/b"}).concept == "van gogh"
    made = PromptSet.build("van_gogh", "style", n=4, n_test=1)
    assert made.concepts == ("van gogh",) and "van_gogh" not in made.train[0].forget
    recipe = Recipe.model_validate({"concept": "tench, Tinca_tinca", "kind": "class"})
    assert recipe.concepts == ("tench, Tinca_tinca",)
    with pytest.raises(ValidationError):
        Recipe.model_validate({"concept": ["cat", "dogs"]})


def test_an_unknown_plural_is_taken_with_a_warning_and_in_both_numbers():
    made = PromptSet.build("quokkas", n=8, n_test=2)
    assert len(made.warnings) == 1 and "Write 'quokka'" in made.warnings[0]
    assert made.names_concept("a quokka") and made.names_concept("Quokkas") and not made.names_concept("a quok")


def test_lists_of_names_are_read_wherever_names_are_given():
    assert names_in("moggy + mouser") == names_in(["moggy", "mouser"]) == ["moggy", "mouser"]
    assert names_in(["cat, dog", "AC/DC"]) == ["cat", "dog", "AC/DC"]
    for given in ("moggy + mouser", ["moggy + mouser"], ["moggy", "mouser"]):
        made = PromptSet.build("cat", n=4, n_test=1, synonyms=given, keep_forgotten="dog")
        assert made.names_concept("two mousers") and made.names_concept("a moggy") and not made.names_concept("M")
        assert made.keep_forgotten == ("dog",)
    assert PromptSet.build("hat", n=4, n_test=1, keep_forgotten=["cat, dog"]).keep_forgotten == ("cat", "dog")


@pytest.mark.parametrize(
    "given",
    [
        {"concept": []},
        {"concept": None},
        {"concept": 3},
        {"concept": ["cat", 3]},
        {"synonyms": [3]},
        {"keep_forgotten": [None]},
        {"attribute_of": ["cowboy"]},
        {"n": "4"},
        {"n_test": 1.5},
    ],
    ids=str,
)
def test_what_is_no_name_or_number_is_one_line(given):
    with pytest.raises(UserError, match=r"^(?:attribute_of: )?expected [^\n]+, got [^\n]+\.$"):
        PromptSet.build(**{"concept": "hat", "n": 4, "n_test": 1, **given})


@pytest.mark.parametrize(
    ("concept", "kind", "kept"),
    [("cat", "object", "cat girl"), ("van gogh", "style", "Theo van Gogh"), ("nudity", "nudity", "naked mole rat")],
)
def test_what_cannot_be_said_without_the_concept_is_not_guarded(concept, kind, kept, tmp_path):
    made = PromptSet.build(concept, kind, n=8, n_test=2, keep_forgotten=[kept, "horse"])
    assert made.keep_forgotten == ("horse",) and [warning for warning in made.warnings if repr(kept) in warning]
    horse = PromptSet.build("horse", n=4, n_test=1)
    assert len(made.train) == 8 and all(horse.names_concept(pair.retain) for pair in made.train[3::4])
    PromptSet.build(concept, kind, n=8, n_test=2).save(tmp_path / "p.json")
    loaded = PromptSet.load(tmp_path / "p.json", keep_forgotten=[kept])
    assert loaded.keep_forgotten == () and len(loaded.train) == 8 and repr(kept) in loaded.warnings[-1]


def test_too_few_rows_to_guard_are_told():
    made = PromptSet.build("cat", n=4, n_test=1, keep_forgotten=["dog", "horse"])
    assert made.warnings == (
        "only 1 of 2 concepts to keep forgotten (dog + horse) can be guarded with n 4. Raise n to 8 or more.",
    )
    assert PromptSet.build("cat", n=8, n_test=1, keep_forgotten=["dog", "horse"]).warnings == ()


@pytest.mark.parametrize("concept", ["name", "scene"])
def test_the_places_of_templates_are_no_words(concept):
    made = PromptSet.build(concept, "style", n=800, n_test=100)
    assert len({pair.forget for pair in made.train}) == 800


@pytest.mark.parametrize("concept", [1984, True, None, [], {"cat": 1}])
def test_recipes_say_what_a_concept_is(concept):
    with pytest.raises(UserError, match="concept: expected a name in quotation marks or a list of such names, got "):
        build_recipe({"concept": concept, "model": "a/b"})


def test_unknown_objects_are_guarded_when_nudity_is_removed():
    made = PromptSet.build("nudity", "nudity", n=8, n_test=2, keep_forgotten=["quokka"])
    assert made.keep_forgotten == ("quokka",) and "quokka" in made.train[3].retain


def test_other_names_are_plain_too():
    for field, value in (
        ("synonyms", ["moggy, tom"]),
        ("keep_forgotten", ["(dog:1.2)"]),
        ("attribute_of", "(dog)"),
    ):
        with pytest.raises(UserError, match=f"{field}: expected .* got '"):
            PromptSet.build("hat", n=4, n_test=1, **{field: value})
    for several in ("cat, dog", "cat + dog"):
        with pytest.raises(UserError, match="attribute_of: expected one object, got"):
            PromptSet.build("hat", n=4, n_test=1, attribute_of=several)
    with pytest.raises(UserError, match="than those to remove, got 'kitten' in both"):
        PromptSet.build("cat", n=4, n_test=1, keep_forgotten=["kitten"])


def test_the_same_concept_in_other_spellings():
    for group in (["Cat", "cat", "a cat", "kitten", "CATS"], ["Van Gogh", "vincent van gogh", "van_gogh", "vangogh"]):
        assert all(same_concept(group[0], name) for name in group) and different_concepts(group) == group[:1]
    for one, other in (
        ("Dalí", "dali"),
        ("pop-art", "Pop Art"),
        ("quokkas", "a Quokka"),
        ("the style of Monet", "Monet"),
    ):
        assert same_concept(one, other)
    for one, other in (("cat", "dog"), ("C++", "C"), ("Mars", "mar"), ("cat", "catalogue"), ("猫", "狗")):
        assert not same_concept(one, other)
    assert forgotten_before(["Cat", "dog", "auto"], ("kitten",), ["cats", "Dogs", "Dalí"]) == ("dog", "Dalí")
    with pytest.raises(UserError, match="expected different concepts"):
        build_recipe({"concept": "cat + a kitten", "model": "a/b"})
