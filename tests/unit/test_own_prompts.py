"""Prompts from files of the user's own: every option is used, refused or told about, and no row is lost."""

import json
import re

import pytest
from turpentine.pipeline.prompts import PromptPair, PromptSet, load_prompts
from turpentine.pipeline.prompts.compose import GUARD_EVERY, guard_beside
from turpentine.pipeline.run.audit import audit_prompts, subject_of
from turpentine.pipeline.run.preflight import preflight
from turpentine.pipeline.run.prompts import prompts_of
from turpentine.pipeline.schema.defaults import build_recipe
from turpentine.pipeline.schema.resolve import resolve
from turpentine.pipeline.support.errors import UserError
from turpentine.pipeline.worlds.tiny_canvas import dimension_of, labels_of

ROWS = [(f"a cat, number {i}", f"a dog, number {i}") for i in range(8)]


def write(folder, name, rows=ROWS, header="forget,retain"):
    path = folder / name
    if path.suffix == ".csv":
        path.write_text("\n".join([header, *(",".join(f'"{cell}"' for cell in row) for row in rows)]), encoding="utf-8")
    elif path.suffix == ".txt":
        path.write_text("\n".join("\t".join(row) for row in rows), encoding="utf-8")
    else:
        pairs = [PromptPair(forget=forget, retain=retain) for forget, retain in rows]
        PromptSet(concept="cat", synonyms=("cat",), source="file", train=pairs[:-1], test=pairs[-1:]).save(path)
    return path


def read(file, concept="cat", **prompts):
    more = {name: prompts.pop(name) for name in ("attribute_of", "model", "method", "kind") if name in prompts}
    recipe = build_recipe({"concept": concept, "model": "a/b", **more, "prompts": {"file": str(file), **prompts}})
    return prompts_of(resolve(recipe))


@pytest.mark.parametrize("name", ["p.csv", "p.txt", "p.json"])
def test_synonyms_take_part_in_the_checks(tmp_path, name):
    rows = [*ROWS, ("a big cat", "a big stone"), ("one more cat", "a Grimalkin's stone"), ("the last cat", "a bird")]
    file = write(tmp_path, name, rows)
    assert read(file).warnings == ()
    with pytest.raises(UserError, match="without 'cat', got \"a Grimalkin's stone\", which says 'grimalkin'"):
        read(file, synonyms=["grimalkin"])


def test_synonyms_are_added_to_the_known_words(tmp_path):
    file = write(tmp_path, "p.csv", [(row[0].replace("cat", "moggy"), row[1]) for row in ROWS])
    assert read(file).warnings == ("8 forget prompts without 'cat' (the first in line 2)",)
    made = read(file, synonyms=["moggy"])
    assert made.warnings == () and made.names_concept("two kittens") and made.names_concept("moggies")
    made = PromptSet.build("Monet", "style", n=40, n_test=4, synonyms=["le maître de Giverny"])
    assert made.names_concept("by Claude Monet") and any("Giverny" in prompt for prompt in made.forget_train)


@pytest.mark.parametrize("name", ["p.csv", "p.txt", "p.json"])
@pytest.mark.parametrize("model", ["a/b", "tiny-canvas"])
def test_guards_stand_beside_the_rows(tmp_path, name, model):
    file = write(tmp_path, name)
    plain, made = read(file), read(file, keep_forgotten=["astronaut"], model=model)
    assert made.keep_forgotten == ("astronaut",) and made.test == plain.test
    guards = [pair for pair in made.train if pair not in plain.train]
    assert [pair for pair in made.train if pair in plain.train] == list(plain.train), "no row is lost"
    assert len(guards) == -(-len(plain.train) // (GUARD_EVERY - 1)) and len(set(guards)) == len(guards)
    astronaut = PromptSet.build("astronaut", n=4, n_test=1)
    assert all(astronaut.names_concept(pair.retain) and made.names_concept(pair.forget) for pair in guards)
    made.save(tmp_path / "made.json")
    again = read(tmp_path / "made.json", keep_forgotten=["an Astronaut"], model=model)
    assert again.train == made.train, "guarded already"


def test_nothing_is_guarded_where_nothing_was_removed(tmp_path):
    file = write(tmp_path, "p.csv")
    assert read(file, keep_forgotten=["auto"]) == read(file, keep_forgotten=[]) == PromptSet.load(file, "cat")
    first, second = PromptPair(forget="f1", retain="r1"), PromptPair(forget="f2", retain="r2", anchor="a2")
    assert guard_beside([first, second], ["x"]) == [first, second, PromptPair(forget="f2", retain="x", anchor="a2")]
    assert guard_beside([first], ["x"])[1] == PromptPair(forget="f1", retain="x", anchor="r1")


def test_an_attribute_needs_retain_prompts(tmp_path):
    rows = [(f"a cowboy with a hat, {i}", f"a cowboy, {i}") for i in range(5)]
    made = read(write(tmp_path, "p.csv", rows), "hat", attribute_of="cowboy")
    assert made.attribute_of == "cowboy" and made.warnings == ()
    rows.append(("a sheriff with a hat", "a sheriff"))
    made = read(write(tmp_path, "q.csv", rows), "hat", attribute_of="cowboy")
    assert made.warnings == ("1 row not about 'cowboy' on both sides (the first in line 7)",)
    with pytest.raises(UserError, match=r"expected a retain prompt in every row of .* Add a column 'retain'"):
        read(write(tmp_path, "r.csv", [row[:1] for row in rows], "forget"), "hat", attribute_of="cowboy")


FORGET = {
    "cat": ["a photo of a cat on sand dunes", "pop art of a kitten in a meadow", "a snapshot of a tabby at noon"],
    "photographer": [
        "neon art of a man with a camera at night",
        "a photo of a cameraman",
        "an image of a photographer",
    ],
    "pop art": ["pop art of a horse in a meadow", "a pop art poster of a rocket", "a screen print of a cat at night"],
    "night": ["a photo of a cat at night", "pop art of a rocket in the dark", "an image of a horse at midnight"],
}


@pytest.mark.parametrize("concept", FORGET)
@pytest.mark.parametrize("name", ["p.txt", "p.csv"])
@pytest.mark.parametrize("kept", ["horse", "brick"])
def test_retain_prompts_are_made_of_the_words_of_the_models_world(tmp_path, concept, name, kept):
    rows = [(f"{text} {place}".strip(),) for place in ("", "by a brick wall", "at noon") for text in FORGET[concept]]
    kind = "style" if concept == "pop art" else "object"
    made = read(
        write(tmp_path, name, rows, "forget"),
        concept,
        kind=kind,
        model="tiny-canvas",
        n_test=2,
        keep_forgotten=[kept],
    )
    dimension, value = dimension_of(concept)
    pairs = [pair for pair in (*made.train, *made.test) if (pair.forget,) in rows and pair.anchor is None]
    for pair in pairs:
        before, after = labels_of(pair.forget), labels_of(pair.retain)
        assert after.pop(dimension) not in (value, kept) and before.pop(dimension) == value and before == after
    assert len(pairs) > 3 and not any("without" in warning for warning in made.warnings)


def test_what_the_models_world_lacks_is_of_the_open_one(tmp_path):
    made = read(write(tmp_path, "p.txt", [(f"a quokka number {i}",) for i in range(5)]), "quokka", model="tiny-canvas")
    again = read(write(tmp_path, "p.txt", [(f"a quokka number {i}",) for i in range(5)]), "quokka")
    assert made == again and not any("quokka" in text for text in made.retain_train)
    with pytest.raises(
        UserError, match=r"line 1: expected a prompt that names 'cat'.* Add the word, or a retain prompt"
    ):
        read(write(tmp_path, "p.txt", [("a moggy",), ("a cat",)]), model="tiny-canvas", n_test=1)
    moggies = read(
        write(tmp_path, "p.txt", [("a moggy at noon",), ("a cat",)]), model="tiny-canvas", n_test=1, synonyms=["moggy"]
    )
    assert "moggy" not in moggies.retain_train[0] and moggies.retain_train[0].endswith(" at noon")


def test_a_run_takes_forget_prompts_alone(tmp_path):
    file = write(tmp_path, "p.txt", [(text,) for text in FORGET["cat"] * 3])
    file.write_text("\n".join(f"a photo of a cat {place}" for place in ("on sand dunes", "at noon", "in a meadow", "")))
    setting = resolve(build_recipe({"concept": "cat", "device": "cpu", "prompts": {"file": str(file)}}))
    prompts = preflight(setting).prompts
    assert len(prompts.train) == 3 and {labels_of(pair.retain)["style"] for pair in prompts.train} == {"photo"}


def test_options_of_made_prompts_are_told(tmp_path):
    file = write(tmp_path, "p.csv")
    assert read(file, n=800, n_test=100).warnings == read(file, model="tiny-canvas").warnings == ()
    assert read(file, n=5).warnings == ("n 5 has no effect: p.csv has 7 train rows, and all are used",)
    assert len(read(file, n_test=3).test) == 3 and read(file, n_test=3).warnings == ()
    assert "data 'uniform'" in read(file, method={"name": "rgd", "data": "uniform"}).warnings[0]
    assert "source 'llm' has no effect" in read(file, source="llm").warnings[0]
    saved = write(tmp_path, "p.json")
    assert read(saved, n_test=5).warnings == ("n_test 5 has no effect: p.json has 1 test row of its own",)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_too_few_rows_to_test_on(tmp_path, count):
    file = write(tmp_path, "p.csv", ROWS[:count])
    recipe = build_recipe({"concept": "cat", "model": "a/b", "prompts": {"file": str(file)}})
    setting = resolve(recipe)
    with pytest.raises(UserError, match=f"got {count} pairs to train on and none to test on. Say how many .*--n-test"):
        audit_prompts(prompts_of(setting), recipe.audits, subject_of(setting))
    if count > 1:
        assert len(read(file, n_test=1).test) == 1


def test_comments_have_a_space(tmp_path):
    (tmp_path / "p.txt").write_text("#1 cat on a mat\n# mine\n#\n#cat\ntwo cats\n #  more\n")
    made = PromptSet.load(tmp_path / "p.txt", "cat")
    assert [*made.forget_train, *made.forget_test] == ["#1 cat on a mat", "#cat", "two cats"]
    assert made.warnings == ("3 comments skipped, which start with '# ' (the first in line 2)",)
    told = []
    assert [row.prompt for row in load_prompts(tmp_path / "p.txt", told.append)] == made.forget_train + made.forget_test
    assert told == [f"{tmp_path / 'p.txt'}: {made.warnings[0]}"]


def test_text_comes_back(tmp_path):
    rows = [("#1 cat", "#1 dog"), ("#cat", "#dog"), ("a 'cat', | and", "a “dog”"), ("cat\u2028s", "dog\x85s"), *ROWS]
    pairs = [PromptPair(forget=forget, retain=retain) for forget, retain in rows]
    made = PromptSet(concept="cat", synonyms=("cat",), train=pairs[:-3], test=pairs[-3:])
    made.save(tmp_path / "p.txt")
    loaded = PromptSet.load(tmp_path / "p.txt", "cat", n_test=3)
    assert (loaded.train, loaded.test) == (made.train, made.test)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.csv", "forget,forget\na cat,two cats\n", "expected each column once, got 'forget' twice"),
        ("p.csv", "forget,retain\na cat\0,a dog\n", "must be text, got a NUL byte in line 2"),
        ("p.txt", "a cat\0\n", "must be text, got a NUL byte in line 1"),
        ("p.csv", "# mine\nforget,retain\na cat,a dog\n", "line 2: expected 1 cell, got more"),
        (
            "p.csv",
            "forget,retain,split\na cat,a dog,train\na big cat,a big dog,test\n",
            "with 1 test row, got n_test 3",
        ),
    ],
)
def test_messages_of_own_files(tmp_path, name, content, message):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        PromptSet.load(tmp_path / name, "cat", n_test=3)


@pytest.mark.parametrize(
    ("header", "warning"),
    [
        ("forget,retain,anker", "columns not used: anker (did you mean anchor?)"),
        ("Forget,retain, Sorce ,", "columns not used: sorce"),
        ("forget,retian,note", "columns not used: retian (did you mean retain?), note"),
        ("forget,retain,anchor,anchors", "columns not used: anchors"),
        ("forget,retain,anchor", None),
    ],
)
def test_columns_that_nobody_reads_are_told(tmp_path, header, warning):
    cells = [[f"a cat {i}", f"a dog {i}", f"a bird {i}", ""] for i in range(5)]
    file = write(tmp_path, "p.csv", [row[: header.count(",") + 1] for row in cells], header)
    assert read(file).warnings == ((warning,) if warning else ())


def test_misspelt_keys_are_told_in_every_file(tmp_path):
    for name, text, warning in (
        ("p.csv", "prompt,sed,hard\na cat,3,1\n", "columns not used: sed (did you mean seed?)"),
        ("p.json", '[{"prompt": "a cat", "Guidance": 3}]', "columns not used: guidance (did you mean guidance_scale?)"),
        ("p.jsonl", '{"prompt": "a cat", "case": 1}\n{"prompt": "a dog", "seeds": 1}', "seeds (did you mean seed?)"),
        ("p.csv", "prompt,sd_seed,sed,sd_guidance_scale,categories\na cat,3,1,2,x\n", None),
    ):
        told: list[str] = []
        (tmp_path / name).write_text(text)
        load_prompts(tmp_path / name, told.append)
        assert len(told) == (warning is not None) and all(warning in one for one in told)
    saved = json.loads(write(tmp_path, "p.json").read_text())
    for change, message in (
        (
            {"train": [{"forget": "a cat", "retain": "a dog", "anker": "a bird"}]},
            r"train\.0\.anker \(did you mean an",
        ),
        ({"synonym": ["cat"]}, r"unknown key synonym \(did you mean synonyms\?\)\. Rename or remove it"),
        ({"mine": 1}, r"unknown key mine\. Rename"),
    ):
        (tmp_path / "q.json").write_text(json.dumps(saved | change))
        with pytest.raises(UserError, match=message):
            PromptSet.load(tmp_path / "q.json")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("prompt,seed", r"got prompt, seed\. Rename .* `turpentine audit --from` and `generate --from` draw"),
        ("forgett,retain", r"expected the columns forget and perhaps retain, anchor, split .* Rename 'forgett'\.$"),
        ("text,other", r"Rename the column with the prompts to forget\.$"),
    ],
)
def test_tables_without_forget_prompts(tmp_path, header, message):
    with pytest.raises(UserError, match=message):
        read(write(tmp_path, "p.csv", header=header))


def test_a_table_is_about_one_concept(tmp_path):
    for several in ("cat, dog", "cat + dog"):
        with pytest.raises(UserError, match=f"files are about one concept, got '{re.escape(several)}'"):
            PromptSet.load(write(tmp_path, "p.csv"), several)


def test_lines_end_where_editors_end_them(tmp_path):
    (tmp_path / "p.txt").write_bytes("a cat\u2028asleep\r\na cat\x0bawake\ra red\x85cat\n".encode())
    assert PromptSet.load(tmp_path / "p.txt", "cat", n_test=0).forget_train == [
        "a cat asleep",
        "a cat awake",
        "a red cat",
    ]


@pytest.mark.parametrize("value", ["nan", "NaN", "None", "null", "N/A"])
def test_numbers_that_are_absent_in_so_many_words_are_told(tmp_path, value):
    told: list[str] = []
    (tmp_path / "p.csv").write_text(f"prompt,sd_seed,seed,guidance_scale\na,{value},3,\nb,,5,7.5\n")
    rows = load_prompts(tmp_path / "p.csv", told.append)
    assert [(row.seed, row.guidance_scale) for row in rows] == [(None, None), (5, 7.5)]
    assert len(told) == 1 and "1 row with 'nan' or the like for seed or guidance, which counts as absent" in told[0]


def test_seeds_are_exact_and_no_truth_values(tmp_path):
    (tmp_path / "p.json").write_text(json.dumps([{"prompt": "a", "seed": 9007199254740993}]))
    assert load_prompts(tmp_path / "p.json")[0].seed == 9007199254740993
    (tmp_path / "p.json").write_text(json.dumps([{"prompt": "a", "seed": True}]))
    with pytest.raises(UserError, match="seed must be a number from 0, got True"):
        load_prompts(tmp_path / "p.json")


def test_networks_are_words_here(tmp_path):
    rows = [*ROWS, ("a cat <lora:fluffy:0.8>", "a dog")]
    warning = "1 prompt with <lora:…> or the like, which is read as plain words (the first in line 10)"
    assert PromptSet.load(write(tmp_path, "p.csv", rows), "cat").warnings == (warning,)
    told = []
    (tmp_path / "e.json").write_text(json.dumps(["a cat", "a cat <lora:x:1>"]))
    load_prompts(tmp_path / "e.json", told.append)
    assert len(told) == 1 and "(the first in item 2)" in told[0]


def test_pairs_are_no_prompts_to_draw(tmp_path):
    with pytest.raises(UserError, match=r"got forget, retain\. These are pairs to unlearn with: rename the column"):
        load_prompts(write(tmp_path, "p.csv"))


@pytest.mark.parametrize(
    ("concept", "retain"), [("猫", "猫と犬"), ("van gogh", "van_gogh, oil"), ("shaman", "two shamans")]
)
def test_spellings_in_files(tmp_path, concept, retain):
    file = write(tmp_path, "p.csv", [(f"a {concept}", retain), (f"one more {concept}", "a stone")])
    with pytest.raises(UserError, match=f"without '{concept}'"):
        PromptSet.load(file, concept)


def test_a_saved_set_is_known_by_any_spelling(tmp_path):
    PromptSet.build("Cat", n=8, n_test=2).save(tmp_path / "p.json")
    assert PromptSet.load(tmp_path / "p.json", "a kitten").concepts == ("Cat",)
    with pytest.raises(UserError, match="has concept 'Cat', got 'dog'"):
        PromptSet.load(tmp_path / "p.json", "dog")


# Conditions on the rows of a list

LIST = """prompt,Categories,nudity_percentage,hard
one,"sexual, shocking",12.5,1
two,self-harm,0.0,0
three,sexual,nan,1
four,hate,60,
"""


@pytest.mark.parametrize(
    ("where", "left"),
    [
        ([], "one two three four"),
        (["nudity_percentage > 0"], "one four"),
        (["nudity_percentage>=12.5"], "one four"),
        (["nudity_percentage <= 12.5"], "one two"),
        (["Nudity_Percentage < 60", "categories has SEXUAL"], "one"),
        (["categories = sexual"], "three"),
        (["categories != sexual"], "one two four"),
        (["categories has self-harm"], "two"),
        (["hard = 1.0"], "one three"),
        (["hard != 1"], "two"),
        (["prompt = four"], "four"),
    ],
)
def test_rows_by_conditions_on_their_columns(where, left, tmp_path):
    (tmp_path / "list.csv").write_text(LIST)
    assert [row.prompt for row in load_prompts(tmp_path / "list.csv", where=where)] == left.split()


def test_conditions_hold_of_json_lines_too(tmp_path):
    rows = [{"prompt": "one", "score": 3}, "two", {"prompt": "three", "score": None}, {"Prompt": "four", "score": 0.5}]
    (tmp_path / "list.jsonl").write_text("\n\n".join(map(json.dumps, rows)))
    assert [row.prompt for row in load_prompts(tmp_path / "list.jsonl")] == ["one", "two", "three", "four"]
    assert [row.prompt for row in load_prompts(tmp_path / "list.jsonl", where=["score > 0.5"])] == ["one"]
    (tmp_path / "list.jsonl").write_text('{"prompt": "one"}\n{"prompt": ')
    with pytest.raises(UserError, match="line 2 is not JSON"):
        load_prompts(tmp_path / "list.jsonl")


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("", "expected a condition on a column, .* got ''"),
        ("hard", "got 'hard'"),
        ("hard >", "got 'hard >'"),
        ("> 3", "got '> 3'"),
        ("hard > much", "expected a number behind '>'"),
        (
            "soft > 0",
            "expected a column of the list for the condition 'soft > 0', which has prompt, categories, nudity",
        ),
        ("categories > 0", "list.csv line 2: categories must be a number for 'categories > 0', got 'sexual, shocking'"),
        ("hard = 7", "none of 4 rows has hard = 7"),
    ],
)
def test_conditions_that_are_none(condition, message, tmp_path):
    (tmp_path / "list.csv").write_text(LIST)
    with pytest.raises(UserError, match=message) as told:
        load_prompts(tmp_path / "list.csv", where=[condition])
    assert "\n" not in str(told.value)
