"""Prompt sets: sentences, pairs, splits, files and every message."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from turpentine.pipeline.prompts import EvaluationPrompt, PromptPair, PromptSet, load_prompts, synonyms_of
from turpentine.pipeline.prompts.banks import find_concept, groups, template_banks
from turpentine.pipeline.prompts.naming import named_in
from turpentine.pipeline.prompts.text import (
    fix_articles,
    indefinite_article,
    with_replacement,
    without_modifier,
)
from turpentine.pipeline.support.errors import UserError
from turpentine.pipeline.worlds import tiny_canvas as canvas

OPEN = [("nudity", "nudity"), ("van gogh", "style"), ("pixel art", "style"), ("cat", "object"), ("quokka", "object")]
SUBJECTS_AND_STYLES = [(value, "object") for value in canvas.SUBJECTS] + [(value, "style") for value in canvas.STYLES]
PLACES_AND_TIMES = [(value, "object") for value in (*canvas.PLACES, *canvas.TIMES)]


def rows(pairs):
    return {(pair.forget, pair.retain) for pair in pairs}


# Articles and words


@pytest.mark.parametrize(
    "phrase",
    [
        "an anxious person",
        "a joyful cat",
        "an hour-long eclipse",
        "a unicorn",
        "a unique teapot",
        "a European town",
        "an unclad person",
        "an unimportant thing",
        "an unidentified bird",
        "a used car",
        "an usher",
        "a one-eyed cat",
        "an honest face",
        "an heirloom",
        "a ukulele",
        "an urn",
        "a uranium rod",
        "an 8-bit sprite",
        "an 18th-century chair",
        "a 118 bus",
        "an SUV",
        "a UFO",
        "an X-ray",
        "a U-turn",
        "an LED lamp",
        "an Édouard",
        "an umbrella",
    ],
)
def test_article(phrase):
    article, word = phrase.split(" ", 1)
    assert indefinite_article(word) == article
    for wrong in ("a", "an"):
        assert fix_articles(f"{wrong} {word}") == phrase
        assert fix_articles(f"{wrong.capitalize()} {word}") == f"{article.capitalize()} {word}"


def test_words_are_matched_whole_and_in_the_plural():
    for prompt in ("two CATS", "a cat's tail", "puss and kitties", "a Kitten.", "the man-cat"):
        assert named_in(prompt, ["cat", "kitty", "kitten"]), prompt
    for prompt in ("a catalogue", "concatenate", "scattered"):
        assert named_in(prompt, ["cat"]) is None
    assert named_in("By Paul Cezanne", ["Paul Cézanne"]) and named_in("CÉZANNE'S apples", ["Cezanne"])
    assert named_in("two cosmonauts and spacewomen", ["spacewoman"]) == "spacewomen"
    assert named_in("many people", ["person"]) and named_in("space  travellers", ["space traveller"])
    assert named_in("boxes", ["box"]) and not named_in("anything", [])


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a naked person", "a person"),
        ("An undressed woman", "A woman"),
        ("a naked old man", "an old man"),
        ("a nude on a sofa", "a person on a sofa"),
        ("Naked people at the beach", "People at the beach"),
        ("a naked, unclad person", "a person"),
        ("a naked and bare uncle", "an uncle"),
        ("a woman posing nude", "a woman posing"),
        ("a woman standing naked in a forest", "a woman standing in a forest"),
        ("a scene of nudity", "a scene"),
        ("nude", ""),
    ],
)
def test_adjectives_are_taken_out(prompt, expected):
    assert without_modifier(prompt, synonyms_of("nudity", "nudity")) == expected


def test_nouns_are_replaced():
    assert with_replacement("A cat and an old kitten", ["cat", "kitten"], "owl") == "An owl and an old owl"
    assert with_replacement("cats", ["cat"], "fox") == "foxes"
    assert with_replacement("in Van Gogh's style", ["van gogh"], "Claude Monet") == "in Claude Monet's style"


def test_banks_share_no_value_and_read_well():
    for concept, kind in OPEN:
        found = find_concept(concept, kind)
        for dimension, bank in template_banks(found).items():
            assert not {value.lower() for value in bank.train} & {value.lower() for value in bank.test}, dimension
            assert len(set(bank.train)) == len(bank.train) >= 4
    assert template_banks(find_concept("nudity", "nudity")).keys() == {"mood", "activity", "place", "time"}
    for layout in ("object", "artist", "medium", "nudity"):
        words = [word.lower() for group in groups(layout) for word in group]
        assert len(words) == len(set(words))


def test_synonyms():
    assert set(synonyms_of("van gogh", "style")) >= {"van gogh", "vincent van gogh", "vincent willem van gogh"}
    assert synonyms_of("a Cat")[0] == "cat" and "kitten" in synonyms_of("cat")
    assert "cosmonaut" in synonyms_of("astronaut")
    assert synonyms_of("Quokka") == ("quokka",)
    assert synonyms_of("the style of Monet", "style") == synonyms_of("monet style", "style")
    assert PromptSet.build("cat", n=9, n_test=1, synonyms=["moggy"]).synonyms == (*synonyms_of("cat"), "moggy")


# Open world


@pytest.mark.parametrize(("concept", "kind"), [("nudity", "nudity"), ("Van Gogh", "style"), ("cat", "object")])
def test_the_papers_counts(concept, kind):
    made = PromptSet.build(concept, kind)
    assert (len(made.train), len(made.test)) == (800, 100)
    assert len(rows(made.train)) == 800 and len(rows(made.test)) == 100
    assert made.warnings == () and made.source == "template"


def test_nudity_has_the_papers_structure():
    made = PromptSet.build("nudity", "nudity")
    for pair in made.train + made.test:
        assert without_modifier(pair.forget, made.synonyms) == pair.retain
        assert pair.forget.split()[0] in ("A", "An") and " person " in pair.retain and pair.retain.endswith(".")
    said = {word for pair in made.train for word in made.synonyms if named_in(pair.forget, [word])}
    assert said == {"nude", "naked", "undressed", "unclad", "bare"}
    assert len(rows(made.train)) == len(set(made.retain_train))


@pytest.mark.parametrize(("concept", "kind"), [pair for pair in OPEN if pair[1] != "nudity"])
def test_rows_differ_at_the_concept_only(concept, kind):
    made = PromptSet.build(concept, kind, n=300, n_test=60)
    found = find_concept(concept, kind)
    banks = template_banks(found)
    for split, pairs in (("train", made.train), ("test", made.test)):
        others = getattr(banks["other"], split)
        for pair in pairs:
            results = {with_replacement(pair.forget, found.synonyms, other) for other in others}
            assert pair.retain in results
            assert fix_articles(pair.forget) == pair.forget


def test_every_artist_but_the_concept_is_retained():
    text = " ".join(PromptSet.build("Monet", "style").retain_train)
    assert "Vincent van Gogh" in text and "Zurvelka Phint" in text and "Monet" not in text


def test_bank_values_that_name_the_concept_are_left_out():
    made = PromptSet.build("beach", n=500)
    assert not any("beach" in prompt.lower() for prompt in made.retain_train)
    made = PromptSet.build("sports car", n=500)
    assert not any(" car " in prompt for prompt in made.retain_train)


def values_used(made, split):
    """Which bank values occur in the prompts of a split, by dimension."""
    pairs = getattr(made, split)
    found = find_concept(made.concept, made.kind)
    text = "\n".join(prompt for pair in pairs for prompt in (pair.forget, pair.retain)).lower()
    banks = template_banks(found)
    return {
        (dimension, value)
        for dimension, bank in banks.items()
        if dimension != "template"
        for value in (*bank.train, *bank.test)
        if named_in(text, [value])
    }


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32), concept=st.sampled_from(OPEN))
def test_splits_are_disjoint_in_every_dimension(seed, concept):
    made = PromptSet.build(*concept, n=80, n_test=40, seed=seed)
    assert not values_used(made, "train") & values_used(made, "test")
    assert not rows(made.train) & rows(made.test)
    assert not any(made.names_concept(prompt) for prompt in made.retain_train + made.retain_test)
    assert all(made.names_concept(prompt) for prompt in made.forget_train + made.forget_test)


def test_seed_decides_everything():
    first, again, other = (PromptSet.build("cat", n=50, n_test=20, seed=seed) for seed in (3, 3, 4))
    assert first == again and rows(first.train) != rows(other.train)
    larger = PromptSet.build("cat", n=70, n_test=30, seed=3)
    assert (larger.train[:50], larger.test[:20]) == (first.train, first.test)


@pytest.mark.parametrize(
    ("concept", "kind", "pair"),
    [
        ("nudity", "nudity", ("a photo of a nude person", "a photo of a person wearing clothes")),
        ("cat", "object", ("a photo of a cat", "a photo of a dog")),
        ("puppy", "object", ("a photo of a puppy", "a photo of a cat")),
        ("unicorn", "object", ("a photo of a unicorn", "a photo of a dog")),
        ("Van Gogh", "style", ("a painting in the style of Van Gogh", "a painting")),
    ],
)
def test_uniform(concept, kind, pair):
    made = PromptSet.build(concept, kind, n=7, n_test=20, structure="uniform")
    assert [(row.forget, row.retain) for row in made.train] == [pair] * 7
    assert made.test == PromptSet.build(concept, kind, n=50, n_test=20).test


# tiny-canvas


@pytest.mark.parametrize(("concept", "kind"), SUBJECTS_AND_STYLES + PLACES_AND_TIMES)
def test_every_value_of_tiny_canvas(concept, kind):
    made = PromptSet.build(concept, kind, world="tiny-canvas")
    dimension, value = canvas.dimension_of(concept)
    assert len(rows(made.train)) == 800 and len(rows(made.test)) == 100
    phrases = canvas.DIMENSIONS[dimension][value]
    for split, pairs in (("train", made.train), ("test", made.test)):
        retained = set()
        for pair in pairs:
            forget, retain = canvas.labels_of(pair.forget), canvas.labels_of(pair.retain)
            assert len(forget) == len(retain) == 4
            assert forget[dimension] == value != retain[dimension]
            assert {k: v for k, v in forget.items() if k != dimension} == {
                k: v for k, v in retain.items() if k != dimension
            }
            assert not named_in(pair.retain, made.synonyms)
            retained.add(retain[dimension])
        assert retained == set(canvas.DIMENSIONS[dimension]) - {value}, split
    forgotten = {phrase for prompt in made.forget_test for phrase in phrases if phrase in prompt}
    assert forgotten == set(phrases)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), concept=st.sampled_from(SUBJECTS_AND_STYLES))
def test_tiny_canvas_phrases_belong_to_one_split(seed, concept):
    made = PromptSet.build(*concept, n=60, n_test=40, seed=seed, world="tiny-canvas")
    dimension, value = canvas.dimension_of(concept[0])
    for name, values in canvas.DIMENSIONS.items():
        for key, phrases in values.items():
            if (name, key) == (dimension, value):
                continue
            for split, foreign in (("train", phrases[2:]), ("test", phrases[:2])):
                prompts = [prompt for pair in getattr(made, split) for prompt in (pair.forget, pair.retain)]
                for prompt in prompts:
                    if canvas.labels_of(prompt)[name] == key:
                        longest = max((phrase for phrase in phrases if f" {phrase} " in f" {prompt} "), key=len)
                        assert longest not in foreign


def test_tiny_canvas_names():
    assert "photo" not in PromptSet.build("photo", "style", n=9, n_test=1, world="tiny-canvas").synonyms
    kitten = PromptSet.build("kitten", n=9, n_test=1, world="tiny-canvas")
    assert kitten.synonyms == ("cat", "kitten", "tabby", "feline")
    assert PromptSet.build("astronaut", "nudity", n=9, n_test=1, world="tiny-canvas").kind == "nudity"
    assert kitten.synonyms == PromptSet.build("cat", n=9, n_test=1, world="tiny-canvas", synonyms=["Feline"]).synonyms
    assert (
        kitten.names_concept("two cats") and kitten.names_concept("cat_girl") and not kitten.names_concept("category")
    )


@pytest.mark.parametrize(
    ("concept", "kind", "pair"),
    [
        ("astronaut", "object", ("a photo of an astronaut", "a photo of a cat")),
        ("cat", "object", ("a photo of a cat", "a photo of an astronaut")),
        ("pop art", "style", ("pop art of an astronaut", "a photo of an astronaut")),
        ("sea", "object", ("a photo of an astronaut in the sea", "a photo of an astronaut by a brick wall")),
    ],
)
def test_tiny_canvas_uniform(concept, kind, pair):
    made = PromptSet.build(concept, kind, n=3, n_test=10, world="tiny-canvas", structure="uniform")
    assert [(row.forget, row.retain) for row in made.train] == [pair] * 3
    assert made.test == PromptSet.build(concept, kind, n=30, n_test=10, world="tiny-canvas").test


# Messages


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"concept": "  "}, "concept must be at least one word, got '  '"),
        ({"concept": " ", "world": "tiny-canvas"}, "concept must be at least one word"),
        ({"concept": "cat", "kind": "animal"}, r"kind must be one of \['object', 'style', 'nudity'\], got 'animal'"),
        ({"concept": "cat", "world": "moon"}, "world must be one of"),
        ({"concept": "cat", "structure": "even"}, "structure must be one of"),
        ({"concept": "cat", "source": "oracle"}, "source must be one of"),
        ({"concept": "cat", "source": "llm"}, "must be given together"),
        ({"concept": "cat", "n": 0}, "expected whole numbers, n of at least 1"),
        ({"concept": "cat", "n_test": -1}, "n_test of at least 0"),
        ({"concept": "cat", "kind": "style"}, "expected a concept of kind 'style', got 'cat'. Use kind 'object'"),
        ({"concept": "Van Gogh"}, "Use kind 'style'"),
        ({"concept": "gore", "kind": "nudity"}, "expected a concept of kind 'nudity' .nudity, nakedness, nude"),
        ({"concept": "cat", "synonyms": ["kitten", " "]}, "synonyms must be words"),
        ({"concept": "nudity", "kind": "nudity", "n": 20_000}, "expected at most 15680 train .* rows, .* got 20000"),
        ({"concept": "unicorn", "n_test": 10_000}, "expected at most 9000 test"),
        ({"concept": "dragon", "world": "tiny-canvas"}, "tiny-canvas can't draw 'dragon'. .*subject: astronaut, cat"),
        ({"concept": "nudity", "kind": "nudity", "world": "tiny-canvas"}, "tiny-canvas can't draw 'nudity'"),
        ({"concept": "neon", "kind": "nudity", "world": "tiny-canvas"}, "tiny-canvas has no nudity"),
        ({"concept": "cat", "kind": "style", "world": "tiny-canvas"}, "got 'cat', a subject. Use kind 'object'"),
        ({"concept": "neon", "world": "tiny-canvas"}, "got 'neon', a style. Use kind 'style'"),
        ({"concept": "cat", "world": "tiny-canvas", "synonyms": ["dog"]}, "synonyms of 'cat' in tiny-canvas must be"),
        ({"concept": "cat", "world": "tiny-canvas", "n": 99_999}, "expected at most 28800 tiny-canvas train rows"),
        ({"concept": "person", "kind": "nudity", "synonyms": ["undead"], "n": 9_999}, "expected at most"),
    ],
)
def test_messages_of_build(arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        PromptSet.build(**{"n": 20, "n_test": 5, **arguments})
    assert "\n" not in str(caught.value)


def made_of(train, test=(), **changes):
    fields = {"concept": "cat", "synonyms": ("cat", "kitten"), "train": train, "test": test, **changes}
    return PromptSet(
        **{
            k: [PromptPair(forget=f, retain=r) for f, r in v] if k in ("train", "test") else v
            for k, v in fields.items()
        }
    )


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (made_of([("a cat", "a dog"), ("a cat", "two Kittens")]), "train row 2: .* without 'cat', .* says 'kittens'"),
        (made_of([("a fox", "a dog")]), "train row 1: expected a forget prompt that names 'cat', got 'a fox'"),
        (made_of([("a cat", "a dog")], [("A  CAT", "a dog")]), "got test row 1 equal to train row 1"),
        (made_of([("a cat", "  ")]), "train row 1: expected a retain prompt, got an empty one"),
        (made_of([("a cat", "a dog")], [("", "a dog")]), "test row 1: expected a forget prompt, got an empty one"),
        (made_of([("a fox", "A fox")], source="file"), "train row 1: expected prompts that differ"),
        (made_of([]), "expected at least one train row"),
        (made_of([("a cat", "a dog")], concept=(" ",)), "concept must be at least one word"),
        (made_of([("a cat", "a dog")], world="tiny-canvas", concept="owl"), "tiny-canvas can't draw 'owl'"),
    ],
)
def test_messages_of_check(made, message):
    with pytest.raises(UserError, match=message):
        made.check()


def test_rows_that_a_text_encoder_reads_no_concept_of():
    rows = [("a cat on a mat", "a dog on a mat"), ("on a mat a cat", "on a mat a dog"), ("x y z w cat", "x y z w dog")]
    made = made_of(rows, [("one two three cat one", "one two five six")])
    first = {
        words: lambda prompts, words=words: [" ".join(text.split()[:words]) for text in prompts] for words in (3, 9)
    }
    assert made.cut_off(first[3]) == ["train row 2", "train row 3", "test row 1"]
    assert made.cut_off(first[9]) == []
    assert made_of([("a fox", "a dog")], source="file").cut_off(first[9]) == [], "it never named the concept"


def test_a_saved_set_without_a_concept_is_refused(tmp_path):
    content = PromptSet.build("cat", n=20, n_test=5).model_dump(mode="json") | {"concept": " "}
    path = write(tmp_path, "a.json", json.dumps(content))
    with pytest.raises(UserError, match=r"concept: .*expected the name of a concept, got an empty text"):
        PromptSet.load(path)


def test_preview():
    made = PromptSet.build("cat", n=20, n_test=5)
    text = made.preview(2)
    assert "20 train and 5 test" in text and made.train[1].retain in text and made.train[2].retain not in text


# Files


@pytest.mark.parametrize("structure", ["diverse", "uniform"])
@pytest.mark.parametrize(
    ("concept", "kind", "world"), [(*OPEN[0], "open"), (*OPEN[1], "open"), ("photo", "style", "tiny-canvas")]
)
def test_json_round_trip(tmp_path, concept, kind, world, structure):
    made = PromptSet.build(concept, kind, n=40, n_test=10, seed=5, world=world, structure=structure)
    made.save(tmp_path / "set.json")
    assert PromptSet.load(tmp_path / "set.json") == made
    assert PromptSet.load(tmp_path / "set.json", made.concept, kind, 10) == made
    assert [file.name for file in tmp_path.iterdir()] == ["set.json"]


@pytest.mark.parametrize("suffix", ["csv", "txt"])
def test_rows_round_trip(tmp_path, suffix):
    made = PromptSet.build("nudity", "nudity", n=40, n_test=10)
    made.save(tmp_path / f"set.{suffix}")
    loaded = PromptSet.load(str(tmp_path / f"set.{suffix}"), "nudity", n_test=10)
    assert (loaded.train, loaded.test, loaded.kind, loaded.source) == (made.train, made.test, "nudity", "file")
    assert loaded.warnings == ()


def test_csv_keeps_repeated_rows_of_a_split(tmp_path):
    made = PromptSet.build("cat", n=8, n_test=3, structure="uniform")
    made.save(tmp_path / "set.csv")
    assert PromptSet.load(tmp_path / "set.csv", "cat").train == made.train


def write(folder, name, text):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_own_csv(tmp_path):
    lines = [f'"a cat, number {i}","a dog, number {i}"' for i in range(18)]
    path = write(tmp_path, "own.csv", "\ufeffForget,Retain\n" + "\n".join([*lines, lines[0], "a tree,a bush"]))
    made = PromptSet.load(path, "cat")
    assert (len(made.train), len(made.test)) == (17, 2)
    assert made.warnings == (
        "1 forget prompt without 'cat' (the first in line 21)",
        "1 repeated row left out",
    )
    assert len(PromptSet.load(path, "cat", n_test=0).test) == 0


def test_own_text_without_retain_prompts(tmp_path):
    path = write(tmp_path, "own.txt", "# mine\na naked person\n\nAn unclad woman by a lake\n")
    made = PromptSet.load(path, "nudity")
    assert made.retain_train == ["a person", "A woman by a lake"]
    path = write(tmp_path, "cats.txt", "a cat on a mat\ntwo kittens\n")
    made = PromptSet.load(path, "cat", seed=2)
    assert made == PromptSet.load(path, "cat", seed=2)
    assert not any(made.names_concept(prompt) for prompt in made.retain_train)
    assert made.retain_train[0].endswith(" on a mat")
    path = write(tmp_path, "only.csv", "forget\nIn Monet's style\n")
    assert PromptSet.load(path, "monet").retain_train[0].endswith("'s style")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "x", "must end in one of .json, .csv, .txt, got 'a.yaml'"),
        ("a.txt", "", "got an empty file"),
        ("a.txt", "# only\n", "got comments only"),
        ("a.txt", b"\xff\xfe\x00c", "must be UTF-8 text"),
        ("a.txt", "a cat\ta dog\na cat\n", "line 2: expected a forget prompt, a tab and a retain prompt, got 'a cat'"),
        ("a.txt", "a cat\ta dog\tx\ty\n", "line 1: expected a forget prompt, a tab"),
        ("a.txt", "a fox\n", "line 1: expected a prompt that names 'cat'"),
        ("a.txt", "a cat\ta cat too\n", "train row 1: expected a retain prompt without 'cat'"),
        ("a.csv", "forget,retain\n", "expected rows under the header"),
        (
            "a.csv",
            "prompt,seed\na cat,1\n",
            "expected the columns forget and perhaps retain, .* `turpentine audit --from` and `generate --from` draw",
        ),
        ("a.csv", "forget,retain\na cat\n", "line 2: expected a retain prompt, got an empty cell"),
        ("a.csv", "forget,retain\na cat,a dog,red\n", "line 2: expected 2 cells, got more"),
        ("a.csv", "forget,retain,split\na cat,a dog,dev\n", "split must be train or test, got 'dev'"),
        ("a.csv", 'forget,retain\n"a cat,a dog\n', "is not CSV"),
        ("a.csv", "forget,retain,split\na cat,a dog,test\n", "expected at least one train row"),
        ("a.json", "{", "line 1 is not JSON"),
        ("a.json", "[" * 200_000, "a.json"),
        ("a.json", "[]", "not a saved prompt set: the whole file"),
        ("a.json", '{"concept": "cat"}', "not a saved prompt set: synonyms: Field required"),
        ("a.json", '{"concept": "cat", "synonyms": ["cat"], "train": [], "test": []}', "at least one train row"),
    ],
)
def test_messages_of_load(tmp_path, name, text, message):
    path = write(tmp_path, name, text)
    concept = None if name.endswith("json") else "cat"
    with pytest.raises(UserError, match=message) as caught:
        PromptSet.load(path, concept)
    assert "\n" not in str(caught.value)


def test_more_messages_of_load(tmp_path):
    with pytest.raises(UserError, match=r"can't read .*No such file"):
        PromptSet.load(tmp_path / "absent.json")
    with pytest.raises(UserError, match=r"can't read .*directory"):
        PromptSet.load(tmp_path.with_suffix(".csv").mkdir() or tmp_path.with_suffix(".csv"), "cat")
    path = write(tmp_path, "nude.txt", "nude\n")
    with pytest.raises(UserError, match="line 1: expected words beside 'nudity'"):
        PromptSet.load(path, "nudity")
    path = write(tmp_path, "a.txt", "a cat\ta dog\na kitten\ta fox\n")
    with pytest.raises(UserError, match="don't say what the concept is"):
        PromptSet.load(path)
    with pytest.raises(UserError, match="kind must be one of"):
        PromptSet.load(path, "cat", kind="animal")
    with pytest.raises(UserError, match="n_test must be from 0 to 1"):
        PromptSet.load(path, "cat", n_test=2)
    made = PromptSet.load(path, "cat", n_test=1)
    made.save(tmp_path / "a.csv")
    with pytest.raises(UserError, match="split column with 1 test row, got n_test 2"):
        PromptSet.load(tmp_path / "a.csv", "cat", n_test=2)
    made.save(tmp_path / "a.json")
    with pytest.raises(UserError, match="has concept 'cat', got 'dog'"):
        PromptSet.load(tmp_path / "a.json", "dog")
    assert PromptSet.load(tmp_path / "a.json", synonyms=["Puss"]).names_concept("two pusses")
    with pytest.raises(UserError, match="must end in one of"):
        made.save(tmp_path / "a.xlsx")
    with pytest.raises(UserError, match="can't start with '# '"):
        made_of([("# 1 cat", "# 1 dog")]).save(tmp_path / "b.txt")
    assert not (tmp_path / "b.txt").exists()


# Prompts to evaluate with


def test_i2p(tmp_path):
    header = "prompt,categories,hard,nudity_percentage,sd_seed,sd_guidance_scale,sd_model"
    text = f'{header}\n"one, with comma","sexual, shocking",0,12.5,4063474092,7.5,1.5\ntwo,hate,1,0.0,7,8,1.5\n'
    assert load_prompts(write(tmp_path, "i2p.csv", text)) == [
        EvaluationPrompt(
            prompt="one, with comma",
            seed=4063474092,
            guidance_scale=7.5,
        ),
        EvaluationPrompt(prompt="two", seed=7, guidance_scale=8.0),
    ]


def test_other_prompt_files(tmp_path):
    path = write(
        tmp_path, "adversarial.csv", "case_number,prompt,evaluation_guidance,evaluation_seed\n1,x,7.5,3.0\n2,y,,\n"
    )
    assert load_prompts(path) == [
        EvaluationPrompt(prompt="x", seed=3, guidance_scale=7.5),
        EvaluationPrompt(prompt="y"),
    ]
    with pytest.warns(UserWarning, match="1 comment skipped"):
        assert load_prompts(write(tmp_path, "a.txt", "one\n\n# no\n  two \n")) == [
            EvaluationPrompt(prompt="one"),
            EvaluationPrompt(prompt="two"),
        ]
    path = write(tmp_path, "a.json", json.dumps(["one", {"Prompt": "two", "seed": 4, "category": "c"}]))
    assert load_prompts(path) == [EvaluationPrompt(prompt="one"), EvaluationPrompt(prompt="two", seed=4)]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "text_of_it\nx\n", "line 2: expected a column 'prompt', got text_of_it"),
        ("a.csv", "prompt,seed\n,1\n", "line 2: expected a prompt, got ''"),
        ("a.csv", "prompt,sd_seed\nx,abc\n", "line 2: seed must be a number from 0, got 'abc'"),
        ("a.csv", "prompt,sd_seed\nx,1.5\n", "seed must be a whole number, got 1.5"),
        ("a.csv", "prompt,sd_guidance_scale\nx,-3\n", "guidance_scale must be a number from 0, got '-3'"),
        ("a.json", "{}", "expected a list of prompts .* got dict"),
        ("a.json", "[1]", "item 1: expected a prompt or an object with one, got int"),
        ("a.json", '[{"prompt": 3}]', "item 1: expected a prompt, got 3"),
        ("a.png", "x", "must end in one of"),
    ],
)
def test_messages_of_load_prompts(tmp_path, name, text, message):
    with pytest.raises(UserError, match=message):
        load_prompts(write(tmp_path, name, text))
