"""Real images with labels, and which of them become D_f and D_r."""

import pytest
import torch
from PIL import Image
from turpentine.pipeline.audits import ClassJudge
from turpentine.pipeline.data.datasets import LabelledImages, held_out, load_images
from turpentine.pipeline.data.samples import SampleSet, balanced, most_similar
from turpentine.pipeline.maths.metrics import class_similarity
from turpentine.pipeline.models import load_denoiser
from turpentine.pipeline.schema.recipe import DataSection
from turpentine.pipeline.support.errors import UserError

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def digits():
    return load_images("digits", "train")


@pytest.fixture(scope="module")
def judge():
    return ClassJudge.load("digits")


def test_digits_are_split_without_overlap(digits):
    test = load_images("digits", "test")
    assert (len(digits), len(test)) == (1442, 355)
    assert digits.images.shape[1:] == (1, 8, 8) and digits.images.min() == -1 and digits.images.max() == 1
    train_rows, test_rows = (set(map(bytes, part.images.numpy().reshape(len(part), -1))) for part in (digits, test))
    assert not train_rows & test_rows
    assert (torch.bincount(test.labels) >= 34).all(), "every class is in the test split"


def test_every_fifth_of_each_class_is_held_out():
    labels = torch.tensor([0, 1] * 5 + [1] * 5)
    assert held_out(labels).nonzero().flatten().tolist() == [8, 9, 14]


def test_forget_images_are_those_of_the_class_and_retain_images_balanced(digits, judge):
    denoiser = load_denoiser("digits", "cpu")
    samples = SampleSet.from_images(denoiser, digits, "3", DataSection(dataset="digits", retain_per_class=50), judge)
    assert torch.equal(samples.forget.latents, digits.of("3"))
    assert len(samples.retain) == 450
    counts = torch.bincount(samples.retain.rows, minlength=10)
    assert counts.tolist() == [50, 50, 50, 0, 50, 50, 50, 50, 50, 50]
    latents, conditioning = samples.retain.take(torch.arange(450), torch.device("cpu"))
    assert torch.equal(conditioning["class_labels"], samples.retain.rows)
    assert latents.unique(dim=0).shape[0] > 440, "no image is taken twice (a few are equal in the data)"


def test_similar_takes_as_many_images_of_the_nearest_classes_only(digits, judge):
    denoiser = load_denoiser("digits", "cpu")
    spec = DataSection(dataset="digits", retain_classes="similar", retain_per_class=30, similar_classes=2)
    samples = SampleSet.from_images(denoiser, digits, "3", spec, judge)
    nearest = most_similar(class_similarity(judge.features(digits.images), digits.labels), 3, 2)
    assert len(samples.retain) == 270
    assert {label: (samples.retain.rows == label).sum().item() for label in nearest} == dict.fromkeys(nearest, 135)


def test_selection_depends_on_the_seed_alone(digits):
    first, again, other = (
        balanced(digits, [1, 2], 20, torch.Generator().manual_seed(seed)).tolist() for seed in (0, 0, 1)
    )
    assert first == again != other


def test_most_similar_leaves_the_class_itself_out():
    similarity = torch.tensor([[1.0, 0.2, 0.9], [0.2, 1.0, 0.3], [0.9, 0.3, 1.0]])
    assert most_similar(similarity, 0, 1) == [2]
    assert most_similar(similarity, 1, 2) == [2, 0]


def test_similarity_by_hand():
    features = torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 1.0], [3.0, 3.0]])
    similarity = class_similarity(features, torch.tensor([0, 1, 2, 2]))
    half = 0.5**0.5
    torch.testing.assert_close(similarity, torch.tensor([[1, 0, half], [0, 1, half], [half, half, 1]]))


def test_too_few_images_of_a_class(digits):
    with pytest.raises(UserError, match=r"expected 200 images of '1' for the retain set, which has \d+"):
        balanced(digits, [1, 2], 400, torch.Generator())


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("mnist", "dataset must be 'digits', 'cifar10' or a folder with one folder per class, got mnist"),
        ("cifar10", "expected torchvision's CIFAR-10 files in .*TURPENTINE_DATA"),
    ],
)
def test_a_dataset_that_is_not_there(dataset, message, tmp_path, monkeypatch):
    monkeypatch.setenv("TURPENTINE_DATA", str(tmp_path))
    with pytest.raises(UserError, match=message):
        load_images(dataset, "train")


def picture(path, shade, size=(6, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, 0, 0)).save(path)


def test_an_image_folder_is_split_and_resized(tmp_path):
    for name, shade in (("cat", 255), ("dog", 0)):
        for index in range(5):
            picture(tmp_path / name / f"{index}.png", shade)
    train, test = (load_images(str(tmp_path), split, size=4, channels=3) for split in ("train", "test"))
    assert train.names == ("cat", "dog") and train.images.shape == (8, 3, 4, 4) and len(test) == 2
    assert train.of("cat")[0, :, 0, 0].tolist() == [1, -1, -1]


def test_an_image_folder_with_splits_of_its_own(tmp_path):
    for split, count in (("train", 2), ("test", 1)):
        for name in ("cat", "dog"):
            for index in range(count):
                picture(tmp_path / split / name / f"{index}.png", 9)
    assert [len(load_images(str(tmp_path), split, channels=1)) for split in ("train", "test")] == [4, 2]


def test_a_folder_with_one_class(tmp_path):
    picture(tmp_path / "cat" / "0.png", 9)
    with pytest.raises(UserError, match=r"at least two folders of images .* found 1"):
        load_images(str(tmp_path), "train")


def test_a_class_that_is_not_there():
    data = LabelledImages(torch.zeros(2, 1, 2, 2), torch.tensor([0, 1]), ("a", "b"))
    with pytest.raises(UserError, match=r"one of \['a', 'b'\]; got 'c'"):
        data.of("c")
