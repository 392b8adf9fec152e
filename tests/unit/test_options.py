"""The recipe as command-line options."""

import argparse

import pytest
from turpentine.pipeline.commands.main import main
from turpentine.pipeline.commands.options import add_recipe_options, chosen, destination
from turpentine.pipeline.methods import find, names
from turpentine.pipeline.schema.defaults import build_recipe
from turpentine.pipeline.schema.fields import TRAINING_IMAGES, fields_of
from turpentine.pipeline.schema.recipe import Recipe
from turpentine.pipeline.support.errors import UserError


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (["unlearn", "--concept", "cat", "--repalce-with", "a dog"], "--replace-with"),
        (["undo", "RUN", "--out", "x", "--any-basis"], "--any-base"),
        (["info", "x", "--xyzzy"], ""),
    ],
)
def test_an_option_that_is_misspelt_is_told_the_nearest(words, near, capsys):
    with pytest.raises(SystemExit):
        main(words)
    told = capsys.readouterr().err
    assert "unrecognized arguments: --" in told and (f"; did you mean {near}?" in told if near else "mean" not in told)


def make_parser(only=()):
    parser = argparse.ArgumentParser(
        "turpentine", formatter_class=lambda prog: argparse.HelpFormatter(prog, width=10_000)
    )
    add_recipe_options(parser, *only)
    return parser


def read(*words):
    return chosen(make_parser().parse_args(words))


HELP = {action.dest: action for action in make_parser()._actions}
EVERY = fields_of()


def test_nothing_given_nothing_chosen():
    assert read() == {}


def test_words_become_nested_dictionaries_and_a_recipe():
    given = read(
        "--concept", "cat", "--method", "rgd", "--retain-weight", "2.5", "--projection", "per_layer", "--steps", "7",
        "--learning-rate", "1e-5", "--guard", "true", "--n", "12", "--guidance-scale", "3", "--dtype", "fp32",
    )  # fmt: skip
    assert given == {
        "concept": "cat",
        "method": {"name": "rgd", "retain_weight": "2.5", "projection": "per_layer"},
        "training": {"steps": "7", "learning_rate": "1e-5", "guard": "true"},
        "prompts": {"n": "12"},
        "samples": {"guidance_scale": "3"},
        "output": {"dtype": "fp32"},
    }
    recipe = build_recipe(given)
    assert recipe.method.retain_weight == 2.5 and recipe.training.steps == 7
    assert recipe.training.guard is True and recipe.training.learning_rate == 1e-5


@pytest.mark.parametrize("word", ["none", "None", "null"])
def test_none(word):
    assert read("--forget-limit", word) == {"method": {"forget_limit": None}}
    assert build_recipe({"concept": "cat", **read("--forget-limit", word)}).method.forget_limit is None


def test_none_is_a_word_where_the_field_has_no_none():
    assert read("--concept", "none") == {"concept": "none"}
    with pytest.raises(UserError, match=r"training\.steps .*got 'none'"):
        build_recipe({"concept": "cat", **read("--steps", "none")})


def test_tuples():
    assert read("--formats", "denoiser") == {"output": {"formats": ["denoiser"]}}
    given = read("--formats", "diffusers, denoiser", "--synonyms", "kitten, tom cat ,")
    assert given == {"output": {"formats": ["diffusers", "denoiser"]}, "prompts": {"synonyms": ["kitten", "tom cat"]}}
    assert build_recipe({"concept": "cat", **given}).prompts.synonyms == ("kitten", "tom cat")


@pytest.mark.parametrize("word", ["true", "false"])
def test_booleans(word):
    recipe = build_recipe({"concept": "cat", **read("--guard", word, "--alignment", word)})
    assert recipe.training.guard is recipe.audits.alignment is (word == "true")


def test_the_recipe_checks_what_is_given():
    with pytest.raises(UserError, match=r"training\.steps \(--steps\): must be at least 1, got '0'"):
        build_recipe({"concept": "cat", **read("--steps", "0")})


def info_of(field):
    """The pydantic field that a field describes."""
    if field.path[0] == "method":
        owner = field.owners[0] if field.owners else "rgd"
        return find(owner).config.model_fields[field.path[-1]]
    section = Recipe
    for key in field.path[:-1]:
        section = section.model_fields[key].annotation
    return section.model_fields["concepts" if field.path == ("concept",) else field.path[-1]]


@pytest.mark.parametrize("field", EVERY, ids=[field.key for field in EVERY])
def test_help_tells_meaning_range_default_and_owner(field):
    action, info = HELP[destination(field.path)], info_of(field)
    text = action.help.replace("%%", "%")
    assert action.option_strings == [field.option]
    assert text.startswith(info.description)
    for attribute, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤")):
        for bound in (getattr(m, attribute) for m in info.metadata if hasattr(m, attribute)):
            assert f"{sign} {bound}" in text
    if info.is_required():
        assert "default" not in text.removeprefix(info.description)
    else:
        value = info.get_default(call_default_factory=True)
        shown = "none" if value is None or value == () else ",".join(value) if isinstance(value, tuple) else str(value)
        assert f"; default {shown}" in text
    assert not field.owners or f"(for {', '.join(field.owners)})" in text


def test_help_renders():
    text = make_parser().format_help()
    assert f"--method {'|'.join(names())}" in text
    assert "--forget-limit X|auto|none" in text
    assert "--parameters full|xattn|noxattn|lora" in text
    assert "--guard [true|false]" in text
    assert "--formats diffusers|denoiser|single_file|lora|lora_diffusers|delta,…" in text
    assert "VALUE" not in text, "every type has a word of its own"


def test_option_names_are_distinct():
    taken = [field.option for field in EVERY]
    assert len(set(taken)) == len(taken)
    assert "--prompts" in taken and "--audit-images" in taken and "--nudity-threshold" in taken


def test_only_some_sections():
    parser = make_parser(only=("prompts", "concept"))
    assert chosen(parser.parse_args(["--concept", "cat", "--n", "3"])) == {"concept": "cat", "prompts": {"n": "3"}}
    with pytest.raises(SystemExit):
        parser.parse_args(["--steps", "3"])
    with pytest.raises(SystemExit):
        parser.parse_args(["--method", "rgd"])


def test_a_command_that_draws_no_training_images_has_no_option_for_them():
    parser = argparse.ArgumentParser()
    add_recipe_options(parser, "samples", skip=TRAINING_IMAGES)
    taken = {word for action in parser._actions for word in action.option_strings}
    assert "--guidance-scale" in taken and "--training-guidance-scale" not in taken
    assert {field.key for field in EVERY} >= set(TRAINING_IMAGES)


def test_other_arguments_are_left_alone():
    parser = make_parser()
    parser.add_argument("--out")
    assert chosen(parser.parse_args(["--out", "x", "--seed", "3"])) == {"seed": "3"}


@pytest.mark.parametrize("method", names())
def test_a_default_spelled_out_changes_nothing(method):
    plain = build_recipe({"concept": "cat", "method": {"name": method}})
    words = ["--method", method]
    for field in EVERY:
        if field.owners and method not in field.owners:
            continue
        value = plain
        for part in field.path:
            value = getattr(value, part)
        text = "none" if value is None else ",".join(value) if isinstance(value, tuple) else str(value)
        words += [f"{field.option}={text}"]
    assert build_recipe(read(*words)) == plain
    assert isinstance(plain, Recipe)


def test_a_switch_needs_no_word():
    assert read("--guard", "--steps", "7") == {"training": {"guard": "true", "steps": "7"}}
    assert read("--guard", "false") == {"training": {"guard": "false"}}
