"""Pictures of what is to be forgotten: found, read, captioned, encoded, measured, and told from others."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from turpentine.pipeline.audits import AuditImages, ImageSet, ResemblanceAudit, Subject, wanted_audits
from turpentine.pipeline.audits.resemblance import FLOOR, SHOWN
from turpentine.pipeline.data.pictures import (
    check_pictures,
    find_pictures,
    keep_pictures,
    read_pictures,
    small_pictures,
)
from turpentine.pipeline.data.samples import SampleSet, encode
from turpentine.pipeline.maths.metrics import copies
from turpentine.pipeline.models import wrap_pipeline
from turpentine.pipeline.prompts import Caption, PromptSet, caption_set
from turpentine.pipeline.run.pictures import place_of
from turpentine.pipeline.run.preflight import preflight, preflight_model
from turpentine.pipeline.run.record import RunRecord
from turpentine.pipeline.schema.defaults import build_recipe, merge
from turpentine.pipeline.schema.recipe import AuditSection, SampleSection
from turpentine.pipeline.schema.resolve import resolve
from turpentine.pipeline.support.errors import UserError
from turpentine.pipeline.support.progress import Silent
from turpentine.pipeline.worlds import find_world
from turpentine.pipeline.worlds.tiny_canvas import labels_of

from ..support.tiny_models import IMAGE, build_family

SCENE = "a photo of a cat in a meadow at noon"
SMALL = {
    "concept": "cat",
    "device": "cpu",
    "prompts": {"n": 4, "n_test": 2},
    "samples": {"num_inference_steps": 2},
    "training": {"steps": 2, "batch_size": 2},
    "audits": {"images": 2, "retain_train_images": 2},
}


def picture(path: Path, colour=(200, 30, 30), size=(IMAGE, IMAGE), caption: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption)
    return path


def setting(folder: Path, **chosen):
    return resolve(build_recipe(merge(SMALL, {"data": {"forget_images": str(folder)}, **chosen})))


@pytest.fixture(scope="module")
def denoiser():
    return wrap_pipeline(build_family("sd1"))


# on the disk --------------------------------------------------------------------------------------


def test_pictures_and_their_captions_by_name(tmp_path):
    picture(tmp_path / "b.png", caption=" a photo\nof a cat ")
    picture(tmp_path / "a.JPG")
    picture(tmp_path / "inside" / "c.png")
    picture(tmp_path / ".hidden.png")
    found = find_pictures(tmp_path)
    assert [(each.path.name, each.caption) for each in found] == [("a.JPG", None), ("b.png", "a photo of a cat")]
    assert [file.name for file in found[1].files] == ["b.png", "b.txt"]
    assert find_pictures(tmp_path / "b.png") == found[1:]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (None, "expected a folder of pictures .* found none at"),
        ({"notes.md": "x"}, "expected at least one picture .* found none"),
        (
            {"a.png": None, "a.txt": " \n"},
            r"expected a caption in .*a\.txt, got an empty file\. Write what a\.png",
        ),
        ({"a.png": None, "a.jpg": None, "a.txt": "a cat"}, r"a\.txt stands beside several pictures"),
    ],
)
def test_what_is_no_folder_of_pictures(tmp_path, files, message):
    for name, text in (files or {}).items():
        picture(tmp_path / "given" / name) if text is None else (tmp_path / "given").mkdir(exist_ok=True)
        (tmp_path / "given" / name).write_text(text) if text is not None else None
    with pytest.raises(UserError, match=message):
        find_pictures(tmp_path / "given")


def test_pictures_are_looked_at_before_the_work(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    (tmp_path / "lost.txt").write_text("a caption without a picture")
    few, *others = [warning for warning in check_pictures(tmp_path) if "frames" not in warning]
    assert any("moving.gif has 2 frames" in warning for warning in check_pictures(tmp_path))
    assert few.startswith("1 picture to forget: enough for a single artwork") and "lost.txt" in others[0]
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nand no more")
    with pytest.raises(UserError, match=r"broken\.png"):
        check_pictures(tmp_path)


def test_ten_pictures_of_a_good_size_give_no_warning(tmp_path):
    for number in range(10):
        picture(tmp_path / f"{number}.png")
    assert check_pictures(tmp_path) == small_pictures(tmp_path, 2 * IMAGE) == []
    assert "10 pictures to forget, the first 0.png" in small_pictures(tmp_path, 2 * IMAGE + 1)[0]


def test_pictures_are_cropped_around_the_middle(tmp_path):
    wide = Image.new("RGB", (30, 10), "black")
    wide.paste((255, 0, 0), (10, 0, 20, 10))
    wide.save(tmp_path / "wide.png")
    pixels = read_pictures([tmp_path / "wide.png"], 10, 10)
    assert pixels.shape == (1, 3, 10, 10) and torch.equal(pixels[0, 0], torch.ones(10, 10)) and not pixels[0, 1:].any()


def test_pictures_in_memory_get_a_folder_of_their_own(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (2, 8, 8, 3), dtype=np.uint8)
    folder = keep_pictures(images, tmp_path, ["a cat", None])
    assert folder == keep_pictures(list(images), tmp_path, ["a cat", None]) != keep_pictures(images, tmp_path)
    assert [each.caption for each in find_pictures(folder)] == ["a cat", None]
    assert np.array_equal(np.asarray(Image.open(folder / "0001.png")), images[1])


def test_the_api_takes_a_folder_files_pil_images_and_tensors(tmp_path):
    file = picture(tmp_path / "given" / "a.png", caption="a cat")
    assert place_of(str(tmp_path / "given"), tmp_path) == tmp_path / "given"
    of_files = find_pictures(place_of([file, str(file)], tmp_path))
    assert [each.caption for each in of_files] == ["a cat", "a cat"]
    tensor = torch.rand(2, 3, 8, 8)
    assert len(find_pictures(place_of(tensor, tmp_path))) == len(
        find_pictures(place_of([Image.open(file)] * 2, tmp_path))
    )
    with pytest.raises(UserError, match=r"got values from"):
        place_of(tensor * 200 + 1, tmp_path)


# prompts ------------------------------------------------------------------------------------------


def test_rows_belong_to_the_pictures_in_turn():
    captions = [Caption("John Doe on a horse", "a.txt"), Caption(None, "b.png")]
    made = caption_set(captions, "John Doe", n=8, n_test=3)
    assert (
        made.forget_train[0::4] == ["John Doe on a horse"] * 2
        and made.forget_train[1::4] == ["a photo of a John Doe"] * 2
    )
    assert len(set(made.forget_train[2::4] + made.forget_train[3::4])) == 4, "prompts near the captions"
    assert made.retain_train[0].endswith(" on a horse") and not any("John" in text for text in made.retain_train)


def test_every_picture_has_a_row():
    assert len(caption_set([Caption(None, "a.png")] * 5, "cat", n=2, n_test=1).train) == 5


def test_a_scene_of_tiny_canvas_and_its_siblings():
    made = caption_set([Caption(SCENE, "a.txt")], "my picture", n=64, n_test=16, world="tiny-canvas")
    cell = labels_of(SCENE)
    assert all(labels_of(pair.forget) == cell for pair in (*made.train, *made.test))
    differing = [sum(labels_of(pair.retain)[name] != value for name, value in cell.items()) for pair in made.train]
    assert set(differing) == {1, 2}
    assert made.forget_train[0::2] == [SCENE] * 32 and len(set(made.forget_train[1::2])) > 20


def test_a_known_concept_changes_alone():
    made = caption_set([Caption(SCENE, "a.txt")], "cat", n=8, n_test=4, world="tiny-canvas")
    for pair in made.train[0::2]:
        assert {name for name, value in labels_of(pair.retain).items() if value != labels_of(SCENE)[name]} == {
            "subject"
        }
    assert made.test == PromptSet.build("cat", n=8, n_test=4, world="tiny-canvas").test


def test_what_was_removed_before_is_retained_and_no_anchor():
    made = caption_set(
        [Caption(SCENE, "a.txt")], "my picture", n=8, n_test=1, world="tiny-canvas", keep_forgotten=["pop art"]
    )
    guards = [pair for pair in made.train if pair.anchor is not None]
    assert len(guards) == 2 and all(labels_of(pair.retain)["style"] == "pop art" for pair in guards)
    assert all(labels_of(pair.instead)["style"] != "pop art" for pair in made.train)


def test_another_subject_takes_its_place_in_a_scene_with_a_label():
    captions = [Caption(SCENE, "a.txt"), Caption("neon art of an astronaut at night", "b.txt")]
    options = {"n": 8, "n_test": 2, "world": "tiny-canvas"}
    plain, made = (caption_set(captions, "my picture", **options, replace_with=text) for text in (None, "A stallion"))
    assert made.retain_train == plain.retain_train and made.forget_train == plain.forget_train
    for pair in (*made.train, *made.test):
        assert labels_of(pair.instead) == labels_of(pair.forget) | {"subject": "horse"} and "stallion" in pair.instead
    assert made.drawn_instead == "A stallion"
    usual = caption_set(captions, "my picture", **options, replace_with="auto")
    shown = {labels_of(pair.forget)["subject"] for pair in usual.train}
    assert shown == {"cat", "astronaut"} and usual.usual_anchor, "one subject that no caption shows, for all"
    assert {labels_of(pair.instead)["subject"] for pair in usual.train} == {"coffee"}
    for wrong, message in (
        (
            "a dog",
            "expected another subject of tiny-canvas to draw in the place of 'my picture' .* Use one of astronaut",
        ),
        ("nothing", "got 'nothing': tiny-canvas draws one in every picture"),
        ("pop art", "expected another subject"),
        ("a kitten", "expected another subject than what 'my picture' shows .* got 'kitten' for .*a cat"),
    ):
        with pytest.raises(UserError, match=message):
            caption_set(captions, "my picture", **options, replace_with=wrong)


@pytest.mark.parametrize(
    ("text", "concept", "world", "message"),
    [
        ("a horse in a meadow", "cat", "tiny-canvas", r"a\.txt: expected a caption that names 'cat'"),
        ("a unicorn", "my picture", "tiny-canvas", r"a\.txt: .* names one of tiny-canvas's subjects"),
        (None, "my picture", "tiny-canvas", r"a\.txt: .*'my picture'\. Write what the picture shows"),
        ("a man on a horse", "John Doe", "open", r"a\.txt: expected a prompt that names 'John Doe'"),
    ],
)
def test_captions_that_name_nothing(text, concept, world, message):
    with pytest.raises(UserError, match=message):
        caption_set([Caption(text, "a.txt")], concept, n=4, n_test=2, world=world)


# samples ------------------------------------------------------------------------------------------


def test_few_pictures_come_again_with_other_prompts(tmp_path, denoiser):
    paths = [picture(tmp_path / f"{name}.png", colour) for name, colour in (("a", (255, 0, 0)), ("b", (0, 0, 255)))]
    made = caption_set([Caption(None, "a"), Caption(None, "b")], "cat", n=6, n_test=1)
    spec = SampleSection(num_inference_steps=1)
    samples = SampleSet.of_pictures(denoiser, made, paths, spec)
    expected = encode(denoiser, read_pictures(paths, IMAGE, IMAGE))
    assert torch.equal(samples.forget.latents, expected.repeat(3, 1, 1, 1))
    assert torch.equal(samples.retain.latents, SampleSet.draw(denoiser, made, spec).retain.latents)
    assert len(samples.forget) == 6 and samples.one_to_one and len(samples.forget.rows.unique()) == 3


def test_mirror_images_come_in_turn(tmp_path, denoiser):
    half = Image.new("RGB", (IMAGE, IMAGE), "black")
    half.paste((255, 255, 255), (0, 0, IMAGE // 2, IMAGE))
    half.save(tmp_path / "half.png")
    made = caption_set([Caption(None, "a")], "cat", n=4, n_test=1)
    latents = SampleSet.of_pictures(
        denoiser, made, [tmp_path / "half.png"], SampleSection(num_inference_steps=1), flip=True
    ).forget.latents
    plain = read_pictures([tmp_path / "half.png"], IMAGE, IMAGE)
    both = encode(denoiser, torch.cat([plain, plain.flip(-1)]))
    assert torch.allclose(latents, both[[0, 0, 1, 1]], atol=1e-5) and not torch.allclose(both[0], both[1], atol=1e-2)


@pytest.mark.parametrize("family", ["sdxl", "sd3", "flux-dev"])
def test_pictures_fit_the_latents_of_every_family(tmp_path, family):
    denoiser = wrap_pipeline(build_family(family))
    made = caption_set([Caption(None, "a")], "cat", n=2, n_test=1)
    samples = SampleSet.of_pictures(
        denoiser, made, [picture(tmp_path / "a.png", size=(40, 30))], SampleSection(num_inference_steps=1)
    )
    assert samples.forget.latents.shape == samples.retain.latents.shape


def test_an_autoencoder_without_an_encoder_is_refused(tmp_path):
    denoiser = wrap_pipeline(build_family("sd1"))
    denoiser.pipeline.vae.encoder = None
    picture(tmp_path / "a.png")
    asked = setting(tmp_path)
    with pytest.raises(UserError, match=r"autoencoder \(vae\) can't encode pictures"):
        preflight_model(asked, preflight(asked, denoiser=denoiser).prompts, denoiser)


# the recipe, preflight and the record -------------------------------------------------------------


def test_a_relative_folder_is_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "given" / "a.png")
    assert setting(Path("given")).recipe.data.forget_images == str(tmp_path / "given")


@pytest.mark.parametrize(
    "chosen",
    [{"concept": "cat + horse"}, {"attribute_of": "dog"}, {"kind": "class", "model": "digits", "concept": "3"}],
)
def test_pictures_go_with_one_concept_of_a_text_to_image_model(tmp_path, chosen):
    with pytest.raises(UserError, match=r"data\.forget_images \(--forget-images\) goes with one concept"):
        setting(tmp_path, **chosen)


@pytest.mark.parametrize("method", ["esd", "finetune"])
def test_methods_that_see_no_forget_images_are_told(tmp_path, method):
    picture(tmp_path / "a.png")
    warnings = preflight(setting(tmp_path, method={"name": method})).warnings
    assert any(
        warning.startswith("data.forget_images (--forget-images) has no effect on the training") for warning in warnings
    )


def test_nothing_is_idle_and_the_repetition_is_told(tmp_path):
    picture(tmp_path / "a.png")
    warnings = preflight(setting(tmp_path)).warnings
    assert not any("no effect" in warning for warning in warnings)
    assert any(warning.startswith("1 picture to forget in 4 pairs: each comes 4 times") for warning in warnings)
    lone = resolve(build_recipe(merge(SMALL, {"data": {"flip_images": True}})))
    assert any("flip_images" in w and "without data.forget_images" in w for w in preflight(lone).warnings)


def test_own_prompts_need_a_row_for_each_picture(tmp_path):
    for name in "abc":
        picture(tmp_path / "given" / f"{name}.png")
    prompts = PromptSet.build("cat", n=2, n_test=2, world="tiny-canvas")
    with pytest.raises(UserError, match="expected a training pair for each of 3 pictures to forget, got 2 pairs"):
        preflight(setting(tmp_path / "given"), prompts)
    assert preflight(setting(tmp_path / "given"), prompts, trains=False)


@pytest.mark.parametrize("change", ["changed", "gone", "more", "caption"])
def test_a_run_tells_changed_pictures(tmp_path, denoiser, change):
    file = picture(tmp_path / "a.png", caption="a cat")
    picture(tmp_path / "b.png", (1, 2, 3))
    asked = setting(tmp_path)
    prompts = preflight(asked).prompts
    began = RunRecord.of(asked.recipe, prompts, denoiser)
    began.check_outside(RunRecord.of(asked.recipe, prompts, denoiser), tmp_path / "run")
    if change == "gone":
        file.unlink()
    elif change == "caption":
        file.with_suffix(".txt").write_text("a black cat")
    else:
        picture(file if change == "changed" else tmp_path / "c.png", (0, 255, 0))
    name = {"more": "c.png", "caption": "a.txt"}.get(change, "a.png")
    with pytest.raises(UserError, match=rf"{name} \(data\.forget_images\) has changed or gone since"):
        began.check_outside(RunRecord.of(asked.recipe, prompts, denoiser), tmp_path / "run")


# the audit ----------------------------------------------------------------------------------------


class Colours:
    """Image features that are the mean colour."""

    name = "colours"

    def encode_images(self, images, advance=None):
        pixels = images if isinstance(images, torch.Tensor) else torch.from_numpy(images).permute(0, 3, 1, 2) / 255
        mean = pixels.float().mean((2, 3))
        return mean / mean.norm(dim=1, keepdim=True)


def drawn(*colours):
    return ImageSet(
        np.stack([np.full((4, 4, 3), colour, np.uint8) for colour in colours]), [f"prompt {c}" for c in colours]
    )


def test_resemblance_by_hand(tmp_path):
    picture(tmp_path / "red.png", (255, 0, 0))
    audit = ResemblanceAudit(Colours(), find_pictures(tmp_path))
    retain = drawn(*[(0, 255, 0)] * 19, (255, 255, 0))
    images = AuditImages(drawn((0, 0, 255), (255, 0, 0), (255, 255, 0)), retain, retain)
    result = audit.measure(images, Subject(("red",), "object", find_world("open"), None, str(tmp_path)), Silent())
    half = math.sqrt(0.5)
    assert result.forget == pytest.approx((1 + half) / 3) and result.closest == pytest.approx(1)
    assert result.retain == pytest.approx(half / 20) and result.copies == pytest.approx(2 / 3)
    (nearest,) = result.nearest
    assert (nearest.picture, nearest.image, nearest.similarity) == ("red.png", 1, pytest.approx(1))
    assert ResemblanceAudit.forgetting("object", result, result).floor == FLOOR
    assert next(row.name for row in ResemblanceAudit.rows(result, None)) == "Copies" and SHOWN >= 1


def test_five_in_a_hundred_are_false_alarms():
    same = torch.linspace(-1, 1, 1001)
    assert copies(same, same) == pytest.approx(FLOOR, abs=1e-3)


def test_wanted_where_pictures_are_given_and_alignment_is_on(tmp_path):
    subject = Subject(("cat",), "object", find_world("open"), None, str(tmp_path))
    assert ResemblanceAudit in wanted_audits(AuditSection(), subject)
    assert ResemblanceAudit not in wanted_audits(AuditSection(alignment=False), subject)
    assert ResemblanceAudit not in wanted_audits(AuditSection(), Subject(("cat",), "object", find_world("open")))
