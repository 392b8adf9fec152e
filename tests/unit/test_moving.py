"""Weights that move with the losses: a multiplier for a budget, and FAMO's."""

import math
from dataclasses import replace

import pytest
import torch
from turpentine.pipeline.methods import build_method, find
from turpentine.pipeline.methods.base import Loss
from turpentine.pipeline.methods.moving import Dual, Famo
from turpentine.pipeline.schema.defaults import build_recipe
from turpentine.pipeline.schema.idle import idle_options
from turpentine.pipeline.schema.resolve import resolve
from turpentine.pipeline.support.errors import UserError


def losses(forget, retain, rises=True):
    return {
        "forget": Loss(torch.tensor(-forget if rises else forget), forget),
        "retain": Loss(torch.tensor(retain), retain),
    }


# budget -------------------------------------------------------------------------------------------


def test_the_multiplier_climbs_by_the_excess_and_stays_above_zero():
    dual = Dual(start=1.0, budget=0.1, rate=2.0)
    dual.before = (1.0, 3.0)
    dual.observe(0, losses(9.0, 1.6))
    assert dual.value == pytest.approx(1 + 2 * (1.6 - 1.1) / 2)
    dual.observe(1, losses(9.0, 1.0))
    assert dual.value == 0
    dual.observe(0, losses(9.0, 1.6))
    assert dual.value == pytest.approx(0.5), "it rises at once, not after paying back what it saved"


def test_a_distance_to_the_original_counts_as_the_rise():
    dual = Dual(start=1.0, budget=0.1, rate=2.0)
    dual.before = (1.0, 3.0)
    distance = losses(9.0, 0.5)
    distance["retain"] = replace(distance["retain"], is_distance=True)
    dual.observe(1, distance)
    assert dual.value == pytest.approx(1 + 2 * (3.5 - 3.3) / 2)


def test_a_budget_holds_where_the_two_losses_pull_apart():
    """min -x^2-like push up against (x - 1)^2 + 1: dual ascent settles where L_r is what the budget allows."""
    x, dual = 1.0, Dual(start=0.0, budget=0.05, rate=1.0)
    dual.before = [1.0] * 4000
    for step in range(4000):
        retain = (x - 1) ** 2 + 1
        dual.observe(step, losses(1.0, retain))
        x -= 0.01 * (-1.0 + dual.value * 2 * (x - 1))
    assert (x - 1) ** 2 == pytest.approx(0.05, rel=0.05)


def test_the_multiplier_is_remembered():
    dual, other = Dual(2.0, 0.1), Dual(2.0, 0.1)
    dual.before = (1.0,)
    dual.observe(0, losses(1.0, 1.5))
    other.load_state_dict(dual.state_dict())
    assert other.value == dual.value != 2.0


# famo ---------------------------------------------------------------------------------------------


def test_famo_begins_at_lambda_and_divides_by_the_losses():
    famo = Famo(3.0)
    assert famo.value == pytest.approx(3.0)
    famo.observe(0, losses(8.0, 2.0))
    assert famo.value == pytest.approx(3.0 * 8 / 2), "w_r / l_r over w_f / l_f"


@pytest.mark.parametrize(("rises", "sign"), [(True, 1), (False, -1)])
def test_famo_by_hand(rises, sign):
    famo = Famo(1.0, rate=0.5, decay=0.1, memory=0.0)
    famo.observe(0, losses(1.0, 1.0, rises))
    famo.observe(1, losses(math.e, math.e, rises))
    # delta_r = -1; the forget objective fell by 1 if it is to rise, and rose by 1 if it is to fall
    logit = -0.5 * 2 * 0.25 * (-1 - sign)
    assert famo.logit == pytest.approx(logit)
    assert famo.value == pytest.approx(math.exp(logit))
    famo.observe(2, losses(math.e, math.e, rises))
    assert famo.logit == pytest.approx(logit * (1 - 0.5 * 0.1)), "drawn back to lambda"


def test_famo_shifts_weight_to_what_falls_more_slowly():
    famo = Famo(1.0)
    for step in range(30):
        famo.observe(step, losses(1.0 * 1.1**step, 1.0))
    assert famo.logit > 0.1, "the forget loss does well, so the retain loss gets more"


def test_famo_begins_anew_where_the_forget_loss_becomes_another():
    famo = Famo(1.0)
    famo.observe(0, losses(8.0, 1.0, rises=True))
    famo.observe(1, losses(0.1, 1.0, rises=False))
    assert famo.logit == 0 and famo.means == (0.1, 1.0)


def test_famo_bears_losses_of_zero_and_remembers():
    famo, other = Famo(1.0), Famo(1.0)
    for step, loss in enumerate((0.0, 1e30, 0.0, 0.0)):
        famo.observe(step, losses(loss, 0.0, rises=False))
        assert math.isfinite(famo.value) and famo.value >= 0
    other.load_state_dict(famo.state_dict())
    assert (other.value, other.logit, other.means) == (famo.value, famo.logit, famo.means)
    fresh = Famo(2.0)
    fresh.load_state_dict(Famo(2.0).state_dict())
    assert fresh.value == pytest.approx(2.0)


def test_famo_weights_add_up_to_those_of_a_sum():
    method = build_method(find("rgd").config(combine="famo", retain_weight=3.0))
    assert method.weigh() == {"forget": 0.5, "retain": 1.5}
    assert build_method(find("rgd").config()).weigh() is None


# what goes together -------------------------------------------------------------------------------


def recipe(method=None, **training):
    chosen = {"name": "rgd", "retain": "denoise", **(method or {})}
    return build_recipe({"concept": "cat", "method": chosen, "training": training})


@pytest.mark.parametrize(
    ("rule", "training", "message"),
    [
        ("famo", {"guard": True}, "training.guard .* must stay False, got True: combine 'famo' keeps one gradient"),
        ("famo", {"metric": "adam"}, "training.metric .* must stay 'euclidean', got 'adam': combine 'famo'"),
        ("famo", {"forget_gradient": "cpu"}, "training.forget_gradient .* must stay 'whole', got 'cpu'"),
        (
            "sum",
            {"metric": "adam"},
            "training.metric .* must stay 'euclidean', .*combine 'sum' takes no inner products",
        ),
        ("budget", {"metric": "adam"}, "combine 'budget' takes no inner products"),
    ],
)
def test_what_a_rule_refuses(rule, training, message):
    with pytest.raises(UserError, match=message):
        recipe({"combine": rule}, **training)
    assert recipe({"combine": "bisector"}, **training).method.rule == "bisector"


def test_famo_needs_a_weight_and_rules_a_name():
    with pytest.raises(UserError, match="combine 'famo' needs retain 'denoise', got 'distil', a loss that begins at 0"):
        recipe({"combine": "famo", "retain": "distil"})
    assert recipe({"combine": "budget", "retain": "distil"}).method.compares
    with pytest.raises(UserError, match="combine 'famo' needs a retain_weight above 0, got 0"):
        recipe({"combine": "famo", "retain_weight": 0})
    with pytest.raises(UserError, match=r"method\.combine"):
        recipe({"combine": "magic"})
    with pytest.raises(UserError, match=r"unknown option 'method.combine'"):
        build_recipe({"concept": "cat", "method": {"name": "grad_diff", "combine": "sum"}})


@pytest.mark.parametrize(
    ("method", "idle"),
    [
        ({"combine": "mgda", "retain_weight": 3.0}, ["method.retain_weight"]),
        ({"combine": "sum", "projection": "per_layer"}, ["method.projection"]),
        ({"budget": 2.0}, ["method.budget"]),
        ({"combine": "budget", "budget": 2.0, "retain_weight": 3.0}, []),
        ({"combine": "cagrad", "projection": "per_layer", "retain_weight": 3.0}, []),
    ],
)
def test_options_without_effect_are_told(method, idle):
    lines = [line for line in idle_options(resolve(recipe(method))) if line.startswith("method.")]
    assert [line.split(" ")[0] for line in lines] == idle
    assert all("with method.combine" in line for line in lines)


def test_famo_is_planned_with_one_gradient():
    assert recipe().method.gradients == 2 and recipe({"combine": "famo"}).method.gradients == 1
