"""Real images with labels, and which of them become D_f and D_r."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from turpentine.pipeline.audits import ClassJudge
from turpentine.pipeline.data.datasets import LabelledImages, held_out, load_images
from turpentine.pipeline.data.samples import SampleSet, balanced, most_similar
from turpentine.pipeline.maths.metrics import class_similarity
from turpentine.pipeline.models import load_denoiser
from turpentine.pipeline.schema.recipe import DataSection
from turpentine.pipeline.support.errors import Caution, UserError

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


def full(folder, names=("cat", "dog")):
    for name in names:
        for index in range(5):
            picture(folder / name / f"{index}.png", 9, (4, 4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda at: (at / "bird").mkdir(),
            r"images in the folder of each class, found none in .*bird\. Fill or remove it",
        ),
        (lambda at: (at / "dog" / "9.png").mkdir(), r"can't read the image .*dog.9\.png"),
        (
            lambda at: (at / "cat" / "3.png").write_text("<html>"),
            r"an image at .*cat.3\.png, but the file is none that",
        ),
        (lambda at: (at / "dog" / "0.png").write_bytes(b""), r"an image at .*dog.0\.png, but the file is none"),
        (lambda at: (at / "dog" / "9.png").symlink_to(at / "gone.png"), r"at .*dog.9\.png, found no such file"),
        (lambda at: full(at, ["Cat"]), "expected classes with names of their own, got 'Cat' and 'cat'"),
        (lambda at: picture(at / "bird" / "0.png", 9), r"at least 5 images in .*bird, .*; found 1\. Add some, or make"),
    ],
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_folder_that_is_not_whole_is_told_by_its_file(tmp_path, change, message, split):
    full(tmp_path)
    change(tmp_path)
    with pytest.raises(UserError, match=message) as told:
        load_images(str(tmp_path), split)
    assert "\n" not in str(told.value)


def test_files_that_are_no_images_are_left_out_with_a_word(tmp_path):
    full(tmp_path)
    for name in ("cat/caption.txt", "dog/scene.psd"):
        (tmp_path / name).write_text("x")
    with pytest.warns(Caution, match=r"2 files in .* are no images .* left out, for example .*cat.caption\.txt"):
        assert len(load_images(str(tmp_path), "train")) == 8
    for name in ("cat/caption.txt", "dog/scene.psd"):
        (tmp_path / name).unlink()
    for name in ("cat/.DS_Store", ".git/0.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_images(str(tmp_path), "train").names == ("cat", "dog")


def test_both_splits_have_the_same_classes(tmp_path):
    full(tmp_path / "train", ["cat", "dog", "bird"])
    full(tmp_path / "test")
    for split in ("train", "test"):
        with pytest.raises(UserError, match="expected the same classes in"):
            load_images(str(tmp_path), split)


def test_pictures_of_a_dataset_are_read_as_those_of_an_audit(tmp_path):
    full(tmp_path)
    shades = (np.arange(16).reshape(4, 4) * 4096).astype(np.uint16)
    Image.fromarray(shades).save(tmp_path / "cat" / "0.png")
    for channels in (1, 3):
        images = load_images(str(tmp_path), "train", channels=channels).images[0]
        assert images.shape == (channels, 4, 4)
        np.testing.assert_allclose((images + 1) / 2, np.stack([shades / 65535] * channels), atol=0.01)


def test_a_class_in_another_case():
    data = LabelledImages(torch.zeros(2, 1, 2, 2), torch.tensor([0, 1]), ("cat", "dog"))
    with pytest.raises(UserError, match=r"one of \['cat', 'dog'\]; got 'Cat'\. Did you mean 'cat'\?"):
        data.of("Cat")


def test_a_class_that_is_not_there():
    data = LabelledImages(torch.zeros(2, 1, 2, 2), torch.tensor([0, 1]), ("a", "b"))
    with pytest.raises(UserError, match=r"one of \['a', 'b'\]; got 'c'"):
        data.of("c")
