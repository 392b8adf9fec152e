import math

import pytest
import scipy.linalg
import torch
import torch.nn.functional as F
from torchmetrics.image.fid import FrechetInceptionDistance
from turpentine.pipeline.maths.metrics import (
    alignment,
    bootstrap_interval,
    cmmd,
    domain_retention,
    frechet_distance,
    retention_accuracy,
    unlearning_accuracy,
)


def normal(rows, columns, seed, shift=0.0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


def test_unlearning_accuracy_counts_what_is_not_seen_as_the_target():
    assert unlearning_accuracy(["cat", "random noise", "horse", "cat"], "cat") == 0.5
    assert unlearning_accuracy(["cat"], "cat") == 0
    assert unlearning_accuracy(["random noise"], "cat") == 1


def test_retention_accuracy_is_the_share_of_matches():
    assert retention_accuracy(["cat", "horse", "horse"], ["cat", "horse", "rocket"]) == 2 / 3


@pytest.mark.parametrize(("guesses", "labels"), [([], []), (["cat"], ["cat", "cat"])])
def test_retention_accuracy_refuses_what_it_cannot_count(guesses, labels):
    with pytest.raises(ValueError, match="as many guesses as labels and at least one"):
        retention_accuracy(guesses, labels)


def test_domain_retention_takes_the_other_domain_as_cross():
    by_dimension = {"subject": 0.9, "style": 0.7, "place": 0.2, "time": 0.1}
    assert domain_retention(by_dimension, own="subject") == (0.9, 0.7)
    assert domain_retention(by_dimension, own="style") == (0.7, 0.9)
    in_domain, cross_domain = domain_retention(by_dimension, own="place")
    assert (in_domain, cross_domain) == (0.2, pytest.approx(0.8))
    with pytest.raises(ValueError, match=r"expected the accuracies of \['subject', 'style'\]"):
        domain_retention({"subject": 1.0}, own="subject")


def test_alignment_is_the_cosine_of_each_pair():
    images = torch.tensor([[3.0, 4.0], [1.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    texts = torch.tensor([[4.0, 3.0], [-2.0, 0.0], [0.0, 5.0]], dtype=torch.float64)
    expected = torch.tensor([0.96, -1.0, math.sqrt(0.5)], dtype=torch.float64)
    torch.testing.assert_close(alignment(images, texts), expected)
    torch.testing.assert_close(alignment(7 * images, 0.1 * texts), expected)
    with pytest.raises(ValueError, match=r"got \(3, 2\) and \(2, 2\)"):
        alignment(images, texts[:2])


def test_bootstrap_of_a_fair_coin_is_near_the_normal_interval():
    values = torch.tensor([0.0, 1.0], dtype=torch.float64).repeat(200)
    mean, low, high = bootstrap_interval(values, generator=torch.Generator().manual_seed(1))
    half = 1.96 * 0.5 / math.sqrt(400)
    assert mean == 0.5
    assert low == pytest.approx(0.5 - half, abs=0.006)
    assert high == pytest.approx(0.5 + half, abs=0.006)


def test_bootstrap_repeats_and_narrows():
    values = normal(50, 1, 0).flatten()
    assert bootstrap_interval(values) == bootstrap_interval(values)
    _, low, high = bootstrap_interval(values)
    _, inner_low, inner_high = bootstrap_interval(values, confidence=0.5)
    assert low < inner_low < inner_high < high
    assert bootstrap_interval(torch.tensor([0.25])) == (0.25, 0.25, 0.25)


def test_bootstrap_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    bootstrap_interval(torch.arange(5.0))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("values", [torch.empty(0), torch.ones(2, 2), torch.tensor([1.0, math.nan])])
def test_bootstrap_refuses_bad_values(values):
    with pytest.raises(ValueError, match="finite values of shape"):
        bootstrap_interval(values)


@pytest.mark.parametrize("options", [{"confidence": 1.0}, {"confidence": 0.0}, {"resamples": 0}])
def test_bootstrap_refuses_bad_options(options):
    with pytest.raises(ValueError, match="0 < confidence < 1 and resamples >= 1"):
        bootstrap_interval(torch.ones(3), **options)


def test_frechet_distance_in_one_dimension_by_hand():
    # means 1 and 4, variances 1 and 4: 3^2 + (1 - 2)^2
    a = torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64)
    b = torch.tensor([[2.0], [4.0], [6.0]], dtype=torch.float64)
    assert frechet_distance(a, b) == pytest.approx(10)


@pytest.mark.parametrize(("rows_a", "rows_b", "columns"), [(60, 50, 6), (5, 9, 12)])
def test_frechet_distance_agrees_with_the_matrix_square_root(rows_a, rows_b, columns):
    a, b = normal(rows_a, columns, 1), 1.5 * normal(rows_b, columns, 2, shift=0.3)
    cov_a, cov_b = a.T.cov(), b.T.cov()
    root = scipy.linalg.sqrtm((cov_a @ cov_b).numpy()).real.trace()
    expected = (a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * root
    assert frechet_distance(a, b) == pytest.approx(expected.item(), rel=1e-5)
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_agrees_with_torchmetrics():
    class Flat(torch.nn.Module):
        num_features = 12

        def forward(self, images):
            return images.flatten(1)

    a, b = normal(80, 12, 3).sigmoid(), normal(70, 12, 4, shift=0.5).sigmoid()
    fid = FrechetInceptionDistance(feature=Flat(), normalize=True, input_img_size=(3, 2, 2)).set_dtype(torch.float64)
    fid.update(a.view(-1, 3, 2, 2), real=True)
    fid.update(b.view(-1, 3, 2, 2), real=False)
    assert frechet_distance(a, b) == pytest.approx(fid.compute().item(), rel=1e-6)


def test_cmmd_by_hand():
    # one vector against an orthogonal one: squared distance 2; kernels 1, 1 and exp(-2 / 200)
    a = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    b = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    assert cmmd(a, b) == pytest.approx(1000 * (2 - 2 * math.exp(-0.01)), rel=1e-9)
    # {e1, e2} against {e1}: (2 + 2k) / 4 + 1 - 2 (1 + k) / 2 with k = exp(-1 / sigma^2)
    k = math.exp(-1 / 4)
    assert cmmd(torch.cat([a, b]), a, sigma=2, scale=1) == pytest.approx(0.5 * (1 + k) + 1 - (1 + k), rel=1e-9)


def test_cmmd_is_zero_for_equal_sets_and_keeps_small_differences_of_half_precision_features():
    a = F.normalize(normal(40, 16, 5), dim=-1)
    b = F.normalize(a + 1e-3 * normal(40, 16, 6), dim=-1)
    assert cmmd(a, a) == pytest.approx(0, abs=1e-9)
    assert cmmd(a.float(), b.float()) == pytest.approx(cmmd(a, b), rel=1e-2)
    assert cmmd(a.half(), -a.half()) > 0


def test_cmmd_refuses_features_that_are_not_of_unit_norm():
    with pytest.raises(ValueError, match="unit norm, got norms from 1 to 2"):
        cmmd(torch.eye(2), torch.tensor([[2.0, 0.0], [0.0, 1.0]]))


@pytest.mark.parametrize("distance", [frechet_distance, cmmd])
def test_distances_refuse_shapes_that_do_not_fit(distance):
    with pytest.raises(ValueError, match=r"shapes \(N, D\) and \(M, D\), got \(2, 2\) and \(3, 3\)"):
        distance(torch.eye(2), torch.eye(3))
    with pytest.raises(ValueError, match="rows of features in each set"):
        distance(torch.eye(2)[:0], torch.eye(2))
