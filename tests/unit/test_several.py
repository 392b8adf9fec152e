"""Several concepts at once, attributes, and guarding what was forgotten before."""

import json

import pytest
import torch
from safetensors.torch import save_file
from turpentine.pipeline.commands.options import add_recipe_options, chosen
from turpentine.pipeline.models.lineage import Lineage, lineage_of
from turpentine.pipeline.prompts import Caption, PromptPair, PromptSet, caption_set
from turpentine.pipeline.prompts.compose import GUARD_EVERY, guard, interleave, shares
from turpentine.pipeline.prompts.concepts import split_concepts
from turpentine.pipeline.run.prompts import prompts_of
from turpentine.pipeline.schema.defaults import build_recipe
from turpentine.pipeline.schema.resolve import resolve
from turpentine.pipeline.support.errors import UserError
from turpentine.pipeline.worlds.tiny_canvas import labels_of


def build(concept, world="open", n=40, n_test=9, **more):
    return PromptSet.build(concept, n=n, n_test=n_test, world=world, **more)


# several ------------------------------------------------------------------------------------------


def test_a_plus_between_spaces_joins():
    assert split_concepts("cat + pop  art") == ("cat", "pop art")
    assert split_concepts("C++") == ("C++",) and split_concepts("a+b") == ("a+b",)
    for text in ("cat + ", "+ cat", "cat + + dog"):
        with pytest.raises(UserError, match="on both sides of each"):
            split_concepts(text)
    with pytest.raises(UserError, match="expected different concepts"):
        split_concepts("cat + Cat")


def test_shares_and_interleaving():
    assert shares(7, 3) == [3, 2, 2] and shares(2, 3) == [1, 1, 0]
    assert interleave([[1, 2, 3], [], [7]]) == [1, 7, 2, 3]


@pytest.mark.parametrize("world", ["open", "tiny-canvas"])
@pytest.mark.parametrize("structure", ["diverse", "uniform"])
def test_each_concept_has_its_share_and_no_retain_prompt_names_any(world, structure):
    made = build("cat + pop art + horse", world, structure=structure)
    assert (len(made.train), len(made.test)) == (40, 9)
    alone = [
        build(name, world, kind=kind) for name, kind in (("cat", "object"), ("pop art", "style"), ("horse", "object"))
    ]
    for pairs, counts in ((made.train, [14, 13, 13]), (made.test, [3, 3, 3])):
        assert [sum(one.names_concept(pair.forget) for pair in pairs) for one in alone] == counts
        assert not any(one.names_concept(pair.retain) for one in alone for pair in pairs)
    assert made.concept == "cat + pop art + horse"
    assert build("cat + pop art + horse", world, structure=structure) == made


def test_a_set_of_several_comes_back_from_a_file(tmp_path):
    made = build("cat + pop art", "tiny-canvas")
    made.save(tmp_path / "p.json")
    assert PromptSet.load(tmp_path / "p.json", concept="cat + pop art", kind="object") == made
    (tmp_path / "p.csv").write_text("forget\na cat\n")
    with pytest.raises(UserError, match=r"files are about one concept, got 'cat . dog'"):
        PromptSet.load(tmp_path / "p.csv", concept="cat + dog")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"concept": "cat + dog", "n": 1}, "a pair for each of 2 concepts, got n 1"),
        ({"concept": "cat + dog", "synonyms": ["tom"]}, "synonyms and attributes belong to one concept"),
        ({"concept": "cat + zebra", "world": "tiny-canvas"}, "tiny-canvas can't draw 'zebra'"),
        (
            {"concept": "noon + sunset + night", "world": "tiny-canvas", "structure": "uniform"},
            "nothing is left to take the place of 'noon'",
        ),
    ],
)
def test_messages(arguments, message):
    with pytest.raises(UserError, match=message):
        build(**arguments)


# attributes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("structure", ["diverse", "uniform"])
def test_the_object_stays_and_its_attribute_goes(structure):
    made = build("hat", attribute_of="cowboy", structure=structure)
    for pair in (*made.train, *made.test):
        assert "cowboy" in pair.forget and "cowboy" in pair.retain
        assert " hat" in pair.forget and "hat" not in pair.retain
        assert pair.forget.replace(" with a hat", "").replace(" wearing a hat", "") == pair.retain
    if structure == "diverse":
        assert len(set(made.train)) == 40 and {p.forget.split(" hat")[0].split()[-2] for p in made.train} == {
            "with",
            "wearing",
        }


def test_attributes_are_refused_where_they_make_no_sense():
    with pytest.raises(UserError, match="tiny-canvas draws no attributes, got 'cat' from 'horse'"):
        build("cat", "tiny-canvas", attribute_of="horse")
    with pytest.raises(UserError, match="names of their own, got 'kitten' from 'cat'"):
        build("kitten", attribute_of="cat")
    made = build("hat", attribute_of="cowboy")
    stray = made.model_copy(update={"train": (made.train[0].model_copy(update={"retain": "A sheriff at noon"}),)})
    with pytest.raises(UserError, match="train row 1: expected prompts about 'cowboy', got 'A sheriff at noon'"):
        stray.check()
    with pytest.raises(UserError, match="attribute_of needs one concept of kind 'object'"):
        build_recipe({"concept": "hat", "kind": "style", "attribute_of": "cowboy"})


# what was forgotten before ------------------------------------------------------------------------


def test_every_fourth_retain_prompt_guards():
    pairs = [PromptPair(forget=f"f{i}", retain=f"r{i}") for i in range(9)]
    rows = guard(pairs, ["x", "y"])
    assert [pair.retain for pair in rows] == ["r0", "r1", "r2", "x", "r4", "r5", "r6", "y", "r8"]
    assert [(pair.forget, pair.instead) for pair in rows] == [(pair.forget, pair.instead) for pair in pairs]
    assert guard(pairs, []) == pairs


@pytest.mark.parametrize("structure", ["diverse", "uniform"])
def test_guards_ask_for_what_was_forgotten_and_no_other_prompt_does(structure):
    made = build("cat", "tiny-canvas", keep_forgotten=["astronaut", "neon"], structure=structure)
    before = [build("astronaut", "tiny-canvas"), build("neon", "tiny-canvas", kind="style")]
    for index, pair in enumerate(made.train):
        guarding = [one.names_concept(pair.retain) for one in before]
        assert any(guarding) == (index % GUARD_EVERY == GUARD_EVERY - 1)
        assert not any(one.names_concept(pair.forget) for one in before)
        assert labels_of(pair.retain).get("subject") != "cat"
    assert len({pair.retain for pair in made.train[GUARD_EVERY - 1 :: GUARD_EVERY]}) == 40 // GUARD_EVERY
    assert not any(one.names_concept(p) for one in before for p in made.retain_test + made.forget_test)


@pytest.mark.parametrize("concept", ["Monet", "zorblax"])
def test_guards_keep_clear_of_synonyms(concept):
    """Of a name that the tables know as another kind, too: its synonyms say what is meant."""
    captions = [Caption(f"a photo of a {concept}", "a.txt")]
    own = {"synonyms": ["water lily", "park"], "keep_forgotten": ["cat"]}
    for made in (build(concept, **own), caption_set(captions, concept, n=40, n_test=9, **own)):
        guards = [pair.retain for pair in made.train[GUARD_EVERY - 1 :: GUARD_EVERY]]
        assert made.keep_forgotten == ("cat",) and len(set(guards)) == len(guards)
        assert not any(made.names_concept(prompt) for prompt in guards)


def test_lineage_is_read_from_the_header(tmp_path):
    assert lineage_of("some/model") == Lineage("some/model")
    folder = tmp_path / "run" / "weights" / "diffusers"
    (folder / "unet").mkdir(parents=True)
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"

    def write(**fields):
        save_file({"w": torch.zeros(1)}, file, metadata={f"turpentine.{name}": text for name, text in fields.items()})

    write(concept="cat", base_model="tiny-canvas")
    expected = Lineage("tiny-canvas", ("cat",))
    assert lineage_of(str(folder)) == lineage_of(str(tmp_path / "run")) == lineage_of(str(file)) == expected
    write(concept="horse", base_model="runs/a", origin="tiny-canvas", forgotten=json.dumps(["cat", "horse"]))
    assert lineage_of(str(folder)) == Lineage("tiny-canvas", ("cat", "horse"))
    recipe = build_recipe({"concept": "neon", "kind": "style", "model": str(folder)})
    setting = resolve(recipe)
    assert setting.world.name == "tiny-canvas" and setting.forgotten_before == ("cat", "horse")
    assert recipe.audits.alignment_model == "tiny-canvas", "the defaults are those of the model it came from"
    assert resolve(build_recipe({"concept": "cat", "model": str(folder)})).forgotten_before == ("horse",)
    none = build_recipe({"concept": "neon", "kind": "style", "model": str(folder), "prompts": {"keep_forgotten": []}})
    assert resolve(none).forgotten_before == ()
    named = {"concept": "neon", "kind": "style", "prompts": {"keep_forgotten": ["astronaut", str(tmp_path / "run")]}}
    assert resolve(build_recipe(named)).forgotten_before == ("astronaut", "cat", "horse")
    file.write_bytes(b"not safetensors")
    assert lineage_of(str(folder)) == Lineage(str(folder))


def test_options_may_be_repeated():
    import argparse

    parser = argparse.ArgumentParser()
    add_recipe_options(parser)
    words = "--concept cat --concept horse --keep-forgotten astronaut --keep-forgotten neon --n 8 --n-test 4".split()
    recipe = build_recipe(chosen(parser.parse_args(words)))
    assert recipe.concepts == ("cat", "horse") and recipe.prompts.keep_forgotten == ("astronaut", "neon")
    assert prompts_of(resolve(recipe)).keep_forgotten == ("astronaut", "neon")
    words = ["--concept", "hat", "--from", "cowboy", "--model", "a/b"]
    assert prompts_of(resolve(build_recipe(chosen(parser.parse_args(words))))).attribute_of == "cowboy"
