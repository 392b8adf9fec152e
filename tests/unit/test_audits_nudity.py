import itertools
import math
import random
import sys
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from PIL import Image
from turpentine.pipeline.audits import ALL_LABELS, PAPER_LABELS, Detection, NudityAudit, annotate, resolve_labels
from turpentine.pipeline.bundled.tiny_canvas.render import render
from turpentine.pipeline.support.errors import MissingExtra, UserError
from turpentine.pipeline.worlds.tiny_canvas import Scene

PLACES = ("brick", "meadow", "space")


def photos(subject, seed=0):
    rng = random.Random(seed)
    scenes = itertools.product(PLACES, ("noon", "sunset", "night"))
    return np.stack([np.asarray(render(Scene(subject, place, time, "photo"), rng)) for place, time in scenes])


@pytest.fixture(scope="module")
def faces():
    return NudityAudit(labels=["FACE_FEMALE"])


def test_the_astronaut_is_found_in_small_photos_and_hardly_anything_elsewhere(faces):
    result = faces(photos("astronaut"), floor_images=np.concatenate([photos("rocket"), photos("coffee")]))
    assert result.images == 9
    assert result.images_with_any >= 8
    assert result.detections == {"FACE_FEMALE": result.images_with_any}
    assert result.threshold == 0.6
    assert result.floor == 0


def test_the_paper_s_labels_are_not_in_clothed_pictures():
    result = NudityAudit()(photos("astronaut")[:3])
    assert result.detections == dict.fromkeys(PAPER_LABELS, 0)
    assert result.images_with_any == 0
    assert result.floor is None


def test_detections_are_sorted_inside_the_image_and_at_or_above_the_threshold(faces):
    for found in NudityAudit(threshold=0.25, labels="all").detect(photos("astronaut")):
        assert found == sorted(found, key=lambda one: -one.score)
        for one in found:
            assert one.score >= 0.25
            assert 0 <= one.x <= one.x + one.w <= 64
            assert 0 <= one.y <= one.y + one.h <= 64
    strict = NudityAudit(threshold=0.99, labels=["FACE_FEMALE"])
    assert not any(strict.detect(photos("astronaut")))


def test_the_form_and_the_batch_size_do_not_matter(faces, tmp_path):
    pixels = photos("astronaut")[:3]
    expected = faces.detect(pixels)
    assert any(expected)
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    for path, one in zip(paths, pixels, strict=True):
        Image.fromarray(one).save(path)
    for images in (paths, torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255):
        for size in (1, 2):
            again = faces.detect(images, batch_size=size)
            assert [[one.label for one in found] for found in again] == [[one.label for one in of] for of in expected]
            for one, other in zip(itertools.chain(*again), itertools.chain(*expected), strict=True):
                assert one.score == pytest.approx(other.score, abs=1e-4)


def test_pixels_are_handed_over_as_nudenet_reads_files(faces, tmp_path):
    # red and blue exchanged gives other scores, so equality with the path says the order is right
    import nudenet

    pixels = photos("astronaut")[0]
    path = tmp_path / "one.png"
    Image.fromarray(pixels).save(path)
    reference = next(one for one in nudenet.NudeDetector().detect(str(path)) if one["class"] == "FACE_FEMALE")
    (found,) = faces.detect([path])[0]
    assert found.score == pytest.approx(reference["score"], abs=1e-3)
    assert [found.x, found.y, found.w, found.h] == reference["box"]
    exchanged = next(iter(faces.detect([np.ascontiguousarray(pixels[..., ::-1])])[0]), None)
    assert exchanged is None or abs(exchanged.score - found.score) > 1e-3


def test_mixed_sizes_are_one_call(faces):
    picture = Image.fromarray(photos("astronaut")[0])
    found = faces.detect([picture, picture.resize((200, 160)), Image.new("RGB", (70, 300))])
    assert len(found) == 3
    assert len(found[0]) == 1
    assert found[2] == []


def test_progress_is_told_about_every_image(faces):
    class Recorder:
        def __init__(self):
            self.seen = []

        def stage(self, name, total):
            self.seen.append((name, total))
            return nullcontext(lambda units=1, note="": self.seen.append(units))

    recorder = Recorder()
    faces.detect(photos("cat")[:5], batch_size=2, progress=recorder)
    assert recorder.seen == [("NudeNet", 5), 2, 2, 1]


def test_labels_are_nudenet_s():
    import nudenet.nudenet as module

    assert sorted(module.__dict__["__labels"]) == list(ALL_LABELS)
    assert set(PAPER_LABELS) < set(ALL_LABELS)
    assert resolve_labels("all") == ALL_LABELS
    assert resolve_labels(["FACE_MALE", "FACE_MALE"]) == ("FACE_MALE",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": "some"}, r"labels must be one of \['all', 'paper'\] or a list of NudeNet labels, got 'some'"),
        ({"labels": ["FACE"]}, r"got \['FACE'\]. The labels are: ANUS_COVERED, .*MALE_GENITALIA_EXPOSED"),
        ({"labels": "FACE_MALE, FACE"}, r"got \['FACE'\]. The labels are"),
        ({"labels": "PAPER"}, "got 'PAPER'"),
        ({"labels": ""}, "got ''"),
        ({"labels": []}, "expected NudeNet labels"),
        ({"labels": None}, "a list of NudeNet labels, got None"),
        ({"labels": 3}, "a list of NudeNet labels, got 3"),
        ({"labels": b"FACE_MALE"}, "got b'FACE_MALE'"),
        ({"labels": ["FACE_MALE", None, 3, []]}, r"got \[None, 3, \[\]\]. The labels are"),
        ({"threshold": 0.1}, r"threshold must be a number in \[0.25, 1\], got 0.1"),
        ({"threshold": 1.1}, r"in \[0.25, 1\], got 1.1"),
        ({"threshold": math.nan}, r"in \[0.25, 1\], got nan"),
        ({"threshold": math.inf}, "got inf"),
        ({"threshold": "0.6"}, "got '0.6'. NudeNet reports nothing that scores below 0.25"),
        ({"threshold": None}, "got None"),
        ({"threshold": True}, "got True"),
        ({"threshold": [0.6]}, r"got \[0.6\]"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        NudityAudit(**options)


@pytest.mark.parametrize("size", [0, -1, 1.5, None])
def test_a_batch_holds_at_least_one_picture(faces, size):
    with pytest.raises(UserError, match="batch_size must be a whole number from 1 up"):
        faces.detect(np.zeros((1, 8, 8, 3), np.uint8), batch_size=size)


def test_without_nudenet_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "nudenet", None)
    with pytest.raises(MissingExtra, match=r'The nudity audit needs .*pip install "turpentine\[nudenet\]"'):
        NudityAudit().detect(photos("cat")[:1])


@pytest.mark.parametrize("size", [64, 512])
def test_annotate_draws_and_blurs_inside_the_boxes_only(size):
    source = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    kept = source.copy()
    box = Detection("FACE_FEMALE", 0.8, x=size // 4, y=size // 4, w=size // 2, h=size // 2)
    drawn = np.asarray(annotate(source, [box]))
    assert drawn.shape == source.shape
    assert drawn[size // 4, size // 2].tolist() == [255, 64, 64]
    np.testing.assert_array_equal(drawn[: size // 4], source[: size // 4])
    middle = slice(size // 2 - 4, size // 2 + 4)
    np.testing.assert_array_equal(drawn[middle, middle], source[middle, middle])
    blurred = np.asarray(annotate(Image.fromarray(source), [box], blur=True))
    assert blurred[middle, middle].std() < 0.2 * source[middle, middle].std()
    np.testing.assert_array_equal(blurred[: size // 4], source[: size // 4])
    np.testing.assert_array_equal(source, kept)


def test_annotate_takes_boxes_without_area_and_at_the_edge():
    picture = Image.new("RGB", (64, 64))
    edges = [Detection("FACE_MALE", 0.5, 0, 0, 0, 0), Detection("FACE_MALE", 0.5, 60, 60, 4, 4)]
    assert annotate(picture, edges).size == (64, 64)
    assert annotate(picture, edges, blur=True).size == (64, 64)
