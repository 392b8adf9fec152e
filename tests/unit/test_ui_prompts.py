"""Which prompts of the page's table a run is given."""

import pytest

pytest.importorskip("gradio")

from turpentine.pipeline.run.prompts import prompts_of
from turpentine.pipeline.schema.defaults import build_recipe
from turpentine.pipeline.schema.resolve import resolve
from turpentine.pipeline.support.errors import UserError
from turpentine.ui.steps.prompts import edited, own_pairs, rows_of, verdict

RECIPE = build_recipe({"concept": "cat", "prompts": {"n": 4, "n_test": 2, "replace_with": None}})


def test_only_what_the_recipe_cannot_make_again_is_kept():
    made = prompts_of(resolve(RECIPE))
    rows = rows_of(made)
    assert own_pairs(made, rows, RECIPE) is None
    of_a_model = made.model_copy(update={"source": "llm"})
    assert own_pairs(of_a_model, rows, RECIPE) is of_a_model
    changed = [["train", "a cat on a chair", "a dog on a chair"], *rows[1:]]
    own = own_pairs(made, changed, RECIPE)
    assert own.source == "file" and own.train[0].forget == "a cat on a chair" and len(own.test) == 2


def test_what_is_drawn_instead_is_shown_and_can_be_changed():
    recipe = build_recipe({"concept": "cat", "prompts": {"n": 4, "n_test": 2, "replace_with": "a horse"}})
    made = prompts_of(resolve(recipe))
    rows = rows_of(made)
    assert [row[3] for row in rows] == made.anchor_train + made.anchor_test and all("horse" in row[3] for row in rows)
    assert own_pairs(made, rows, recipe) is None, "the recipe makes the same"
    own = own_pairs(made, [[*rows[0][:3], "a rocket"], [*rows[1][:3], ""], *rows[2:]], recipe)
    assert own.anchor_train[:2] == ["a rocket", own.retain_train[1]] and own.train[2:] == made.train[2:]
    with pytest.raises(UserError, match="train row 1: expected an anchor without what is removed"):
        edited(made, [[*rows[0][:3], "two cats"], *rows[1:]])
    assert "Drawn instead: <b>a horse</b>" in verdict(made) and "Drawn instead" not in verdict(made, ["no effect"])
    paired = build_recipe({"concept": "cat", "prompts": {"n": 4, "n_test": 2, "replace_with": None}})
    assert [row[3] for row in rows_of(prompts_of(resolve(paired)))] == [""] * 6


def test_audits_need_test_rows():
    made = prompts_of(resolve(RECIPE))
    with pytest.raises(UserError, match="expected some test rows"):
        own_pairs(made, [row for row in rows_of(made) if row[0] == "train"], RECIPE)


def test_changed_rows_are_checked_like_those_of_a_file():
    made = prompts_of(resolve(RECIPE))
    rows = rows_of(made)
    for retain in ("two KITTENS", "cat_girl", "(cat:1.3)", "catʼs"):
        with pytest.raises(UserError, match="train row 1: expected a retain prompt without 'cat'"):
            edited(made, [["train", "a cat", retain], *rows[1:]])
    changed = edited(made, [["", "", ""], ["train", "a bird", "a dog"], *rows[1:]])
    assert changed.warnings == ("1 forget prompt without 'cat' (the first in row 2)",)
    with pytest.raises(UserError, match="row 2: split must be train or test, got 'val'"):
        edited(made, [["", "", ""], ["val", "a cat", "a dog"], *rows[1:]])
