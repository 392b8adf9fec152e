"""Rules for two gradients: by hand, against torchjd in float64, and by what each promises."""

import math
from typing import get_args

import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from torchjd.aggregation import IMTLG, MGDA, AlignedMTL, CAGrad, NashMTL, PCGrad, UPGrad
from torchjd.linalg import QuadprogProjector
from turpentine.pipeline.maths.choices import RULES, RuleName
from turpentine.pipeline.maths.gradients import Gram, Waiting, gram
from turpentine.pipeline.maths.rules import BY_GRAM, CAGRAD_RADIUS, MEASURING, combine, mgda, sign_gated

SHAPES = [(3, 4), (5,), (2, 1, 3)]
RAISES_NEITHER = ("restricted", "bisector", "mgda")
NEVER_RAISES_RETAIN = (*RAISES_NEITHER, "retain_first", "sago")


def direction(name, grads, retain_weight=1.0, **options):
    if name == "sago":
        return sign_gated(grads, retain_weight)
    return combine(grads, BY_GRAM[name], retain_weight, **options)


def flat(tensors):
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def split(vector):
    sizes = [math.prod(shape) for shape in SHAPES]
    return [part.reshape(shape) for part, shape in zip(vector.split(sizes), SHAPES, strict=True)]


def pair(seed, scale=1.0, lean=0.0):
    """Two random gradients; `lean` moves the second towards the first (or, below 0, against it)."""
    generator = torch.Generator().manual_seed(seed)
    forget, retain = torch.randn(2, 23, generator=generator, dtype=torch.float64)
    return {"forget": split(forget), "retain": split(scale * (retain + lean * forget))}


def inner(grads):
    return Gram.of(gram([grads["forget"], grads["retain"]]).sum(0))


random_pairs = given(st.integers(0, 10_000), st.floats(1e-3, 1e3), st.floats(-30, 30))


def test_every_rule_is_offered_and_described():
    assert set(BY_GRAM) | {"sago", "budget", "famo"} == set(RULES) == set(get_args(RuleName))
    assert set(BY_GRAM) - MEASURING == {"sum"}


# against torchjd ----------------------------------------------------------------------------------

ORACLES = {  # rule -> torchjd's aggregator of a weight, and what ours is of theirs
    "bisector": (lambda weight: IMTLG(), 2.0),
    "mgda": (lambda weight: MGDA(epsilon=1e-12, max_iters=1000), 2.0),
    "aligned": (lambda weight: AlignedMTL(torch.tensor([1.0, weight], dtype=torch.float64)), 1.0),
}


@pytest.mark.parametrize("name", ORACLES)
@random_pairs
@settings(deadline=None, max_examples=40)
def test_equals_torchjd(name, seed, scale, lean):
    make, factor = ORACLES[name]
    grads = pair(seed, scale, lean)
    matrix = torch.stack([flat(grads["forget"]), flat(grads["retain"])])
    for weight in (1.0, 2.5):
        ours, theirs = flat(direction(name, grads, weight)), factor * make(weight)(matrix)
        assert (ours - theirs).norm() <= 1e-6 * (ours.norm() + 1e-3 * matrix.norm())


@random_pairs
@settings(deadline=None, max_examples=40)
def test_restricted_is_upgrad_with_a_preference(seed, scale, lean):
    grads = pair(seed, scale, lean)
    matrix = torch.stack([flat(grads["forget"]), flat(grads["retain"])])
    norms = matrix.norm(dim=1)
    exact = QuadprogProjector(norm_eps=0.0, reg_eps=1e-13)  # by default they add 1e-4 to the diagonal
    for weight in (1.0, 2.5):
        preference = norms * torch.tensor([1.0, weight], dtype=torch.float64)
        theirs = UPGrad(preference, projector=exact)(matrix / norms[:, None])  # their solver is exact near length 1
        ours = flat(direction("restricted", grads, weight))
        assert (ours - theirs).norm() <= 1e-6 * matrix.norm()
    grads = pair(seed, 1.0, lean)
    matrix = torch.stack([flat(grads["forget"]), flat(grads["retain"])])
    alike = 2 * UPGrad(projector=exact)(matrix)
    assert (flat(direction("restricted", grads, 1.0)) - alike).norm() <= 1e-6 * matrix.norm()


@random_pairs
@settings(deadline=None, max_examples=40)
def test_restricted_is_pcgrad(seed, scale, lean):
    grads = pair(seed, scale, lean)
    theirs = PCGrad()(torch.stack([flat(grads["forget"]), flat(grads["retain"])]))
    torch.testing.assert_close(flat(direction("restricted", grads)), theirs, rtol=1e-9, atol=1e-9)


@random_pairs
@settings(deadline=None, max_examples=40)
def test_bisector_is_nash_mtl(seed, scale, lean):
    """Nash-MTL solves G a = 1 / a, in which the direction's length is the root of the number of tasks."""
    grads = pair(seed, scale, lean)
    d = flat(direction("bisector", grads))
    products = inner(grads)
    assume(products.cosine > -1 + 1e-6)
    nash = d * math.sqrt(2) / d.norm()
    share = (nash @ flat(grads["forget"]), nash @ flat(grads["retain"]))  # G a
    a = torch.linalg.lstsq(torch.stack([flat(grads["forget"]), flat(grads["retain"])]).T, nash[:, None]).solution
    torch.testing.assert_close(torch.stack(share) * a[:, 0], torch.ones(2, dtype=torch.float64), rtol=1e-6, atol=0)


@given(st.integers(0, 10_000), st.floats(0.5, 2), st.floats(-1, 3))
@settings(deadline=None, max_examples=10)
def test_bisector_has_the_direction_of_torchjds_nash_mtl(seed, scale, lean):
    """Their solver iterates in steps, and stops at a thousandth."""
    grads = pair(seed, scale, lean)
    theirs = NashMTL(n_tasks=2, max_norm=0.0)(torch.stack([flat(grads["forget"]), flat(grads["retain"])]))
    assert torch.nn.functional.cosine_similarity(flat(direction("bisector", grads)), theirs, dim=0) > 1 - 1e-5


@random_pairs
@settings(deadline=None, max_examples=40)
def test_cagrad_equals_torchjd(seed, scale, lean):
    """Ours reaches no less for the worse-off. Their solver stops somewhat before, by a little or by more."""
    grads = pair(seed, scale, lean)
    matrix = torch.stack([flat(grads["forget"]), flat(grads["retain"])])
    ours = flat(direction("cagrad", grads))
    theirs = 2 * CAGrad(c=CAGRAD_RADIUS, norm_eps=0.0)(matrix)
    reached, there = (matrix @ ours).min(), (matrix @ theirs).min()
    assert -1e-6 <= (reached - there) / matrix.norm() ** 2 <= 1e-4
    assert (ours - theirs).norm() <= 1e-3 * matrix.norm()


@random_pairs
@settings(deadline=None, max_examples=40)
def test_cagrad_helps_the_worse_off_most(seed, scale, lean):
    """No direction of a fine net in the ball does better; any lambda."""
    grads = pair(seed, scale, lean)
    for weight in (0.0, 1.0, 4.0):
        f, r = flat(grads["forget"]), flat(grads["retain"])
        found, start = flat(direction("cagrad", grads, weight)), f + weight * r
        radius = CAGRAD_RADIUS * start.norm()
        assert (found - start).norm() <= radius * (1 + 1e-9)
        basis = torch.linalg.qr(torch.stack([f, r]).T).Q
        angles = torch.linspace(0, 2 * math.pi, 721, dtype=torch.float64)
        around = start + radius * (basis @ torch.stack([angles.cos(), angles.sin()])).T
        worst = torch.minimum(around @ f, around @ r).max()
        assert torch.minimum(found @ f, found @ r) >= worst - 1e-6 * radius * (f.norm() + r.norm())


# by hand ------------------------------------------------------------------------------------------

HAND = {  # g_f = (1, 0), g_r = (-1, 1), lambda = 2
    "sum": (-1.0, 2.0),
    "restricted": (0.5, 2.5),
    "retain_first": (-1.5 + 0.0, 2.5),
    "sago": (-2.0, 2.0),
}


@pytest.mark.parametrize("name", HAND)
def test_by_hand(name):
    grads = {
        "forget": [torch.tensor([1.0, 0.0], dtype=torch.float64)],
        "retain": [torch.tensor([-1.0, 1.0], dtype=torch.float64)],
    }
    assert direction(name, grads, 2.0)[0].tolist() == pytest.approx(HAND[name])


def test_sago_takes_each_entry_of_one_gradient():
    forget = torch.tensor([1.0, 1.0, -1.0, -1.0, 0.0, 2.0, 1e-30])
    retain = torch.tensor([3.0, -3.0, 3.0, -3.0, 3.0, 0.0, -1e-30])
    d = sign_gated({"forget": [forget], "retain": [retain]}, 2.0)
    assert torch.equal(d[0], torch.tensor([1.0, -6.0, 6.0, -1.0, 6.0, 2.0, -2e-30]))
    assert d.gram.fr == pytest.approx(3 - 3 - 3 + 3), "records see the gradients, not the direction"


def test_sago_takes_gradients_that_waited_and_half_precision():
    grads = pair(3)
    narrow = {term: [part.float() for part in parts] for term, parts in grads.items()}
    whole = sign_gated(narrow, 1.5)
    waited = sign_gated(
        {"forget": Waiting([p.clone() for p in narrow["forget"]], "cpu"), "retain": narrow["retain"]}, 1.5
    )
    assert all(torch.equal(a, b) for a, b in zip(whole, waited, strict=True))
    half = {term: [part.bfloat16() for part in parts] for term, parts in narrow.items()}
    assert sign_gated(half, 1.5)[0].dtype == torch.bfloat16


def test_mgda_between_and_at_the_ends():
    assert mgda(Gram(1.0, 1.0, 0.0), 1.0) == (1.0, 1.0)
    assert mgda(Gram(1.0, 4.0, 1.5), 1.0) == (2.0, 0.0), "the shorter one lowers the other by more than itself"
    assert mgda(Gram(4.0, 1.0, 1.5), 1.0) == (0.0, 2.0)
    assert mgda(Gram(1.0, 4.0, -2.0), 1.0) == pytest.approx((4 / 3, 2 / 3)), "opposite: no step lowers both"


# by property --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*BY_GRAM, "sago"])
def test_equal_gradients_give_the_sum(name):
    grads = pair(0)
    grads["retain"] = [part.clone() for part in grads["forget"]]
    expected = {"sago": 1, "cagrad": 2 * (1 + CAGRAD_RADIUS)}.get(name, 2) * flat(grads["forget"])
    torch.testing.assert_close(flat(direction(name, grads)), expected)


@pytest.mark.parametrize("name", NEVER_RAISES_RETAIN)
@random_pairs
@settings(deadline=None, max_examples=60)
@example(0, 1.0, 30.0)
@example(0, 1e3, -30.0)
def test_what_is_promised_holds(name, seed, scale, lean):
    grads = pair(seed, scale, lean)
    f, r = flat(grads["forget"]), flat(grads["retain"])
    for weight in (0.0, 1.0, 7.0):
        d = flat(direction(name, grads, weight))
        assert d @ r >= -1e-9 * d.norm() * r.norm() - 1e-9 * f.norm() * r.norm() * (name == "mgda")
        if name in RAISES_NEITHER:
            assert d @ f >= -1e-9 * (d.norm() + f.norm() + r.norm()) * f.norm()


@pytest.mark.parametrize("name", ["sum", "cagrad", "aligned", "retain_first", "sago"])
def test_what_is_not_promised_can_fail(name):
    """Else the promise would be too small: some pair of gradients has its forget loss raised."""
    raised = 0
    for seed in range(200):
        grads = pair(seed, 3.0, -0.5)
        raised += bool(flat(direction(name, grads, 7.0)) @ flat(grads["forget"]) < 0)
    assert raised


@pytest.mark.parametrize("name", [name for name in NEVER_RAISES_RETAIN if name != "sago"])
@given(st.integers(0, 10_000))
@settings(deadline=None, max_examples=20)
def test_a_metric_keeps_the_promise_for_the_step_that_it_scales(name, seed):
    grads = pair(seed, 2.0, -0.3)
    generator = torch.Generator().manual_seed(seed + 1)
    metric = [torch.rand(shape, generator=generator, dtype=torch.float64) * 100 + 1e-3 for shape in SHAPES]
    step = flat(direction(name, grads, 1.5, weights=metric)) * flat(metric)
    assert step @ flat(grads["retain"]) >= -1e-9 * step.norm() * flat(grads["retain"]).norm()
    if name in RAISES_NEITHER:
        assert step @ flat(grads["forget"]) >= -1e-9 * step.norm() * flat(grads["forget"]).norm()


@pytest.mark.parametrize("name", ["bisector", "mgda"])
@given(st.integers(0, 10_000), st.floats(1e-3, 1e3))
@settings(deadline=None, max_examples=20)
def test_rules_that_balance_by_themselves_take_no_weight(name, seed, scale):
    grads = pair(seed, scale)
    assert torch.equal(flat(direction(name, grads, 1.0)), flat(direction(name, grads, 9.0)))


@given(st.integers(0, 10_000), st.floats(1, 1e6))
@settings(deadline=None, max_examples=20)
def test_an_exploding_gradient_does_not_lead_the_bisector(seed, scale):
    grads = pair(seed, scale)
    d, f, r = flat(direction("bisector", grads)), flat(grads["forget"]), flat(grads["retain"])
    assert d.norm() <= 4 * f.norm()
    assert d @ f / f.norm() == pytest.approx(float(d @ r / r.norm()), rel=1e-6, abs=1e-9)


DEGENERATE = {
    "zero forget": (0.0, 1.0, None),
    "zero retain": (1.0, 0.0, None),
    "both zero": (0.0, 0.0, None),
    "parallel": (1.0, 3.0, 1.0),
    "opposite": (1.0, 3.0, -1.0),
    "nearly parallel": (1.0, 1.0, 1.0 + 1e-9),
    "nearly opposite": (1.0, 1.0, -1.0 - 1e-9),
    "tiny": (1e-160, 1e-160, None),
    "huge": (1e70, 1e70, None),
    "far apart": (1e-60, 1e60, None),
}


@pytest.mark.parametrize("weight", [0.0, 1.0, 100.0])
@pytest.mark.parametrize("case", DEGENERATE)
@pytest.mark.parametrize("name", [*BY_GRAM, "sago"])
def test_degenerate_gradients_give_numbers(name, case, weight):
    a, b, along = DEGENERATE[case]
    first, second = (flat(pair(1)[term]) for term in ("forget", "retain"))
    if along is not None:
        second = math.copysign(1, along) * first + (abs(along) - 1) * second
    grads = {"forget": split(a * first), "retain": split(b * second)}
    d = flat(direction(name, grads, weight))
    assert torch.isfinite(d).all()
    if case == "zero forget":
        torch.testing.assert_close(d, (1 if name in ("bisector", "mgda") else weight) * b * second)
    if case == "zero retain":
        torch.testing.assert_close(d, a * first)
    if case == "opposite" and name in RAISES_NEITHER:
        assert d.norm() <= 1e-9 * first.norm(), "no step lowers both"


@pytest.mark.parametrize("name", sorted(MEASURING))
def test_per_layer_takes_each_tensor_by_itself(name):
    grads = pair(5, lean=-1.0)
    together = direction(name, grads, 1.5, per_layer=True)
    for index in range(len(SHAPES)):
        alone = direction(name, {term: [parts[index]] for term, parts in grads.items()}, 1.5)
        torch.testing.assert_close(together[index], alone[0])
    assert not torch.allclose(flat(together), flat(direction(name, grads, 1.5)))
