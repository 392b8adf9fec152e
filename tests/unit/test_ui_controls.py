"""The app's components are the recipe's fields: nothing is typed twice, nothing gets lost."""

import pytest

pytest.importorskip("gradio")

import gradio as gr
from turpentine.pipeline.methods import names
from turpentine.pipeline.schema.defaults import build_recipe, merge
from turpentine.pipeline.schema.fields import value_at
from turpentine.pipeline.schema.presets import PRESETS, preset_for
from turpentine.ui.access import settable
from turpentine.ui.controls import (
    FIELDS,
    METHOD,
    Controls,
    component_for,
    from_component,
    starting_recipe,
    to_component,
)

SETTABLE = [path for path, field in FIELDS.items() if settable(field)]


def every_control() -> Controls:
    controls = Controls()
    with gr.Blocks():
        controls.add(METHOD)
        for path in SETTABLE:
            controls.add(path)
    return controls


@pytest.mark.parametrize("path", SETTABLE, ids=".".join)
def test_a_component_tells_what_the_field_says(path):
    field = FIELDS[path]
    component = component_for(path, value_at(starting_recipe({"concept": "cat"}), path))
    assert field.help in component.info and field.note in component.info
    assert component.label.lower() == path[-1].replace("_", " ")


@pytest.mark.parametrize("method", names())
@pytest.mark.parametrize("preset", PRESETS)
def test_the_page_gives_back_the_recipe_that_it_shows(method, preset):
    """recipe -> components -> recipe, for every method and preset."""
    controls = every_control()
    recipe = starting_recipe({"concept": "cat", "method": {"name": method}}, preset)
    updates = controls.filled(recipe)
    values = [update.get("value") if update.get("visible", True) else None for update in updates]
    again = build_recipe(controls.nested(values))
    closed = {path for path in FIELDS if path not in SETTABLE}
    assert again.method == recipe.method
    assert again.model_dump(exclude={"prompts"}) == recipe.model_dump(exclude={"prompts"})
    assert {path[-1] for path in closed} >= {"file", "llm_url", "llm_model"}


def test_a_text_that_may_be_absent_is_an_empty_box():
    path = ("prompts", "replace_with")
    assert to_component(path, None) == "" and to_component(path, "a dog") == "a dog"
    assert from_component(path, "") is None and from_component(path, " ") is None
    assert from_component(path, "a dog") == "a dog" and to_component(("training", "max_grad_norm"), None) == "none"


def test_options_of_other_methods_are_hidden():
    controls = every_control()
    assert controls.components["method", "mask_share"].visible is False  # of another method than the first
    assert controls.components["method", "retain_weight"].visible is True
    updates = dict(
        zip(
            controls.components,
            controls.filled(starting_recipe({"concept": "cat", "method": {"name": "finetune"}})),
            strict=True,
        )
    )
    assert updates[("method", "retain_weight")]["visible"] is False
    assert updates[("training", "steps")]["value"] > 0


@pytest.mark.parametrize("path", SETTABLE, ids=".".join)
def test_values_survive_the_component(path):
    value = value_at(build_recipe({"concept": "cat", "prompts": {"synonyms": ["kitten", "tomcat"]}}), path)
    back = from_component(path, to_component(path, value))
    assert back == value or (isinstance(value, tuple) and tuple(back or ()) == value)


def test_whole_numbers_stay_whole():
    assert isinstance(from_component(("training", "steps"), 5.0), int)
    assert from_component(("training", "steps"), 5.5) == 5.5
    assert from_component(("training", "max_grad_norm"), None) is None


def test_presets_change_the_steps():
    steps = {
        name: preset_for(name, "tiny-canvas", "rgd")["training"]["steps"] for name in ("gentle", "balanced", "thorough")
    }
    assert steps["gentle"] * 2 == steps["balanced"] == steps["thorough"] / 2
    paper = build_recipe(merge({"concept": "x"}, preset_for("paper", "tiny-canvas", "rgd")))
    assert (paper.method.retain_weight, paper.method.forget_limit, paper.training.learning_rate) == (1.5, 1.6, 1e-5)


def test_pictures_are_drawn_in_the_course_of_a_training():
    recipe = starting_recipe({"concept": "cat", "training": {"steps": 4}})
    assert recipe.training.preview_every == 1
