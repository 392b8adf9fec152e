"""What visitors of the app may reach: folders, names, recipes, the disk."""

import pytest

pytest.importorskip("gradio")

from turpentine.pipeline.run.folder import RunFolder
from turpentine.pipeline.schema.defaults import build_recipe
from turpentine.pipeline.schema.fields import fields_of
from turpentine.pipeline.support.errors import UserError
from turpentine.ui.access import Access, settable, short_text, upload

RECIPE = build_recipe({"concept": "cat"})


@pytest.fixture
def access(tmp_path) -> Access:
    for name in ("runs", "models/good", "models/nested/deep", "secret"):
        (tmp_path / name).mkdir(parents=True)
    for folder in ("models/good", "models/nested/deep", "secret"):
        (tmp_path / folder / "model_index.json").write_text("{}")
    (tmp_path / "models" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "secret" / "recipe.yaml").write_text("concept: x")
    RunFolder.create(RECIPE, tmp_path / "runs" / "cat-1")
    return Access(runs=tmp_path / "runs", models=(tmp_path / "models",), exports={"ComfyUI": tmp_path / "out"})


def test_a_run_is_found_by_its_name(access, tmp_path):
    assert access.run("cat-1").path == tmp_path / "runs" / "cat-1"
    RunFolder.create(RECIPE, tmp_path / "runs" / "a name with spaces")
    assert access.run_names() == ["cat-1"]


@pytest.mark.parametrize(
    "name",
    ["..", ".", "", "../secret", "cat-1/../../secret", "/etc", "link", "cat-1/", "a\0b", "~root", "..\\secret",
     ".hidden", "x" * 300, None, 3, ["cat-1"]],
)  # fmt: skip
def test_odd_names_of_runs_are_refused(access, name):
    with pytest.raises(UserError, match="expected"):
        access.run(name)


def test_only_a_run_is_deleted(access, tmp_path):
    for name in ("link", "..", "../secret"):
        with pytest.raises(UserError):
            access.delete(name)
    assert (tmp_path / "secret" / "recipe.yaml").exists()
    access.delete("cat-1")
    assert not (tmp_path / "runs" / "cat-1").exists()


def test_models_of_configured_folders_are_listed(access, tmp_path):
    names = access.model_names()
    assert names[0] == "tiny-canvas"
    assert str(tmp_path / "models" / "good") in names and str(tmp_path / "models" / "nested" / "deep") in names
    assert not any("link" in name or "secret" in name for name in names)


def test_models_elsewhere_are_refused(access, tmp_path):
    assert access.model("tiny-canvas") == "tiny-canvas"
    assert access.model(str(tmp_path / "models" / "good")) == str(tmp_path / "models" / "good")
    for name in (
        str(tmp_path / "secret"), str(tmp_path / "models" / "link"), str(tmp_path / "models" / ".." / "secret"),
        "models/good", "../secret", "/etc/passwd", "~/x", "https://example.org/model", "file:///etc", "org/model",
        "run:../x", "run:link", "a\0b", "x" * 2000, "", " ",
    ):  # fmt: skip
        with pytest.raises(UserError):
            access.model(name)


def test_hub_ids_only_where_allowed(access, tmp_path):
    with pytest.raises(UserError, match="--allow-hub"):
        access.model("org/model")
    open_access = Access(runs=access.runs, hub=True)
    assert open_access.model("org/model") == "org/model"
    for name in ("../model", "https://example.org/x", "org/model/more", "/etc/passwd", "org/..", ".org/model"):
        with pytest.raises(UserError):
            open_access.model(name)


@pytest.mark.parametrize(
    "chosen",
    [
        {"prompts": {"file": "/etc/passwd"}},
        {"prompts": {"llm_url": "http://169.254.169.254/v1", "source": "llm"}},
        {"prompts": {"llm_model": "/etc"}},
        {"prompts": {"source": "llm"}},
        {"audits": {"alignment_model": "/etc"}},
        {"audits": {"alignment_model": "ViT-B-32/other"}},
        {"audits": {"alignment_model": "../../secret"}},
        {"model": "/etc"},
        {"data": {"forget_images": "/etc"}},
        {"device": "x" * 600},
        {"concept": "x" * 61},
        {"nonsense": 1},
        {"training": {"steps": 0}},
        {"training": "steps"},
        {"method": {"name": "magic"}},
    ],
)
def test_recipes_that_reach_out_are_refused(access, chosen):
    with pytest.raises(UserError):
        access.recipe({"concept": "cat"} | chosen)


@pytest.mark.parametrize("chosen", [None, "cat", ["cat"], 3])
def test_what_is_no_recipe_is_refused(access, chosen):
    with pytest.raises(UserError, match="recipe"):
        access.recipe(chosen)


def test_every_free_text_is_plain_checked_or_closed(access):
    """A field that another part of the program adds can't be set by visitors until somebody has looked at it."""
    opened = {field.path for field in fields_of() if settable(field)}
    texts = {field.path for field in fields_of() if field.is_free_text and not field.several}
    assert texts & opened == {
        ("concept",),
        ("model",),
        ("device",),
        ("audits", "nudity_labels"),
        ("audits", "alignment_model"),
        ("prompts", "replace_with"),
        ("data", "forget_images"),
    }
    assert ("prompts", "file") not in opened and ("prompts", "llm_url") not in opened
    assert ("training", "steps") in opened


def test_the_language_model_is_the_configured_one(access):
    with_llm = Access(runs=access.runs, llm_url="http://localhost:1/v1", llm_model="m")
    recipe = with_llm.recipe({"concept": "cat", "prompts": {"source": "llm"}})
    assert (recipe.prompts.llm_url, recipe.prompts.llm_model) == ("http://localhost:1/v1", "m")


def test_a_full_quota_stops_new_runs(access):
    (access.runs / "cat-1" / "weights").write_bytes(b"x" * 5000)
    with pytest.raises(UserError, match="Delete runs"):
        Access(runs=access.runs, quota=4000).new_run(RECIPE)
    path = access.new_run(RECIPE)
    assert path.parent == access.runs and path.name.startswith("cat-rgd-")


def test_a_run_never_gets_a_hidden_or_foreign_name(access):
    for concept in ("..", "../../etc", "...x"):
        with pytest.raises(UserError, match=r"starts with a letter|at least one word"):
            access.new_run(build_recipe({"concept": concept}))
    assert access.new_run(build_recipe({"concept": "a/../../b"})).parent == access.runs


def test_exports_go_to_configured_folders_only(access, tmp_path):
    assert access.export_folder("ComfyUI") == tmp_path / "out"
    for name in ("", "..", "/tmp", None):
        with pytest.raises(UserError):
            access.export_folder(name)


def test_uploads_are_checked(tmp_path):
    small, large, other = (tmp_path / name for name in ("a.csv", "b.csv", "c.exe"))
    small.write_text("x")
    large.write_text("x" * 100)
    other.write_text("x")
    assert upload(str(small), (".csv",), 50) == small
    for path in (str(large), str(other), "", None, 3):
        with pytest.raises(UserError, match="expected a file"):
            upload(path, (".csv",), 50)


def test_pictures_that_cannot_be_kept_are_told_by_their_names(access, tmp_path):
    (tmp_path / "fake.png").write_text("no picture")
    with pytest.raises(UserError, match=r"^expected an image at fake\.png, but"):
        access.keep_pictures([str(tmp_path / "fake.png")])
    assert list(access.runs.glob("pictures-*")) == []


def test_texts_are_short():
    assert short_text(" a \n b ", "prompt") == "a b"
    for text in ("", " ", "x" * 501, None, "a\0"):
        with pytest.raises(UserError):
            short_text(text, "prompt")
