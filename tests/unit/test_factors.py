"""Low-rank factors in float64, against numbers worked out by hand and the theorem."""

import pytest
import torch
from torch import nn
from turpentine.pipeline.support.errors import UserError
from turpentine.pipeline.support.progress import Silent
from turpentine.pipeline.weights.factors import Factors, extract, low_rank


def matrix(rows, columns, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_exact_at_full_rank():
    given = matrix(7, 5)
    up, down = low_rank(given, 5)
    assert up.shape == (7, 5) and down.shape == (5, 5)
    assert (up @ down - given).abs().max() < 1e-14
    assert torch.equal(low_rank(given, 99)[0], up), "a rank beyond the matrix's own changes nothing"


def test_the_rest_is_what_the_theorem_says():
    given = matrix(9, 6)
    values = torch.linalg.svdvals(given)
    for rank in range(1, 6):
        up, down = low_rank(given, rank)
        assert torch.linalg.norm(given - up @ down).item() == pytest.approx(values[rank:].norm().item(), rel=1e-12)
        assert up.norm().item() == pytest.approx(down.norm().item(), rel=1e-12), "both factors have the same size"


@pytest.mark.parametrize(("energy", "rank"), [(0.01, 1), (0.63, 1), (0.65, 2), (0.9, 2), (0.99, 2), (1.0, 3)])
def test_energy_by_hand(energy, rank):
    """Singular values 8, 6, 0.01: shares of the sum of squares 0.64, 1 - 1e-6, 1."""
    given = torch.diag(torch.tensor([8.0, 6.0, 0.01], dtype=torch.float64))
    assert low_rank(given, 16, energy)[1].shape[0] == rank


def test_product_has_the_scale_and_the_shape():
    up, down = matrix(4, 2), matrix(2, 12, seed=1)
    expected = (3.0 / 2) * up @ down
    assert torch.allclose(Factors(up, down, 3.0).product().double(), expected, atol=1e-6)
    convolution = Factors(up[:, :, None, None], down.reshape(2, 3, 2, 2), 3.0).product()
    assert torch.allclose(convolution.double(), expected.reshape(4, 3, 2, 2), atol=1e-6)


def network():
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Conv2d(2, 5, 3), nn.Linear(2, 2))


def test_extraction_says_what_it_holds_and_what_it_leaves_out():
    """||change||^2 = 9 + 16 in layers (rank 1 holds 9 + 16), 4 in a bias, 1 in a norm."""
    change = {name: torch.zeros_like(tensor).double() for name, tensor in network().state_dict().items()}
    change["0.weight"][0, 0] = 3
    change["2.weight"][1, 0, 0, 0] = 4
    change["0.bias"][0] = 2
    change["1.weight"][0] = 1
    adapter = extract(network(), change, 1, None, Silent())
    assert set(adapter.layers) == {"0", "2"}, "an unchanged layer has no factors"
    assert adapter.layers["2"].up.shape == (5, 1, 1, 1) and adapter.layers["2"].down.shape == (1, 2, 3, 3)
    for name, factors in adapter.layers.items():
        assert torch.allclose(factors.product().double(), change[f"{name}.weight"], atol=1e-6)
    fit = adapter.fit
    assert (fit.layers, fit.rank) == (2, 1)
    assert fit.residual == pytest.approx(0, abs=1e-7)
    assert fit.left_out == {"biases": 1, "norms and others": 1}
    assert fit.left_out_share == pytest.approx(5 / 30)


def test_the_residual_is_over_all_layers_together():
    change = {name: torch.zeros_like(tensor).double() for name, tensor in network().state_dict().items()}
    change["0.weight"][:2, :2] = torch.diag(torch.tensor([4.0, 3.0]))
    change["3.weight"][:] = torch.diag(torch.tensor([12.0, 0.0]))
    assert extract(network(), change, 1, None, Silent()).fit.residual == pytest.approx(3 / 13)


def test_nothing_to_hold():
    change = {name: torch.zeros_like(tensor) for name, tensor in network().state_dict().items()}
    with pytest.raises(UserError, match="a LoRA needs a changed Linear or Conv2d weight, and none differs"):
        extract(network(), change, 1, None, Silent())
