"""The recipe: what it accepts, what it refuses and in which words."""

import json
import math
import re
import shutil
from collections import Counter
from pathlib import Path

import huggingface_hub
import pytest
import yaml
from pydantic import ValidationError
from turpentine.pipeline.api import recipe_for
from turpentine.pipeline.methods import find, names
from turpentine.pipeline.models import BUNDLED, lineage
from turpentine.pipeline.schema.defaults import (
    RECIPES,
    build_part,
    build_recipe,
    defaults_for,
    describe,
    merge,
    read_yaml,
    stored_recipe,
)
from turpentine.pipeline.schema.fields import fields, fields_of, nest
from turpentine.pipeline.schema.recipe import Recipe, Section
from turpentine.pipeline.schema.resolve import resolve
from turpentine.pipeline.support.errors import UserError

SHIPPED = sorted(RECIPES.rglob("*.yaml"))


def build(**chosen):
    return build_recipe({"concept": "cat", **chosen})


# round trip -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"method": {"name": "finetune"}},
        {"method": {"name": "rgd", "forget_limit": None, "projection": "per_layer"}},
        {"model": "CompVis/stable-diffusion-v1-4", "kind": "nudity", "concept": "nudity"},
        {"prompts": {"synonyms": ["kitten", "Köter"]}, "training": {"learning_rate": 1e-7, "max_grad_norm": 0.5}},
        {"output": {"formats": ["denoiser"]}, "audits": {"alignment": False}},
    ],
)
def test_yaml_round_trip(tmp_path, chosen):
    recipe = build(**chosen)
    recipe.save(tmp_path / "recipe.yaml")
    assert stored_recipe(read_yaml(tmp_path / "recipe.yaml")) == recipe


def test_written_recipe_spells_out_every_field(tmp_path):
    recipe = build()
    recipe.save(tmp_path / "recipe.yaml")
    written = yaml.safe_load((tmp_path / "recipe.yaml").read_text())
    for field in fields_of():
        place = written
        for part in field.path[:-1]:
            place = place[part]
        assert field.path[-1] in place or (field.owners and recipe.method.name not in field.owners), field.path
    assert Recipe.model_validate(written) == recipe, "needs no defaults from elsewhere"


def test_recipe_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        build().training.steps = 3


# shipped recipes --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.relative_to(RECIPES).as_posix())
def test_shipped_recipe_loads(path):
    content = read_yaml(path)
    recipe = build_recipe({"concept": "cat", "model": path.parent.name, **content})
    if path.stem != "all":
        assert recipe.method.name == content["method"]["name"]
    for section, values in content.items():
        for key, value in values.items() if isinstance(values, dict) else ():
            assert getattr(getattr(recipe, section), key) == value
    if path.parent != RECIPES:
        own = recipe.method.variants and f"{recipe.method.name}-{getattr(recipe.method, recipe.method.variants)}"
        assert path.stem in (recipe.method.name, own, "all"), "defaults are named after their method"
        assert recipe.model == path.parent.name or "model" not in content
    else:
        assert build_recipe(read_yaml(path)).concept == content["concept"], "a recipe beside the defaults is complete"


def test_every_method_has_defaults_on_the_bundled_model():
    assert {path.stem for path in (RECIPES / "tiny-canvas").glob("*.yaml")} == {"all", "rgd-ascend", *names()}


def test_defaults_give_way_to_what_is_chosen():
    usual = build(method={"name": "finetune"})
    assert usual.training.steps == read_yaml(RECIPES / "tiny-canvas" / "all.yaml")["training"]["steps"]
    chosen = build(training={"steps": 7})
    assert chosen.training.steps == 7
    assert chosen.training.batch_size == build().training.batch_size, "its neighbours keep their defaults"


def test_defaults_of_a_family_build_on_another():
    own = read_yaml(RECIPES / "tiny-canvas-dit" / "salun.yaml")
    found, base = (defaults_for(model, "salun") for model in ("tiny-canvas-dit", "tiny-canvas"))
    assert found.pop("model") == "tiny-canvas-dit" and base.pop("model") == "tiny-canvas"
    assert found != base and found == merge(base, own)
    assert defaults_for("tiny-canvas-dit", "finetune")["audits"] == base["audits"]


def test_defaults_depend_on_the_model():
    assert build(model="someone/stable-diffusion").training.learning_rate == 1e-5
    assert build(model="somewhere/tiny-canvas").training.learning_rate == 1e-5, "a name tells nothing"


def test_a_bundled_model_is_known_by_what_is_in_its_folder(tmp_path):
    """A copy under any name is known; another model in a folder of the bundled one's name is not."""
    shutil.copy(BUNDLED["tiny-canvas"] / "model_index.json", tmp_path)
    copy = build(model=str(tmp_path))
    assert copy.training == build().training and resolve(copy).world.name == "tiny-canvas"
    stranger = tmp_path / "tiny-canvas"
    stranger.mkdir()
    index = {"_class_name": "StableDiffusionPipeline", "_turpentine_origin": "nonsense"}
    (stranger / "model_index.json").write_text(json.dumps(index))
    assert build(model=str(stranger)).training != build().training
    assert resolve(build(model=str(stranger))).world.name == "open"


@pytest.mark.parametrize("method", ["rgd", "rg", "grad_diff", "grad_diff_d"])
@pytest.mark.parametrize("by_folder", [True, False], ids=["folder", "pipeline"])
def test_a_class_conditional_model_of_ones_own_starts_from_the_papers_numbers(tmp_path, method, by_folder):
    """It had Stable Diffusion's: guidance that it may refuse, a limit of 1.6 on squared pixel errors, CLIP."""
    (tmp_path / "model_index.json").write_text('{"_class_name": "ClassConditionalPipeline"}')
    chosen = {"concept": "3", "method": {"name": method}}
    recipe = (
        build_recipe({"model": str(tmp_path), **chosen})
        if by_folder
        else build_recipe({"model": "mine", **chosen}, "ClassConditionalPipeline")
    )
    assert (recipe.kind, recipe.samples.guidance_scale, recipe.audits.alignment) == ("class", 1.0, False)
    assert (recipe.method.forget_limit, recipe.method.retain_weight, recipe.method.forget) == (0.1, 5.0, "ascend")
    assert (recipe.training.learning_rate, recipe.training.batch_size) == (1e-5, 64)
    assert recipe.data.dataset is None and recipe.prompts.replace_with is None


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_models_say_so(name):
    found = lineage.lineage_of(name)
    assert found == lineage.lineage_of(str(BUNDLED[name])) == lineage.Lineage(name)
    assert found.bundled == name


@pytest.mark.parametrize(
    ("kind", "guidance", "steps"),
    [
        ("StableDiffusionPipeline", 7.5, 50),
        ("StableDiffusionXLImg2ImgPipeline", 5.0, 50),
        ("StableDiffusion3Pipeline", 7.0, 28),
        ("FluxPipeline", 3.5, 28),
        ("SomethingElse", 7.5, 50),
    ],
)
def test_how_a_family_draws(kind, guidance, steps, tmp_path):
    """Known from the folder, or said by whoever has the pipeline."""
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": kind}))
    for recipe in (
        build(model=str(tmp_path)),
        build(model="one.safetensors", model_config_folder=str(tmp_path)),
        build_recipe({"concept": "cat", "model": "somebody/name"}, kind),
    ):
        assert (recipe.samples.guidance_scale, recipe.samples.num_inference_steps) == (guidance, steps)
    chosen = build(model=str(tmp_path), samples={"guidance_scale": 2.0})
    assert (chosen.samples.guidance_scale, chosen.samples.num_inference_steps) == (2.0, steps)


@pytest.mark.parametrize("content", ["{", "[]", '{"other": 1}'])
def test_an_index_that_says_nothing_leaves_the_common_defaults(content, tmp_path):
    (tmp_path / "model_index.json").write_text(content)
    assert build(model=str(tmp_path)).samples == build(model="somebody/name").samples


def test_a_downloaded_model_is_known_by_its_index(tmp_path, monkeypatch):
    index = tmp_path / "model_index.json"
    index.write_text('{"_class_name": "FluxPipeline"}')
    monkeypatch.setattr(
        huggingface_hub, "try_to_load_from_cache", lambda repo, name: str(index) if repo == "a/flux" else None
    )
    assert build(model="a/flux").samples.guidance_scale == 3.5
    assert build(model="a/other").samples.guidance_scale == 7.5


# what is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize("field", [field for field in fields_of() if field.is_number], ids=lambda field: field.key)
@pytest.mark.parametrize("value", [True, False])
def test_a_truth_value_is_no_number(field, value):
    chosen = {"concept": "cat", "method": {"name": field.owners[0] if field.owners else "rgd"}}
    kind = "a whole number" if field.kind is int else "a number"
    with pytest.raises(UserError, match=rf"{re.escape(field.key)}\b.*: expected {kind}.*, got {value}"):
        build_recipe(merge(chosen, nest([(field.path, value)])))
    if field.path[0] != "method":
        with pytest.raises(UserError, match=f"expected {kind}"):
            build_part(nest([(field.path, value)]), field.path[0])


def test_where_truth_values_are_meant_they_are_taken():
    recipe = build_recipe({"concept": "cat", "training": {"guard": True, "early_stop": False}})
    assert recipe.training.guard is True and recipe.training.early_stop is False
    with pytest.raises(UserError, match=r"training\.steps .*expected a whole number, got True"):
        recipe_for("cat", "tiny-canvas", {"steps": True})


def test_a_name_that_is_misspelt_is_told_the_nearest():
    with pytest.raises(UserError, match=r"^unknown option 'repalce_with'; did you mean 'replace_with'\?$"):
        recipe_for("cat", "tiny-canvas", {"repalce_with": "a dog"})
    with pytest.raises(UserError, match=r"^unknown option 'xyzzy'; expected one of \["):
        recipe_for("cat", "tiny-canvas", {"xyzzy": 1})


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"stpes": 3}, r"unknown option 'stpes'; did you mean 'training\.steps'\? `turpentine unlearn --help` lists"),
        ({"steps": 3}, r"unknown option 'steps'; did you mean 'training\.steps'\?"),
        ({"training": {"stpes": 3}}, r"unknown option 'training.stpes'; did you mean 'training\.steps'\?"),
        ({"xyzzy": 3}, r"unknown option 'xyzzy'; `turpentine unlearn --help` lists the known ones"),
        ({"method": {"name": "rgd", "stpes": 3}}, r"unknown option 'method.stpes'"),
        ({"method": {"name": "finetune", "retain_weight": 2.0}}, r"unknown option 'method.retain_weight'"),
        ({"method": {"name": "grad_diff", "projection": "global"}}, r"unknown option 'method.projection'"),
        ({"method": {"name": "rgd", "mask_share": 0.1}}, r"'method.mask_share' of this method; it belongs to salun"),
        ({"method": {"name": "esd", "forget_limit": 2}}, r"it belongs to grad_diff, grad_diff_d, rg, rgd"),
        ({"training": {"steps": 0}}, r"training\.steps \(--steps\): must be at least 1, got 0"),
        ({"training": {"learning_rate": 0}}, r"training\.learning_rate \(--learning-rate\): must be above 0, got 0"),
        ({"training": {"learning_rate": "fast"}}, r"training\.learning_rate .*expected a number, got 'fast'"),
        ({"training": {"steps": 2.5}}, r"training\.steps .*expected a whole number, got 2\.5"),
        (
            {"method": {"retain_weight": -1}},
            r"method\.retain_weight \(--retain-weight\): must be at least 0, got -1",
        ),
        ({"method": {"forget_limit": 0}}, r"method\.forget_limit \(--forget-limit\): must be above 0, got 0"),
        (
            {"audits": {"nudity_threshold": 0.1}},
            r"audits\.nudity_threshold .*must be at least 0\.25, got 0\.1",
        ),
        ({"seed": -1}, r"seed: must be at least 0, got -1"),
        ({"kind": "person"}, r"kind: expected 'object', 'style', 'nudity' or 'class', got 'person'"),
        (
            {"training": {"parameters": "attn"}},
            r"training\.parameters .*expected 'full', 'xattn', 'noxattn' or 'lora'",
        ),
        (
            {"output": {"formats": ["ckpt"]}},
            r"output\.formats \(--formats\): expected 'diffusers', 'denoiser', .*'delta'",
        ),
        (
            {"output": {"dtype": "int8"}},
            r"output\.dtype \(--dtype\): expected 'fp32', 'fp16' or 'bf16', got 'int8'",
        ),
        ({"training": {"learning_rate": math.nan}}, r"training\.learning_rate .*expected a finite number, got nan"),
        ({"samples": {"guidance_scale": "inf"}}, r"samples\.guidance_scale .*expected a finite number, got 'inf'"),
        ({"method": {"name": "esd", "negative_guidance": math.inf}}, r"negative_guidance .*expected a finite number"),
        ({"training": {"guard": "maybe"}}, r"training\.guard \(--guard\): expected true or false, got 'maybe'"),
        ({"training": "fast"}, r"training: expected a section with options, each as `name: value`, got 'fast'"),
        ({"output": {"formats": "lora"}}, r"output\.formats .*: expected a list, got 'lora'"),
        ({"output": {"formats": []}}, r"output\.formats .*: expected one or several formats, each once, got none"),
        ({"output": {"formats": ["lora", "delta", "lora"]}}, r"each once, got lora,delta,lora$"),
        ({"concept": ["cat", 3]}, r"concept: expected a text, got 3"),
        ({"concept": "  "}, r"concept: expected the name of a concept, got an empty text"),
        ({"method": {"name": "magic"}}, r"method must be one of \['esd', .*'rg', 'rgd', 'salun', .*\], got 'magic'"),
    ],
)
def test_refused_in_words(chosen, message):
    with pytest.raises(UserError, match=message):
        build(**chosen)


def test_missing_concept():
    with pytest.raises(UserError, match="expected a concept: --concept cat"):
        build_recipe({})


def test_every_problem_is_named():
    with pytest.raises(UserError, match=r"training\.steps .*; audits\.images \(--audit-images\): .*"):
        build(training={"steps": 0}, audits={"images": 0})


# consistency ------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["tiny-canvas", "someone/stable-diffusion", "some/other-family"])
def test_the_weights_that_define_a_method_train_on_every_model(model):
    for method, which in (("esd", "full"), ("esd-x", "xattn"), ("esd-u", "noxattn"), ("salun", "full")):
        recipe = build(model=model, method={"name": method})
        assert recipe.training.parameters == which
    assert build(model=model, method={"name": "esd-x"}, training={"parameters": "full"}).training.parameters == "full"


def test_data_and_combination_are_chosen_apart():
    assert build(method={"name": "grad_diff"}).method.data == "uniform"
    diverse = build(method={"name": "grad_diff", "data": "diverse"}).method
    named = build(method={"name": "grad_diff_d"}).method
    assert diverse.data == named.data == "diverse"
    assert set(type(diverse).model_fields) == set(type(named).model_fields)
    assert build(method={"name": "rgd", "data": "uniform"}).method.data == "uniform"


@pytest.mark.parametrize("method", ["finetune", "grad_diff", "salun", "esd"])
def test_metric_needs_a_projection(method):
    with pytest.raises(UserError, match=f"training.metric 'adam' belongs to rg and rgd, got method '{method}'"):
        build(method={"name": method}, training={"metric": "adam"})


@pytest.mark.parametrize("method", ["finetune", "salun", "esd", "esd-x", "esd-u"])
def test_only_a_forget_gradient_that_is_read_tensor_by_tensor_can_wait(method):
    message = rf"training\.forget_gradient belongs to grad_diff, grad_diff_d, rg and rgd, got method '{method}'"
    with pytest.raises(UserError, match=message):
        build(method={"name": method}, training={"forget_gradient": "cpu"})


@pytest.mark.parametrize("method", ["grad_diff", "grad_diff_d", "rg", "rgd"])
def test_a_forget_gradient_waits(method):
    assert build(method={"name": method}, training={"forget_gradient": "cpu"}).training.forget_gradient == "cpu"


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ({"name": "magic"}, r"method: method must be one of \['esd', .*'salun', .*\], got 'magic'"),
        ({"data": "uniform"}, r"method: expected a mapping with the name of a method, one of \['esd'.*'uniform'"),
        ("rgd", r"method: expected a mapping with the name of a method, one of \['esd', .*\], got 'rgd'"),
        ({"name": "rgd", "forget_limit": "x", "stpes": 1}, r"method\.forget_limit .*number.*'method\.stpes'"),
    ],
)
def test_a_method_is_read_by_its_name(method, message):
    with pytest.raises(ValidationError) as failure:
        Recipe.model_validate({"concept": "cat", "method": method})
    assert re.search(message, describe(failure.value)), describe(failure.value)


def test_a_method_is_written_with_its_own_options():
    recipe = build(method={"name": "esd-x", "start_steps": 7})
    assert recipe.model_dump(mode="json")["method"]["start_steps"] == 7
    assert Recipe.model_validate(recipe.model_dump()) == recipe


@pytest.mark.parametrize("method", ["rg", "rgd"])
def test_metric_of_projecting_methods(method):
    assert build(method={"name": method}, training={"metric": "adam"}).training.metric == "adam"


def test_batch_splits_evenly():
    with pytest.raises(UserError, match="multiple of gradient_accumulation_steps, got 8 and 3"):
        build(training={"batch_size": 8, "gradient_accumulation_steps": 3})
    assert build(training={"batch_size": 9, "gradient_accumulation_steps": 3})


def test_guard_needs_two_objectives():
    for method in ("finetune", "esd"):
        with pytest.raises(UserError, match=rf"training\.guard .*'{method}'"):
            build(method={"name": method}, training={"guard": True})
    for method in ("grad_diff", "salun", "rg", "rgd"):
        assert build(method={"name": method}, training={"guard": True}).training.guard


# merging ----------------------------------------------------------------------------------------


def test_merge_is_deep_and_changes_neither():
    base = {"a": {"x": 1, "y": 2}, "b": 3}
    over = {"a": {"y": 5}, "c": None}
    assert merge(base, over) == {"a": {"x": 1, "y": 5}, "b": 3, "c": None}
    assert base == {"a": {"x": 1, "y": 2}, "b": 3} and over == {"a": {"y": 5}, "c": None}


def test_another_method_name_drops_the_first_ones_options():
    base = {"method": {"name": "rgd", "projection": "per_layer", "retain_weight": 9.0}}
    assert merge(base, {"method": {"name": "grad_diff"}}) == {"method": {"name": "grad_diff"}}
    same = merge(base, {"method": {"name": "rgd", "retain_weight": 2.0}})
    assert same == {"method": {"name": "rgd", "projection": "per_layer", "retain_weight": 2.0}}
    assert merge(base, {"method": {"retain_weight": 2.0}})["method"]["projection"] == "per_layer"


def test_method_switch_builds():
    recipe = build_recipe(
        merge(
            {"concept": "cat", "method": {"name": "rgd", "projection": "per_layer"}}, {"method": {"name": "finetune"}}
        )
    )
    assert recipe.method == find("finetune").config()


def test_none_overrides_a_default():
    assert build(method={"forget_limit": None}).method.forget_limit is None


def test_unknown_method_has_no_defaults():
    with pytest.raises(UserError, match="method must be one of"):
        defaults_for("tiny-canvas", "magic")


# reading ----------------------------------------------------------------------------------------


def test_numbers_that_yaml_takes_for_text(tmp_path):
    (tmp_path / "r.yaml").write_text("concept: cat\ntraining:\n  learning_rate: 2e-4\n")
    assert build_recipe(read_yaml(tmp_path / "r.yaml")).training.learning_rate == 2e-4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- cat\n", r"expected a recipe \(a YAML mapping\) in .*r\.yaml, got list"),
        ("", "got NoneType"),
        ("a: [1\n", r"can't read the recipe .*r\.yaml"),
        ("concept: cat\nseed: 1\nconcept: dog\n", r"the key 'concept' stands in line 1 and in line 3"),
        ("training:\n  steps: 3\n  steps: 3\n", r"the key 'steps' stands in line 2 and in line 3"),
        ("? [a]\n: 1\n", r"can't read the recipe .*r\.yaml"),
        ("a: !!python/object/apply:os.getcwd []\n", r"can't read the recipe .*r\.yaml"),
    ],
)
def test_files_that_are_no_recipe(tmp_path, content, message):
    (tmp_path / "r.yaml").write_text(content)
    with pytest.raises(UserError, match=message):
        read_yaml(tmp_path / "r.yaml")


def test_keys_that_repeat_in_other_sections_are_no_fault(tmp_path):
    (tmp_path / "r.yaml").write_text("method: {name: rgd}\naudits: {images: 3}\nprompts: {n: 3}\nsamples: {n: 3}\n")
    assert read_yaml(tmp_path / "r.yaml")["audits"] == {"images": 3}


def test_a_shipped_recipe_is_known_by_its_name_whatever_lies_around(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("nudity-sd14").mkdir()
    assert read_yaml("nudity-sd14")["kind"] == "nudity"
    Path("nudity-sd14.yaml").write_text("concept: own\n")
    assert read_yaml("./nudity-sd14.yaml") == {"concept": "own"}


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(UserError, match=r"can't read the recipe .*none\.yaml.*No such file"):
        read_yaml(tmp_path / "none.yaml")
    (tmp_path / "r.yaml").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(UserError, match="can't read the recipe"):
        read_yaml(tmp_path / "r.yaml")


# what front ends see ----------------------------------------------------------------------------


def test_options_cover_every_field_exactly_once():
    expected = set()
    for name, field in Recipe.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            expected |= {(name, inner) for inner in field.annotation.model_fields}
        elif name == "method":
            expected |= {("method", inner) for method in names() for inner in find(method).config.model_fields}
        else:
            expected.add((field.alias or name,))
    counts = Counter(field.path for field in fields_of())
    assert set(counts) == expected - {("method", "name")}
    assert set(counts.values()) == {1}


def test_every_option_is_described():
    for field in fields_of():
        assert field.help and len(field.help) > 5, field.path


def test_notes_tell_whose_option_it_is():
    notes = {field.path[1]: field.note for field in fields_of("method")}
    assert notes["data"] == ""
    assert notes["retain_weight"] == "for grad_diff, grad_diff_d, salun, rg, rgd"
    assert notes["forget_limit"] == "for grad_diff, grad_diff_d, rg, rgd"
    assert notes["projection"] == "for rg, rgd"
    assert notes["mask_share"] == "for salun"
    assert notes["negative_guidance"] == "for esd, esd-x, esd-u"


def test_choices():
    known = fields()
    assert known["kind"].choices == ("object", "style", "nudity", "class")
    assert known["parameters"].choices == ("full", "xattn", "noxattn", "lora")
    assert known["seed"].choices == ()
    assert set(known) == {field.name for field in fields_of()} and len(known) == len(fields_of())


def test_world_and_nudity():
    def world(**chosen):
        return resolve(build(**chosen)).world.name

    def counts_nudity(**chosen):
        return resolve(build(**chosen)).counts_nudity

    assert world() == "tiny-canvas" and world(model="a/b") == "open"
    assert world(model="/models/tiny-canvas") == "open", "a name tells nothing"
    assert world(model="tiny-canvas-dit") == "tiny-canvas"
    assert counts_nudity(model="tiny-canvas-dit", concept="astronaut")
    assert not counts_nudity() and counts_nudity(concept="astronaut")
    assert counts_nudity(model="a/b", concept="nudity", kind="nudity")
    assert not counts_nudity(model="a/b", concept="cat")
    assert counts_nudity(audits={"nudity": "on"})
    assert not counts_nudity(concept="astronaut", audits={"nudity": "off"})


def test_several_concepts_are_a_tuple_in_the_program_and_one_text_in_documents():
    recipe = build(concept="cat + pop art")
    assert recipe.concepts == ("cat", "pop art") and recipe.concept == "cat + pop art"
    assert recipe.model_dump(mode="json")["concept"] == "cat + pop art"
    assert build(concept=["cat", "pop art"]) == recipe
    assert yaml.safe_load(recipe.to_yaml())["concept"] == "cat + pop art"
    with pytest.raises(UserError, match="expected different concepts"):
        build(concept="cat + Cat")


def test_a_recipe_reads_nothing(monkeypatch):
    """Values only: whoever wants to know what the disk says asks `resolve`."""
    recipe = build(model="/nowhere/at-all")
    monkeypatch.setattr(lineage, "_weights_file", lambda path: pytest.fail(f"looked for {path}"))
    for name in dir(type(recipe)):
        if not name.startswith("_") and isinstance(getattr(type(recipe), name, None), property):
            getattr(recipe, name)


@pytest.mark.parametrize("model", ["tiny-canvas", "tiny-canvas-dit", "some/model"])
def test_the_papers_method_is_one_word_away(model):
    """An option may have settings of its own for one of its values; what was chosen wins over them."""
    today = build_recipe({"concept": "cat", "model": model})
    papers = build_recipe({"concept": "cat", "model": model, "method": {"forget": "ascend"}})
    assert (today.method.forget, today.prompts.replace_with) == ("redirect", "auto")
    assert (papers.method.forget, papers.method.retain, papers.prompts.replace_with) == ("ascend", "denoise", None)
    assert papers.method.combine == today.method.combine == "restricted"
    if model.startswith("tiny"):
        assert (papers.prompts.n, papers.training.steps, papers.samples.training_num_inference_steps) == (
            512,
            200,
            None,
        )
        assert (papers.method.retain_weight, papers.method.forget_limit) == (5.0, 8.0)
        assert papers.training.learning_rate == today.training.learning_rate
    chosen = {
        "concept": "cat",
        "model": model,
        "method": {"forget": "ascend", "retain_weight": 2.0},
        "prompts": {"n": 7},
    }
    assert (build_recipe(chosen).method.retain_weight, build_recipe(chosen).prompts.n) == (2.0, 7)


@pytest.mark.parametrize("method", ["rgd", "rg", "salun"])
def test_a_run_of_an_older_version_stays_what_it_was(method):
    """What a stored recipe lacks came later: it is off, whatever the defaults are today."""
    kept = build_recipe({"concept": "cat", "method": {"name": method}}).model_dump(mode="json")
    for section, late in (("method", ("forget", "retain", "combine")), ("prompts", ("replace_with",))):
        for name in late:
            kept[section].pop(name, None)
    stored = stored_recipe(kept)
    assert stored.prompts.replace_with is None and stored.prompts.n == kept["prompts"]["n"]
    if method != "salun":
        assert (stored.method.forget, stored.method.retain, stored.method.combine) == (
            "ascend",
            "denoise",
            "restricted",
        )
    assert stored_recipe(stored.model_dump(mode="json")) == stored
    with pytest.raises(UserError, match="unknown option 'colour'"):
        stored_recipe({**kept, "colour": "red"})
