"""UA by any CLIP: what it is asked, what counts as the concept, and when a run measures it."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from turpentine.pipeline.audits import (
    AuditImages,
    ClipModel,
    ConceptAudit,
    ImageSet,
    Judges,
    Subject,
    check_audits,
    wanted_audits,
)
from turpentine.pipeline.prompts import Question, questions_about
from turpentine.pipeline.run.audit import undrawable
from turpentine.pipeline.schema.recipe import AuditSection
from turpentine.pipeline.schema.results import AuditResult
from turpentine.pipeline.support.errors import UserError
from turpentine.pipeline.support.progress import Silent
from turpentine.pipeline.worlds import find_world

OPEN, TINY_CANVAS = find_world("open"), find_world("tiny-canvas")


class Labelled:
    """Sees in a picture the prompt whose number is in its first pixel, among the prompts that it was made for."""

    name = "labelled"

    def __init__(self, *prompts):
        self.prompts = list(prompts)

    def encode_images(self, images, advance=None, **_):
        return F.one_hot(torch.tensor([int(one[0, 0, 0]) for one in images]), len(self.prompts)).float()

    def encode_texts(self, prompts):
        return torch.tensor([[float(prompt == known) for known in self.prompts] for prompt in prompts])


def pictures(*places):
    return np.stack([np.full((8, 8, 3), place, np.uint8) for place in places])


def test_an_object_is_asked_for_among_other_objects_and_noise():
    (one,) = questions_about(("kitten",), "object", OPEN)
    assert one.concepts == ("kitten",) and one.names[0] == "kitten" and one.names[-1] == "random noise"
    assert one.prompts[0] == "a photo of a kitten" and one.prompts[-1] == "random noise"
    assert "dog" in one.names and "fox" in one.names, "those of training and test prompts"
    assert "cat" not in one.names, "another name of the concept is no other thing"
    assert len(set(one.names)) == len(one.names) == len(one.prompts) > 20


def test_every_sort_of_concept_has_a_question_of_its_own():
    subject, style = questions_about(("dog", "cat", "pop art"), "object", OPEN)
    assert subject.concepts == ("dog", "cat") and subject.names.count("cat") == 1
    assert style.concepts == ("pop art",) and style.prompts[1] == "a picture in the style of watercolor"
    (artist,) = questions_about(("monet",), "style", OPEN)
    assert artist.prompts[0] == "a painting in the style of Monet" and "Claude Monet" not in artist.names
    (cat, art) = questions_about(("kitten", "pop art"), "object", TINY_CANVAS)
    assert cat.concepts == ("cat",) and cat.names[:2] == ("astronaut", "cat") and art.concepts == ("pop art",)


@pytest.mark.parametrize(
    ("concepts", "kind", "world"),
    [((), "object", OPEN), (("nudity",), "nudity", OPEN), (("cat", "naked"), "object", OPEN),
     (("3",), "class", find_world("classes")), (("zebra",), "object", TINY_CANVAS)],
)  # fmt: skip
def test_where_no_question_can_be_asked(concepts, kind, world):
    assert questions_about(concepts, kind, world) == ()


def test_figures_by_hand():
    cat = Question(("cat", "dog", "random noise"), ("a cat", "a dog", "random noise"), ("cat",))
    art = Question(("photo", "neon"), ("a photo", "neon art"), ("neon",))
    judge = Labelled("a cat", "a dog", "random noise", "a photo", "neon art")
    found = ConceptAudit(judge, [cat])(pictures(0, 1, 1, 2), pictures(1, 1, 0, 1, 1))
    assert (found.UA, found.floor, found.noise, found.images) == (0.75, 0.2, 0.25, 4)
    assert found.instead == {"dog": 0.5, "cat": 0.25, "random noise": 0.25}
    assert found.among == ["cat", "dog", "random noise"] and found.model == "labelled"
    assert found.UA_interval.low < 0.75 < found.UA_interval.high
    dog = Question(("dog", "cat"), ("a dog", "a cat"), ("cat",))
    both = ConceptAudit(judge, [dog, art])
    assert both.answers(pictures(0, 4)) == [("cat", "photo"), ("dog", "neon")], "a tie goes to the first name"
    assert both(pictures(1, 3)).UA == 1 and both(pictures(0, 4, 4, 3)).UA == 0.25, "either concept counts"
    with pytest.raises(UserError, match="expected at least one question"):
        ConceptAudit(judge, [])


def test_before_and_after():
    audit = ConceptAudit(Labelled("a cat", "a dog", "random noise"), [Question(("cat", "dog", "random noise"),
                         ("a cat", "a dog", "random noise"), ("cat",))])  # fmt: skip
    before, after = audit(pictures(0, 0, 0, 1), pictures(1, 1)), audit(pictures(0, 1, 2, 2), pictures(1, 0))
    (row,) = ConceptAudit.rows(before, after)
    assert (row.before, row.after, row.outcome) == (0.25, 0.75, "better")
    assert "labelled" in row.meaning and "among 2 names" in row.meaning and "0.5" in row.meaning
    told = ConceptAudit.forgetting("object", before, after)
    assert (told.before, told.after, told.floor) == (0.75, 0.25, 0.5) and told.text.endswith("by labelled")
    assert ConceptAudit.scene(before, after).loss == pytest.approx(0.5)
    assert ConceptAudit.section(before, after).bars.counts == (
        ("cat", 75, 25),
        ("dog", 25, 25),
        ("random noise", 0, 50),
    )
    assert ConceptAudit.rows(None, after)[0].after_text.startswith("0.75")


def test_what_is_hardly_drawn_is_told_with_the_judge():
    audit = ConceptAudit(Labelled("a cat", "a dog"), [Question(("cat", "dog"), ("a cat", "a dog"), ("cat",))])
    subject = Subject(("cat",), "object", OPEN)
    (told,) = undrawable(subject, AuditResult(concept=audit(pictures(0, 1, 1, 1))))
    assert told.startswith("the model draws 'cat' recognisably (to labelled) in only 25% of its images")
    assert undrawable(subject, AuditResult(concept=audit(pictures(0, 0)))) == []


@pytest.mark.parametrize(
    ("options", "subject"),
    [
        ({"accuracy": False}, {}),
        ({"alignment": False}, {}),
        ({}, {"pictures": "folder"}),
        ({}, {"attribute_of": "cowboy"}),
        ({}, {"kind": "nudity", "concepts": ("nudity",)}),
        ({}, {"world": TINY_CANVAS}),
    ],
)
def test_a_run_without_it(options, subject):
    asked = Subject(**({"concepts": ("cat",), "kind": "object", "world": OPEN} | subject))
    assert ConceptAudit.wanted(AuditSection(), Subject(("cat",), "object", OPEN))
    assert not ConceptAudit.wanted(AuditSection(**options), asked)


def test_it_measures_with_the_model_of_the_alignment():
    options, subject = AuditSection(alignment_model="tiny-canvas"), Subject(("cat",), "object", OPEN)
    assert "concept" in [kind.name for kind in wanted_audits(options, subject)]
    audit = ConceptAudit.build(options, subject, Judges())
    assert isinstance(audit.clip, ClipModel) and audit.clip.name == "tiny-canvas"
    grey = ImageSet(np.full((2, 64, 64, 3), 127, np.uint8), ["a cat"] * 2)
    result = audit.measure(AuditImages(grey, grey, grey), subject, Silent())
    assert result.model == "tiny-canvas" and result.floor == pytest.approx(1 - result.UA), "the same pictures"
    with pytest.raises(UserError, match="expected a CLIP model"):
        check_audits(AuditSection(alignment_model="nothing"), subject, {})
