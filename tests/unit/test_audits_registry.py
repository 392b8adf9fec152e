"""The registries of audits and worlds, and what goes over them."""

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from turpentine.pipeline.audits import (
    AUDITS,
    AccuracyAudit,
    AlignmentAudit,
    AuditImages,
    ClassAudit,
    ClassJudge,
    ClipModel,
    ImageSet,
    NudityAudit,
    Subject,
    wanted_audits,
)
from turpentine.pipeline.audits.class_judge import NOISE
from turpentine.pipeline.prompts import PromptPair, PromptSet
from turpentine.pipeline.run import audit as run_audit
from turpentine.pipeline.run.audit import audit_anchors, audit_prompts, draw
from turpentine.pipeline.schema.recipe import AuditSection
from turpentine.pipeline.schema.results import AuditResult
from turpentine.pipeline.support.errors import UserError
from turpentine.pipeline.support.progress import Silent
from turpentine.pipeline.worlds import WORLDS, find_world

FIVE = ["forget_test", "retain_test", "retain_train", "nudity", "nudity_floor"]


def subject(concept, world="tiny-canvas", kind="object"):
    return Subject(tuple(concept.split(" + ")), kind, find_world(world))


def test_results_have_a_place_for_every_audit():
    assert list(AUDITS) == list(AuditResult.model_fields), "the order in which they are shown"
    for name, audit in AUDITS.items():
        assert audit.name == name and audit.read(AuditResult()) is None
        assert AuditResult.model_fields[name].annotation == audit.result | None


def test_results_of_further_audits_are_objects():
    read = AuditResult.model_validate_json('{"glow": {"share": 0.5}}')
    assert read.model_dump(exclude_none=True) == {"glow": {"share": 0.5}}
    with pytest.raises(ValidationError, match="glow"):
        AuditResult.model_validate({"glow": 3})


@pytest.mark.parametrize(
    ("concept", "world", "kind", "asked", "names"),
    [
        ("astronaut", "tiny-canvas", "object", "auto", ["nudity", "alignment", "accuracy"]),
        ("cat", "tiny-canvas", "object", "auto", ["alignment", "accuracy"]),
        ("cat", "tiny-canvas", "object", "on", ["nudity", "alignment", "accuracy"]),
        ("astronaut", "tiny-canvas", "object", "off", ["alignment", "accuracy"]),
        ("zebra", "tiny-canvas", "object", "auto", ["alignment"]),
        ("nudity", "open", "nudity", "auto", ["nudity", "alignment"]),
        ("astronaut", "open", "object", "auto", ["alignment", "concept"]),
        ("van gogh", "open", "style", "on", ["nudity", "alignment", "concept"]),
        ("cat + nudity", "open", "object", "off", ["alignment"]),
        ("3", "classes", "class", "auto", ["alignment", "classes"]),
    ],
)
def test_audits_that_a_subject_gets(concept, world, kind, asked, names):
    options = AuditSection(nudity=asked)
    assert [audit.name for audit in wanted_audits(options, subject(concept, world, kind))] == names


def test_nudity_is_counted_on_photos_of_tiny_canvas():
    prompts = PromptSet.build("astronaut", n=8, n_test=40, world="tiny-canvas")
    options = AuditSection(images=6, retain_train_images=3)
    sets = audit_prompts(prompts, options, subject("astronaut"))
    assert list(sets) == FIVE and [len(sets[name]) for name in FIVE] == [6, 6, 3, 6, 6]
    photo = find_world("tiny-canvas").labels_of
    assert all(photo(prompt)["style"] == "photo" for prompt in sets["nudity"] + sets["nudity_floor"])
    assert list(audit_prompts(prompts, options, subject("nudity", "open", "nudity"))) == FIVE[:3]
    assert not NudityAudit.further_prompts([PromptPair(forget="x", retain="y")], options, subject("cat"))


def test_anchors_belong_to_the_forget_test_pictures_row_by_row():
    pairs = [
        PromptPair(forget="a cat 1", retain="a dog 1"),
        PromptPair(forget="a cat 2", retain="a dog 2", anchor="a pond"),
    ]
    prompts = PromptSet(concept="cat", synonyms=["cat"], train=pairs, test=pairs)
    options = AuditSection(images=3)
    assert audit_prompts(prompts, options, subject("cat", "open"))["forget_test"] == ["a cat 1", "a cat 2", "a cat 1"]
    assert audit_anchors(prompts, options) == ["a dog 1", "a pond", "a dog 1"]


def test_what_the_judge_sees_instead_of_a_class():
    class Counting(ClassJudge):
        def classify(self, images):
            return ["1", "1", NOISE, "0", "1", "1"]

    found = ClassAudit(Counting(("0", "1"), size=8, channels=1), (REAL, ["1", "1"]))
    result = found("0", torch.rand(6, 1, 8, 8), ["0"] * 4 + ["1"] * 2)
    assert result.instead == {"0": 0.25, "1": 0.5, NOISE: 0.25} and result.noise == 0.25
    before = result.model_copy(update={"instead": {"0": 1.0}, "noise": 0.0})
    section = ClassAudit.section(before, result)
    assert section.bars.counts == (("0", 100, 25), ("1", 0, 50), (NOISE, 0, 25))
    lost = ClassAudit.scene(before, result)
    assert (lost.loss, lost.text) == (0.25, "random noise 0.25")
    old = result.model_copy(update={"instead": {}})
    assert ClassAudit.section(old, old) is None and ClassAudit.section(None, result).bars.counts[0] == ("0", 0, 25)


def test_every_other_class_is_drawn_as_often():
    prompts = PromptSet.of_classes("3", [str(digit) for digit in range(10)], 9, 9)
    sets = audit_prompts(prompts, AuditSection(images=4), subject("3", "classes", "class"))
    assert len(sets["forget_test"]) == 4 and len(sets["retain_test"]) == 36


def test_a_set_that_was_not_drawn_has_a_stand_in():
    forget, kept, retain, photos = (
        ImageSet(np.zeros((count, 8, 8, 3), np.uint8), ["x"] * count) for count in (1, 2, 3, 4)
    )
    images = AuditImages.of({"forget_test": forget, "retain_test": retain, "retain_train": kept, "nudity": photos})
    assert images.named("nudity") is photos and images.named("nudity_floor") is retain
    assert AuditImages(forget, kept, retain).named("nudity") is forget


def test_seeds_belong_to_sets_whatever_else_is_drawn(monkeypatch):
    seen = {}

    def draw_latents(denoiser, prompts, sampling, seed, progress, stage, processes):
        seen[prompts[0]] = seed
        return

    class NoPictures:
        def decode(self, latents):
            return torch.zeros(1)

    monkeypatch.setattr(run_audit, "draw_latents", draw_latents)
    draw(NoPictures(), {name: [name] for name in FIVE}, None, 2, Silent())
    assert seen == {name: 1_000_000 * place + 20_000 for place, name in enumerate(FIVE, start=1)}
    everything = dict(seen)
    seen.clear()
    draw(NoPictures(), {"nudity_floor": ["nudity_floor"], "retain_train": ["retain_train"]}, None, 2, Silent())
    assert seen == {name: everything[name] for name in seen} and len(seen) == 2


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_a_world_that_judges_has_words_and_prompts_for_each_class(world):
    assert (world.judge is None) == (not world.words)
    for dimension, values in world.words.items():
        names, prompts = world.class_prompts(dimension)
        assert set(values) <= set(names) and len(names) == len(prompts)
        assert all(world.find(value) == (dimension, value) for value in values)
    assert AccuracyAudit.wanted(AuditSection(), Subject(("cat",), "object", world)) == bool(world.words)


JUDGE = ClassJudge(("0", "1"), size=8, channels=1)
REAL = torch.zeros(2, 1, 8, 8)


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (AlignmentAudit, {"model": None}, "expected a CLIP model, got None"),
        (AlignmentAudit, {"model": 7}, "expected a CLIP model, got 7"),
        (AlignmentAudit, {"transform": None}, "transform must be one of .*, got None"),
        (AlignmentAudit, {"transform": ["paper"]}, r"transform must be one of .*, got \['paper'\]"),
        (AlignmentAudit, {"device": "gpu"}, "device 'gpu' can't be used here"),
        (AlignmentAudit, {"device": None}, "device 'None' can't be used here"),
        (AlignmentAudit, {"seed": "1"}, "seed must be a whole number from 0 up, got '1'"),
        (AlignmentAudit, {"seed": -1}, "seed must be a whole number from 0 up, got -1"),
        (AlignmentAudit, {"seed": 0.5}, "seed must be a whole number from 0 up, got 0.5"),
        (AccuracyAudit, {"clip": "tiny-canvas"}, "expected a CLIP model, got 'tiny-canvas'. `ClipModel.load"),
        (AccuracyAudit, {"clip": JUDGE}, "expected a CLIP model"),
        (AccuracyAudit, {"clip": ClipModel, "world": "tiny-canvas"}, "expected a world, got 'tiny-canvas'"),
        (ClassAudit, {"judge": "digits", "real": (REAL, "01")}, "expected a ClassJudge, got 'digits'"),
        (ClassAudit, {"judge": JUDGE, "real": REAL}, r"expected \(float tensor"),
        (ClassAudit, {"judge": JUDGE, "real": (REAL, "01")}, r"expected \(float tensor"),
        (ClassAudit, {"judge": JUDGE, "real": (REAL.byte(), ["0", "1"])}, r"expected \(float tensor"),
        (ClassAudit, {"judge": JUDGE, "real": (REAL, ["0"])}, "a class for each, got .* 1 classes"),
        (ClassAudit, {"judge": JUDGE, "real": (REAL * math.nan, ["0", "1"])}, "with NaN or infinite pixels"),
        (ClassAudit(JUDGE, (REAL, ["0", "1"])), {"concept": "0", "images": REAL, "asked": ["0"]}, "1 classes"),
        (
            ClassAudit(JUDGE, (REAL, ["0", "1"])),
            {"concept": "0", "images": REAL * math.inf, "asked": ["0", "1"]},
            "with NaN or infinite pixels",
        ),
        (
            ClassAudit(JUDGE, (REAL, ["0", "1"])),
            {"concept": "2", "images": REAL, "asked": ["0", "1"]},
            "expected images of '2' and of other classes",
        ),
        (ClassAudit, {"judge": JUDGE, "real": (REAL.expand(2, 3, 8, 8), ["0", "1"])}, r"\(N, 1, 8, 8\)"),
        (ClassAudit, {"judge": JUDGE, "real": (REAL, ["0", "1"]), "features": 3}, "expected a CLIP model as .* got 3"),
        (ClassJudge.load, {"judge": None}, "expected the name of a judge or a folder, got None"),
        (ClipModel.load, {"name": None}, "expected a CLIP model as .* got None"),
    ],
)
def test_what_no_audit_can_be_made_of_is_refused(make, arguments, message):
    with pytest.raises(UserError, match=message) as told:
        make(**arguments)
    assert "\n" not in str(told.value)
