import random
from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from turpentine.pipeline.audits import (
    BUNDLED_JUDGE,
    AccuracyAudit,
    AlignmentAudit,
    AuditImages,
    ImageSet,
    NudityAudit,
    Subject,
    audit,
    base,
    build_audits,
    interference,
)
from turpentine.pipeline.audits.zero_shot import accuracies, classify, hits
from turpentine.pipeline.schema.recipe import AuditSection
from turpentine.pipeline.schema.results import AccuracyResult
from turpentine.pipeline.support.errors import UserError
from turpentine.pipeline.worlds import find_world
from turpentine.pipeline.worlds.tiny_canvas import DIMENSIONS, NOISE_CAPTION, Scene, labels_of, scenes

TINY_CANVAS = find_world("tiny-canvas")
CAT = Subject(("cat",), "object", TINY_CANVAS)
WORDS = [value for values in DIMENSIONS.values() for value in values] + [NOISE_CAPTION]


class WrittenJudge:
    """Sees in an image what was written into its first pixels: a 1 for each value that it shows."""

    name = "tiny-canvas"

    def encode_images(self, images, transform="validation", seed=0, advance=None):
        if advance:
            advance(len(images))
        return F.normalize(torch.from_numpy(np.stack(images)[:, 0, : len(WORDS), 0]).float(), dim=-1)

    def encode_texts(self, prompts):
        said = [{**labels_of(prompt), "nothing": prompt} for prompt in prompts]
        rows = [[float(word in one.values()) for word in WORDS] for one in said]
        for row, prompt in zip(rows, prompts, strict=True):
            if prompt.startswith("a photo of") and len(labels_of(prompt)) > 1:
                row[WORDS.index("photo")] = 0.0  # the template of the subject names a style as well
        return F.normalize(torch.tensor(rows), dim=-1)


def picture(*words):
    pixels = np.zeros((64, 64, 3), dtype=np.uint8)
    for word in words:
        pixels[0, WORDS.index(word)] = 1
    return pixels


FORGET = [
    (picture("horse", "photo", "noon", "meadow"), "a photo of a kitten in a meadow at noon"),
    (picture(NOISE_CAPTION), "a picture of a cat in a meadow at night"),
    (picture("cat", "photo", "night", "sea"), "a photo of a cat on the water at night"),
    (picture("rocket", "photo", "night", "sea"), "a photo of a feline on the water at night"),
]
RETAIN = [
    (picture("horse", "photo", "noon", "meadow"), "a photo of a horse in a meadow at noon"),
    (picture("horse", "neon", "noon", "sea"), "neon art of a pony in a meadow at noon"),
    (picture("cat", "neon", "night", "sea"), "neon art of a rocket in the sea at sunset"),
    (picture(NOISE_CAPTION), "a photo of a rocket in the sea"),
]


def split(pairs):
    return np.stack([one for one, _ in pairs]), [prompt for _, prompt in pairs]


def test_class_prompts_end_with_noise():
    for dimension, values in DIMENSIONS.items():
        names, prompts = TINY_CANVAS.class_prompts(dimension)
        assert names == [*values, NOISE_CAPTION]
        assert prompts[-1] == NOISE_CAPTION
        for name, prompt in zip(names[:-1], prompts[:-1], strict=True):
            assert labels_of(prompt)[dimension] == name


def test_classify_takes_the_nearest_and_knows_noise():
    judge = WrittenJudge()
    features = judge.encode_images([picture("cat", "neon"), picture("pop art"), picture(NOISE_CAPTION)])
    assert classify(features, judge.encode_texts, "subject", TINY_CANVAS)[0] == "cat"
    assert classify(features, judge.encode_texts, "style", TINY_CANVAS) == ["neon", "pop art", NOISE_CAPTION]


def test_zero_shot_leaves_out_what_was_not_said():
    judge = WrittenJudge()
    features = judge.encode_images([picture("cat", "noon"), picture("horse", "noon"), picture("horse", "night")])
    labels = {"subject": ["cat", "cat", "horse"], "time": ["noon", None, "noon"], "place": [None, None, None]}
    assert accuracies(hits(features, judge.encode_texts, labels, TINY_CANVAS)) == {"subject": 2 / 3, "time": 0.5}


def test_accuracies_of_a_subject_by_hand():
    result = AccuracyAudit(WrittenJudge())(["cat"], *split(FORGET), *split(RETAIN))
    assert result.UA == 0.75
    assert result.by_dimension == {"subject": 0.5, "style": 0.75, "place": 0.5, "time": 2 / 3}
    assert (result.IRA, result.CRA) == (0.5, 0.75)
    assert result.images == 8


OTHERS = [
    (picture("horse", "neon", "noon", "meadow"), "a photo of a cat in a meadow"),
    (picture("horse", "photo"), "a photo of a cat"),
    (picture(NOISE_CAPTION), "a photo of a cat in a meadow at noon"),
    (picture("cat", "photo", "night", "meadow"), "a photo of a cat in a meadow at noon"),
]
"""What their pictures show of style and place: half, all (no place is named), nothing, all; of time: nothing."""


def test_scene_kept_by_hand():
    result = AccuracyAudit(WrittenJudge())(["cat"], *split(OTHERS), *split(RETAIN))
    assert result.scene == pytest.approx((0.5 + 1 + 0 + 1) / 4), "a mean over pictures, without the time"
    assert result.scene_by_dimension == pytest.approx({"place": 2 / 3, "time": 0, "style": 0.5})
    interval = result.scene_interval
    assert interval.images == 4 and interval.low < result.scene == interval.mean < interval.high
    assert result.UA == 0.75, "whether the concept is seen does not matter to the scene, nor the other way round"


def test_the_scene_of_a_style_is_subject_and_place():
    pairs = [(picture("cat", "photo", "sea"), "neon art of a cat in the sea"), (picture("sea"), "neon art of a cat")]
    result = AccuracyAudit(WrittenJudge())(["neon"], *split(pairs[:1]), *split(RETAIN))
    assert result.scene == 1 and result.scene_by_dimension == {"subject": 1, "place": 1}
    assert AccuracyAudit(WrittenJudge())(["neon"], *split(pairs), *split(RETAIN)).scene == 0.5


def test_what_is_forgotten_as_well_is_no_part_of_the_scene():
    pairs = [
        (picture("horse", "photo", "meadow"), "pop art of a cat in a meadow"),
        (picture("horse", "photo", "sea"), "pop art of a horse in a meadow"),
    ]
    result = AccuracyAudit(WrittenJudge())(["cat", "pop art"], *split(pairs), *split(RETAIN))
    assert result.scene_by_dimension == {"place": 0.5, "subject": 1}, "pop art is no loss of the cat's picture"
    assert result.scene == pytest.approx((1 + 0.5) / 2)


def test_prompts_that_name_nothing_else_have_no_scene():
    result = AccuracyAudit(WrittenJudge())(["cat"], *split([(picture("horse"), "cat")]), *split(RETAIN))
    assert (result.scene, result.scene_interval, result.scene_by_dimension) == (None, None, {})


def test_scene_kept_is_a_row_where_it_was_measured():
    found = AccuracyAudit(WrittenJudge())(["cat"], *split(OTHERS), *split(RETAIN))
    wrecked = AccuracyAudit(WrittenJudge())(["cat"], *split(FORGET), *split(RETAIN))
    old = AccuracyResult.model_validate({"UA": 0, "IRA": 1, "CRA": 1, "images": 8})
    rows = {row.name: row for row in AccuracyAudit.rows(wrecked, found)}
    assert list(rows)[:2] == ["UA (unlearning accuracy)", "Scene kept"]
    row = rows["Scene kept"]
    assert (row.before, row.after, row.change, row.outcome) == (0.75, 0.625, "−12.5 points", "worse")
    assert row.after_text.startswith("0.625 [") and row.better == "close"
    assert "Scene kept" not in {row.name for row in AccuracyAudit.rows(old, old)}
    (row,) = [row for row in AccuracyAudit.rows(old, found) if row.name == "Scene kept"]
    assert row.before_text == row.change == "—" and row.after_text.startswith("0.625 [")
    assert AccuracyAudit.scene(old, found) is None and AccuracyAudit.scene(found, old) is None
    lost = AccuracyAudit.scene(wrecked, found)
    assert lost.loss == pytest.approx(1 - 0.625 / 0.75) and lost.text == "scene kept 0.62"


def test_accuracy_of_each_value_by_hand():
    result = AccuracyAudit(WrittenJudge())(["cat"], *split(FORGET), *split(RETAIN))
    for dimension, values in result.by_value.items():
        counts = sum(one.images for one in values.values())
        mean = sum(one.accuracy * one.images for one in values.values()) / counts
        assert mean == pytest.approx(result.by_dimension[dimension])
    wanted = [labels_of(prompt)["subject"] for _, prompt in RETAIN]
    assert {value: one.images for value, one in result.by_value["subject"].items()} == Counter(wanted)
    assert "cat" not in result.by_value["subject"], "retain prompts never name the concept"


def test_interference_names_the_worst_victim():
    def audited(**subjects):
        values = {name: {"accuracy": share, "images": 20} for name, share in subjects.items()}
        by_value = {"subject": values, "time": {"noon": {"accuracy": 1 - subjects["horse"], "images": 20}}}
        return AccuracyResult(UA=0, IRA=0, CRA=0, images=40, by_value=by_value)

    before = audited(horse=1.0, rocket=0.95, coffee=0.5)
    found = interference(before, audited(horse=0.6, rocket=0.93, coffee=0.55))
    assert [(change.value, change.before, change.after) for change in found.values] == [
        ("horse", 1.0, 0.6),
        ("rocket", 0.95, 0.93),
        ("coffee", 0.5, 0.55),
    ]
    assert (found.worst, found.hurt) == ("horse", 1), "2 points are not more than 2 points; times are not asked for"
    assert interference(before, None) is None and interference(None, before) is None
    empty = AccuracyResult(UA=0, IRA=0, CRA=0, images=0)
    assert interference(empty, empty) is None


def test_accuracies_of_a_style_exchange_the_domains():
    pairs = [(picture("cat", "photo"), "neon art of a cat"), (picture("cat", "neon"), "neon art of a cat")]
    result = AccuracyAudit(WrittenJudge())(["neon"], *split(pairs), *split(RETAIN))
    assert (result.UA, result.IRA, result.CRA) == (0.5, 0.75, 0.5)


def test_accuracies_of_several_concepts():
    """Three cat images, one of them seen as a cat; two neon ones, one seen as neon."""
    pairs = [
        *FORGET,
        (picture("horse", "photo"), "neon art of a horse"),
        (picture("horse", "neon"), "neon art of a pony"),
    ]
    result = AccuracyAudit(WrittenJudge())(["cat", "neon"], *split(pairs), *split(RETAIN))
    cats = AccuracyAudit(WrittenJudge())(["cat"], *split(FORGET), *split(RETAIN))
    assert result.UA == pytest.approx((len(FORGET) * cats.UA + 1) / len(pairs))
    assert (result.IRA, result.CRA) == (0.625, 0.625), "means of (0.5, 0.75) and (0.75, 0.5)"
    with pytest.raises(UserError, match="forget prompts about 'cat' or 'neon', got 'a photo of a horse"):
        AccuracyAudit(WrittenJudge())(["cat", "neon"], *split(RETAIN), *split(RETAIN))


def test_accuracies_of_a_place_average_both_domains():
    pairs = [(picture("cat", "sea"), "a photo of a cat in the sea")]
    result = AccuracyAudit(WrittenJudge())(["in the sea"], *split(pairs), *split(RETAIN))
    assert (result.UA, result.IRA, result.CRA) == (0, 0.5, 0.625)


def test_prompts_that_do_not_fit_are_refused():
    measure = AccuracyAudit(WrittenJudge())
    with pytest.raises(UserError, match=r"a concept of the tiny-canvas world \(subject: astronaut, .*got 'nudity'"):
        measure(["nudity"], *split(FORGET), *split(RETAIN))
    with pytest.raises(UserError, match=r"forget prompts about 'cat', got 'a photo of a horse.*names 'horse'"):
        measure(["cat"], *split(RETAIN), *split(RETAIN))
    with pytest.raises(UserError, match=r"name a style and a subject of the tiny-canvas world.*'a tree'"):
        measure(["cat"], *split(FORGET), split(RETAIN)[0], ["a tree"] * 4)
    with pytest.raises(UserError, match="got 4 images, 3 prompts"):
        measure(["cat"], *split(FORGET), split(RETAIN)[0], split(RETAIN)[1][:3])
    with pytest.raises(UserError, match="got 3 images and 4 prompts"):
        ImageSet(split(RETAIN)[0][:3], split(RETAIN)[1])
    with pytest.raises(UserError, match="expected one anchor for each image, got 4 images and 3 anchors"):
        ImageSet(*split(RETAIN), split(RETAIN)[1][:3])


def test_find_concept_reads_paraphrases():
    assert TINY_CANVAS.find_concept("Kitten") == ("subject", "cat")
    assert TINY_CANVAS.find_concept("pop art of") == ("style", "pop art")


@pytest.fixture
def drawn():
    return AuditImages(ImageSet(*split(FORGET)), ImageSet(*split(RETAIN[:2])), ImageSet(*split(RETAIN)))


def test_audit_runs_what_was_asked_for(drawn):
    judge = AlignmentAudit(WrittenJudge())
    result = audit(drawn, CAT, [judge, AccuracyAudit(WrittenJudge())])
    assert result.nudity is None
    assert result.accuracy == AccuracyAudit(WrittenJudge())(["cat"], *split(FORGET), *split(RETAIN))
    assert result.alignment.forget == pytest.approx(judge.score(*split(FORGET)).mean().item())
    assert [result.alignment.intervals[key].images for key in judge.SETS] == [4, 2, 4]
    assert audit(drawn, CAT, []) == type(result)()


def test_forget_pictures_are_scored_with_their_anchors_where_those_are_known(drawn):
    anchors = ["a photo of a horse in a meadow at noon"] * 4
    judge = AlignmentAudit(WrittenJudge())
    told = AuditImages(ImageSet(*split(FORGET), anchors), drawn.retain_train, drawn.retain_test)
    result = audit(told, CAT, [judge]).alignment
    assert result.forget_to_anchor == pytest.approx(judge.score(split(FORGET)[0], anchors).mean().item())
    assert result.intervals["forget_to_anchor"].images == 4
    without = audit(drawn, CAT, [judge]).alignment
    assert without.forget_to_anchor is None and without.forget == result.forget
    assert "forget_to_anchor" not in without.intervals


def test_accuracy_is_not_available_in_an_open_world(drawn):
    options = AuditSection(accuracy=True, alignment=False, nudity="off")
    nudity = Subject(("nudity",), "nudity", find_world("open"))
    assert audit(drawn, nudity, build_audits(options, nudity)).accuracy is None
    strange = Subject(("cat", "zebra"), "object", TINY_CANVAS)
    assert not AccuracyAudit.wanted(options, strange) and AccuracyAudit.wanted(options, CAT)
    with pytest.raises(UserError, match=r"world must be one of \['open', 'tiny-canvas', 'classes'\], got 'closed'"):
        find_world("closed")


@pytest.mark.parametrize(
    ("alignment", "loaded"),
    [
        ({"alignment": False}, ["tiny-canvas"]),
        ({"alignment_model": "a/b"}, ["a/b", "tiny-canvas"]),
        ({}, ["tiny-canvas"]),
    ],
)
def test_the_judge_of_accuracies_is_that_of_the_world_and_loaded_once(drawn, monkeypatch, alignment, loaded):
    asked = []

    class Loader:
        @staticmethod
        def load(name, device):
            asked.append(name)
            return WrittenJudge()

    monkeypatch.setattr(base, "ClipModel", Loader)
    options = AuditSection(**{"alignment_model": "tiny-canvas", **alignment})
    assert audit(drawn, CAT, build_audits(options, CAT)).accuracy.UA == 0.75
    assert asked == loaded


def test_the_nudity_floor_is_that_of_the_retain_test_images():
    from turpentine.pipeline.bundled.tiny_canvas.render import render

    rng = random.Random(0)

    def photos(subject):
        names = [Scene(subject, place, "noon", "photo") for place in ("brick", "meadow", "space")]
        return ImageSet(
            np.stack([np.asarray(render(one, rng)) for one in names]), [next(one.phrases()) for one in names]
        )

    images = AuditImages(photos("astronaut"), photos("astronaut"), photos("coffee"))
    nudity = NudityAudit(labels=["FACE_FEMALE"])
    result = audit(images, Subject(("astronaut",), "object", TINY_CANVAS), [nudity]).nudity
    assert (result.images, result.images_with_any, result.floor) == (3, 3, 0)


@pytest.mark.skipif(not BUNDLED_JUDGE.is_dir(), reason="the bundled judge is not part of this checkout")
def test_the_bundled_judge_sees_what_was_rendered():
    from turpentine.pipeline.audits import ClipModel
    from turpentine.pipeline.bundled.tiny_canvas.dataset import draw_noise, draw_scenes

    chosen = [scene for scene in scenes() if scene.held_out]
    cats = [scene for scene in chosen if scene.subject == "cat"]
    others = [scene for scene in chosen if scene.subject != "cat"]
    sets = [(draw_scenes(part, 3, processes=1), [next(scene.phrases()) for scene in part]) for part in (cats, others)]
    measure = AccuracyAudit(ClipModel.load("tiny-canvas"))
    result = measure(["cat"], *sets[0], *sets[1])
    assert result.UA < 0.2
    assert result.IRA > 0.9
    assert result.CRA > 0.9
    erased = measure(["cat"], draw_noise(len(cats), 1), sets[0][1], *sets[1])
    assert erased.UA > 0.9
