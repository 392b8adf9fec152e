"""The restricted gradient, by equation and by property."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchjd.aggregation import PCGrad
from turpentine.pipeline.maths.gradients import (
    Combination,
    Gram,
    gram,
    guard_coefficients,
)
from turpentine.pipeline.maths.rules import combine, plain, restricted

SHAPES = [(3, 4), (5,), (2, 1, 3)]


def random_gradients(seed, conflicting=None, scale=1.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    forget = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in SHAPES]
    retain = [scale * torch.randn(shape, generator=generator, dtype=torch.float64) for shape in SHAPES]
    if conflicting is not None:
        dot = sum((a * b).sum() for a, b in zip(forget, retain, strict=True))
        if (dot < 0) != conflicting:
            retain = [-b for b in retain]
    return {"forget": [a.to(dtype) for a in forget], "retain": [b.to(dtype) for b in retain]}


def flat(tensors):
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def test_by_hand():
    # g_f = (1, 0), g_r = (-1, 1): c = -1, |g_f|^2 = 1, |g_r|^2 = 2
    # delta_f = (1, 0) + 1/2 (-1, 1) = (1/2, 1/2); delta_r = (-1, 1) + (1, 0) = (0, 1)
    grads = {"forget": [torch.tensor([1.0, 0.0])], "retain": [torch.tensor([-1.0, 1.0])]}
    direction = combine(grads, restricted, 2.0)
    assert torch.equal(direction[0], torch.tensor([0.5, 2.5]))
    assert direction.gram == Gram(1.0, 2.0, -1.0)


@given(st.integers(0, 10_000), st.floats(1e-3, 1e3))
@settings(deadline=None, max_examples=50)
def test_equals_pcgrad(seed, scale):
    grads = random_gradients(seed, scale=scale)
    direction = flat(combine(grads, restricted, 1.0))
    # PCGrad projects in a random order, which two gradients do not notice; it sums the projections
    expected = PCGrad()(torch.stack([flat(grads["forget"]), flat(grads["retain"])]))
    torch.testing.assert_close(direction, expected, rtol=1e-9, atol=1e-9)


@given(st.integers(0, 10_000), st.floats(1e-3, 1e3), st.floats(0.0, 10.0))
@settings(deadline=None, max_examples=50)
def test_orthogonality_and_descent(seed, scale, retain_weight):
    grads = random_gradients(seed, conflicting=True, scale=scale)
    f, r = flat(grads["forget"]), flat(grads["retain"])
    dot = f @ r
    delta_f, delta_r = f - dot / (r @ r) * r, r - dot / (f @ f) * f  # Eq. 4 as it stands in the paper
    direction = flat(combine(grads, restricted, retain_weight))
    torch.testing.assert_close(direction, delta_f + retain_weight * delta_r, rtol=1e-9, atol=1e-9)
    slack = 1e-9 * direction.norm() * (f.norm() + r.norm())
    assert (delta_f @ r).abs() <= slack + 1e-9 * f.norm() * r.norm()  # Lemma 5: orthogonal
    assert direction @ f >= -slack and direction @ r >= -slack  # Theorem 4: stepping against it raises neither


@given(st.integers(0, 10_000))
@settings(deadline=None, max_examples=25)
def test_without_conflict_it_is_the_plain_sum(seed):
    grads = random_gradients(seed, conflicting=False)
    torch.testing.assert_close(flat(combine(grads, restricted, 1.5)), flat(combine(grads, plain, 1.5)))


@pytest.mark.parametrize(("zero", "kept"), [("forget", "retain"), ("retain", "forget")])
def test_zero_gradient_leaves_the_other_alone(zero, kept):
    grads = random_gradients(3)
    grads[zero] = [torch.zeros_like(tensor) for tensor in grads[zero]]
    direction = flat(combine(grads, restricted, 1.0))
    assert torch.isfinite(direction).all()
    torch.testing.assert_close(direction, flat(grads[kept]))


def test_antiparallel_gradients_cancel():
    grads = random_gradients(4)
    grads["retain"] = [-2 * tensor for tensor in grads["forget"]]
    torch.testing.assert_close(
        flat(combine(grads, restricted, 1.0)), torch.zeros(23, dtype=torch.float64), atol=1e-12, rtol=0
    )


def test_per_layer_projects_each_tensor_by_itself():
    grads = random_gradients(5, conflicting=True)
    direction = combine(grads, restricted, 1.0, per_layer=True)
    for index in range(len(SHAPES)):
        alone = combine({term: [tensors[index]] for term, tensors in grads.items()}, restricted, 1.0)
        torch.testing.assert_close(direction[index], alone[0])


@given(st.integers(0, 10_000))
@settings(deadline=None, max_examples=25)
def test_metric_keeps_the_guarantee_for_the_preconditioned_step(seed):
    grads = random_gradients(seed)
    generator = torch.Generator().manual_seed(seed + 1)
    metric = [torch.rand(shape, generator=generator, dtype=torch.float64) * 100 + 1e-3 for shape in SHAPES]
    step = -flat(combine(grads, restricted, 1.5, weights=metric)) * flat(metric)
    f, r = flat(grads["forget"]), flat(grads["retain"])
    assert step @ f <= 1e-9 * step.norm() * f.norm()
    assert step @ r <= 1e-9 * step.norm() * r.norm()


@given(st.integers(0, 10_000), st.floats(1e-2, 1e2))
@settings(deadline=None, max_examples=100)
def test_guard_is_the_nearest_harmless_update(seed, scale):
    grads = random_gradients(seed, scale=scale)
    f, r = flat(grads["forget"]), flat(grads["retain"])
    update = torch.randn(23, generator=torch.Generator().manual_seed(seed + 7), dtype=torch.float64)
    products = Gram(*(float(x) for x in (f @ f, r @ r, f @ r)))
    mu, nu = guard_coefficients(products, float(update @ f), float(update @ r))
    guarded = update - mu * f - nu * r
    # the conditions of Karush, Kuhn and Tucker: feasible, multipliers >= 0, complementary
    assert mu >= 0 and nu >= 0
    for gradient, multiplier in ((f, mu), (r, nu)):
        change = float(guarded @ gradient)
        scale_of_it = float(update.norm() * gradient.norm())
        assert change <= 1e-9 * scale_of_it
        assert multiplier == 0 or abs(change) <= 1e-8 * scale_of_it


def test_guard_of_parallel_gradients():
    f = torch.tensor([1.0, 0.0], dtype=torch.float64)
    update = torch.tensor([2.0, 3.0], dtype=torch.float64)
    products = Gram(1.0, 4.0, -2.0)  # g_r = -2 g_f
    mu, nu = guard_coefficients(products, 2.0, -4.0)
    guarded = update - mu * f + 2 * nu * f
    torch.testing.assert_close(guarded, torch.tensor([0.0, 3.0], dtype=torch.float64))


def test_half_precision_accumulates_in_float32():
    ones = [torch.ones(300_000, dtype=torch.bfloat16)]
    assert gram([ones]).tolist() == [[[300_000.0]]]  # bfloat16 itself stops counting at 256
    mixed = Combination({"forget": ones, "retain": ones}, {"forget": 1.0, "retain": 0.5})
    assert mixed[0].dtype == torch.bfloat16 and mixed[0][0].item() == 1.5


def test_gram_stays_exact_at_size():
    big = [torch.full((5_000_000,), 0.1) for _ in range(4)]
    exact = 20_000_000 * float(torch.tensor(0.1)) ** 2
    assert gram([big]).sum().item() == pytest.approx(exact, rel=3e-7), "whatever BLAS the processor is given"
    flattened = torch.cat(big).norm().item() ** 2  # what flattening would give
    assert abs(flattened - exact) > 1e-5 * exact


def test_gram_adds_up():
    grads = random_gradients(6)
    total = Gram.of(gram([grads["forget"], grads["retain"]]).sum(0))
    f, r = flat(grads["forget"]), flat(grads["retain"])
    assert (total.ff, total.rr, total.fr) == pytest.approx((float(f @ f), float(r @ r), float(f @ r)))
    assert total.cosine == pytest.approx(float(torch.nn.functional.cosine_similarity(f, r, dim=0)))


def test_coefficients_by_hand():
    assert restricted(Gram(2.0, 4.0, -1.0), 3.0) == (1 + 3 / 2, 3 + 1 / 4)
    assert restricted(Gram(2.0, 4.0, 1.0), 3.0) == (1.0, 3.0)
    assert Gram(0.0, 4.0, 0.0).cosine == 0.0


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match="equal shapes at 0"):
        gram([[torch.ones(2)], [torch.ones(3)]])
    with pytest.raises(ValueError, match=r"lists of one length, got \[1, 2\]"):
        gram([[torch.ones(2)], [torch.ones(2), torch.ones(2)]])


def test_rows_of_a_gram_are_those_of_the_whole_one():
    generator = torch.Generator().manual_seed(0)
    lists = [[torch.randn(shape, generator=generator) for shape in ((70_000,), (3, 5))] for _ in range(3)]
    weights = [torch.rand(shape, generator=generator) for shape in ((70_000,), (3, 5))]
    for weighted in (None, weights):
        whole = gram(lists, weighted)
        assert whole.shape == (2, 3, 3) and whole.dtype == torch.float64
        assert torch.equal(whole, whole.mT)
        assert torch.equal(gram(lists, weighted, rows=1), whole[:, :1])
    exact = [[sum(float((a[i].double() * b[i]).sum()) for i in range(2)) for b in lists] for a in lists]
    torch.testing.assert_close(gram(lists).sum(0), torch.tensor(exact, dtype=torch.float64), rtol=1e-6, atol=1e-3)
    assert torch.equal(gram(lists, reduce=lambda table: 2 * table), 2 * gram(lists))


def test_a_mask_takes_entries_out_of_the_step_and_of_the_angles():
    grads = random_gradients(8)
    mask = [torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.5 for shape in SHAPES]
    direction = combine(grads, plain, 1.5, mask=mask)
    masked = {term: [part * held for part, held in zip(tensors, mask, strict=True)] for term, tensors in grads.items()}
    by_hand = combine(masked, plain, 1.5)
    assert direction.gram == by_hand.gram
    for index in range(len(SHAPES)):
        assert torch.equal(direction[index], by_hand[index])
        assert torch.equal(direction.gradient("forget", index), masked["forget"][index])
