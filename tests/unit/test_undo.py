"""What a float32 difference can't take back, and histories that are read and written."""

import pytest
import torch
from turpentine.pipeline.models.lineage import Lineage, Removal, lineage_in
from turpentine.pipeline.weights.provenance import taken_back_in
from turpentine.pipeline.weights.rest import BACK, FORTH, put_rest, rest_of


def back(after, before):
    """The state that subtracting the difference gives, and the same with the rest."""
    plain = {name: after[name] - (after[name] - before[name]) for name in before}
    whole = {name: tensor.clone() for name, tensor in plain.items()}
    put_rest(whole, rest_of(after, before))
    return plain, whole


def same_bits(a, b):
    return all(torch.equal(a[name].view(torch.int32), b[name].view(torch.int32)) for name in b)


def test_within_a_factor_of_two_nothing_is_missed():
    """Sterbenz: the difference is exact there."""
    generator = torch.Generator().manual_seed(0)
    before = {"a": torch.randn(1000, generator=generator)}
    after = {"a": before["a"] * (0.5 + 1.5 * torch.rand(1000, generator=generator))}
    assert rest_of(after, before) == {}
    assert same_bits(back(after, before)[0], before)


def test_what_is_missed_by_hand():
    """1 - (1 - 2**-30) is 0 in float32: the small value is kept, at its place in the order of the names."""
    before = {"b": torch.tensor([2.0**-30, 1.0]), "a": torch.tensor([[1.0, 2.0], [3.0, -0.0]])}
    after = {"b": torch.tensor([1.0, 1.5]), "a": torch.tensor([[1.0, 2.0], [3.0, 5.0]])}
    rest = rest_of(after, before)
    assert rest[BACK.gaps].tolist() == [3, 1] and rest[BACK.gaps].dtype == torch.int32
    assert rest[BACK.values].tolist() == [0.0, 2.0**-30]
    plain, whole = back(after, before)
    assert not same_bits(plain, before) and same_bits(whole, before)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_rest_makes_any_change_exact(scale):
    generator = torch.Generator().manual_seed(1)
    before = {name: torch.randn(40, 50, generator=generator) for name in ("x", "y", "z")}
    after = {name: tensor + scale * torch.randn(40, 50, generator=generator) for name, tensor in before.items()}
    plain, whole = back(after, before)
    assert same_bits(whole, before)
    assert same_bits(plain, before) is (rest_of(after, before) == {})
    there = {name: before[name] + (after[name] - before[name]) for name in before}
    missed = not same_bits(there, after)
    put_rest(there, rest_of(after, before, FORTH))
    assert same_bits(there, after) and missed is (rest_of(after, before, FORTH) != {})
    turned = {name: tensor.t().contiguous().t() for name, tensor in after.items()}  # not contiguous in memory
    put_rest(turned, rest_of(after, before))


def test_what_adding_misses_by_hand():
    """1 + (2**-30 - 1) is 0 in float32: the small value is kept; and so is the sign of zero."""
    before, after = {"a": torch.tensor([1.0, 1.0, -0.0])}, {"a": torch.tensor([2.0**-30, 1.5, -0.0])}
    rest = rest_of(after, before, FORTH)
    assert rest[FORTH.gaps].tolist() == [0, 2] and rest[FORTH.values].tolist() == [2.0**-30, -0.0]
    there = {"a": before["a"] + (after["a"] - before["a"])}
    put_rest(there, rest)
    assert same_bits(there, after)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (None, ()), ("cat", ("cat",)), ("cat + dog", ("cat + dog",)), ("7", ("7",)), ('["cat"]', ("cat",)),
        ('["horse", "cat + dog"]', ("horse", "cat + dog")), ("[cat", ("[cat",)), ("null", ("null",)),
    ],
)  # fmt: skip
def test_what_was_taken_back_is_read_from_headers_of_any_version(text, found):
    assert taken_back_in({} if text is None else {"turpentine.taken_back": text}) == found


def test_a_history_is_read_as_it_was_written():
    lineage = Lineage("some/model", ("cat", "pop art"), (Removal(("cat", "pop art"), "a" * 64, "b" * 64),))
    header = {"turpentine.base_model": "some/model", **lineage.fields()}
    assert lineage_in(header) == lineage
    assert lineage_in({**header, "turpentine.forgotten": "[]", "turpentine.removals": "[]"}) == Lineage("some/model")
    assert lineage_in(lineage.fields()) is None
    old = {"turpentine.base_model": "x", "turpentine.concept": "cat"}
    assert lineage_in(old) == Lineage("x", ("cat",))
