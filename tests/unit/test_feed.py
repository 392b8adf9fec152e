"""Which samples meet in a step: the pairing, the order, and what a file keeps of both."""

from itertools import chain

import pytest
import torch
from safetensors.torch import load_file, save_file
from turpentine.pipeline.data.samples import Samples, SampleSet
from turpentine.pipeline.maths.objectives import FlowMatching
from turpentine.pipeline.schema.recipe import TrainingSection
from turpentine.pipeline.support.processes import ALONE
from turpentine.pipeline.training.feed import Feed


def make(count, first):
    """Samples whose latents and conditioning tell their number."""
    numbers = torch.arange(first, first + count).float()
    return Samples(numbers.reshape(-1, 1, 1, 1), {"c": numbers.reshape(-1, 1).clone()}, torch.arange(count))


def feed(samples, **spec):
    section = TrainingSection(**{"batch_size": 3, **spec})
    return Feed(samples, FlowMatching(), section, 5, torch.device("cpu"), ALONE, None)


def numbers(batch):
    return batch.samples.flatten().tolist()


def anchors(batch):
    return batch.anchor["c"].flatten().tolist()


def steps(feed, term, count=4):
    return [feed.indices(term, step, 0).tolist() for step in range(count)]


def test_pairs_meet_in_a_step_whatever_their_order():
    pairs = torch.tensor([3, 0, 4, 1, 2])
    whole = feed(SampleSet(make(5, 0), make(5, 100), pairs))
    for step in range(4):
        forget, retain = whole.batch("forget", step, 0), whole.batch("retain", step, 0)
        assert numbers(retain) == [100 + pairs[int(number)].item() for number in numbers(forget)]
        assert anchors(forget) == numbers(retain) and retain.anchor == {}


def test_an_epoch_shows_every_sample_once():
    samples = SampleSet.in_order(make(5, 0), make(7, 100))
    order = [index for step in steps(feed(samples), "forget", 5) for index in step]
    assert sorted(order[:5]) == sorted(order[5:10]) == list(range(5)) and order[:5] != order[5:10]
    own = [index for step in steps(feed(samples), "retain", 7) for index in step]
    assert sorted(own[:7]) == sorted(own[7:14]) == list(range(7))


def test_the_order_is_that_of_earlier_versions():
    """Resumed runs go on with it: `randperm` of the length, seeded by the run's seed and the epoch."""

    def shuffled(length, epoch):
        generator = torch.Generator().manual_seed((5 * 1_000_003 + epoch) * 4099)
        return torch.randperm(length, generator=generator).tolist()

    equal = feed(SampleSet.in_order(make(6, 0), make(6, 100)))
    expected = shuffled(6, 0) + shuffled(6, 1)
    for term in ("forget", "retain"):
        assert list(chain(*steps(equal, term))) == expected
    unequal = feed(SampleSet.in_order(make(6, 0), make(9, 100)))
    assert list(chain(*steps(unequal, "retain", 3))) == shuffled(9, 0)
    assert anchors(unequal.batch("forget", 0, 0)) == [100 + index for index in steps(unequal, "forget", 1)[0]]


def with_anchors():
    """Five forget samples whose anchors are rows 5 to 9 of the retain conditioning, which no retain sample has."""
    retain = Samples(make(5, 100).latents, make(10, 100).conditioning, torch.arange(5))
    return SampleSet.in_order(make(5, 0), retain, torch.arange(9, 4, -1))


@pytest.mark.parametrize("again", [False, True])
def test_anchors_belong_to_their_forget_samples(tmp_path, again):
    samples = with_anchors()
    if again:
        samples.save(tmp_path / "samples.safetensors")
        samples = SampleSet.load(tmp_path / "samples.safetensors")
    whole = feed(samples)
    for step in range(4):
        forget = whole.batch("forget", step, 0)
        assert anchors(forget) == [109 - number for number in numbers(forget)]
        assert numbers(whole.batch("retain", step, 0)) == [100 + number for number in numbers(forget)]
    plain = feed(SampleSet.in_order(samples.forget, samples.retain))
    assert numbers(plain.batch("forget", 0, 0)) == numbers(whole.batch("forget", 0, 0)), "the same order"


@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [0, 1, 2, 3, 10], [0, 1, 2, 3, -1]])
def test_anchors_that_are_no_rows_are_refused(rows):
    samples = with_anchors()
    with pytest.raises(ValueError, match="anchors must name one of 10 rows of the retain conditioning for each of 5"):
        SampleSet(samples.forget, samples.retain, samples.pairs, torch.tensor(rows))


def test_pairs_are_kept_on_disk_and_derived_for_files_without(tmp_path):
    samples = SampleSet(make(4, 0), make(3, 100), torch.tensor([2, 1, 0, 2]))
    samples.save(tmp_path / "new.safetensors")
    assert torch.equal(SampleSet.load(tmp_path / "new.safetensors").pairs, samples.pairs)
    older = {name: tensor for name, tensor in load_file(tmp_path / "new.safetensors").items() if name != "pairs"}
    save_file(older, tmp_path / "old.safetensors")
    assert SampleSet.load(tmp_path / "old.safetensors").pairs.tolist() == [0, 1, 2, 0]


@pytest.mark.parametrize("pairs", [[0, 1], [0, 1, 3], [0, 1, -1]])
def test_pairs_that_name_no_sample_are_refused(pairs):
    with pytest.raises(ValueError, match="pairs must name one of 3 retain samples for each of 3 forget"):
        SampleSet(make(3, 0), make(3, 100), torch.tensor(pairs))
