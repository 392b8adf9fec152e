"""Whole runs with numbers at the ends of their ranges, and models and folders in places of every name."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import turpentine
from turpentine.pipeline.models import load_denoiser
from turpentine.pipeline.support.errors import UserError

from ..support.command import SHORT, command, empty_figures
from ..support.tiny_models import build_family, tiny_vae
from ..support.training import same, weights


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    with empty_figures():
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A model's folder."""
    folder = tmp_path_factory.mktemp("models") / "sd1"
    build_family("sd1").save_pretrained(folder)
    return folder


def assert_whole(run: Path, steps: int = 1) -> None:
    assert len((run / "events.jsonl").read_text(encoding="utf-8").splitlines()) == steps
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    assert all((run / written["path"]).exists() for written in results["weights"])
    assert (run / "report.html").stat().st_size > 0


@pytest.mark.parametrize(
    "options",
    [
        ("--n", "1", "--batch-size", "1"),
        ("--n", "1", "--batch-size", "8"),
        ("--n", "4", "--batch-size", "64"),
        ("--seed", str(2**31 - 1)),
        ("--steps", "2", "--checkpoint-every", "1000000", "--device", "cpu"),
    ],
    ids=["one pair", "eight of one pair", "64 of four pairs", "largest seed", "no checkpoint"],
)
def test_numbers_at_the_ends(options, model, tmp_path):
    words = ["unlearn", "--concept", "cat", "--model", model, *SHORT, "--steps", "1", "--formats", "denoiser"]
    ended = command(*words, *options, "--out", tmp_path / "run")
    assert ended.code == 0, ended.err
    assert_whole(tmp_path / "run", 2 if "--steps" in options else 1)


def test_an_image_size_that_the_autoencoder_can_not_have(tmp_path):
    """20 is no multiple of 8, by which most autoencoders shrink an image."""
    pipeline = build_family("sd1")
    vae = tiny_vae(block_out_channels=(8,) * 4, down_block_types=("DownEncoderBlock2D",) * 4,
                   up_block_types=("UpDecoderBlock2D",) * 4)  # fmt: skip
    pipeline = type(pipeline)(**{**pipeline.components, "vae": vae}, requires_safety_checker=False)
    with pytest.raises(UserError) as caught:
        turpentine.unlearn(pipeline, "cat", out=tmp_path / "run", image_size=20, steps=1, n=1, n_test=1,
                           audits={"images": 1, "retain_train_images": 1, "alignment": False})  # fmt: skip
    assert "20" in str(caught.value) and "8" in str(caught.value) and "\n" not in str(caught.value)


PLACES = ["with space", "ü", "日本", "it's (1) [a] & b", "link", "./sd1", ".//sd1/", "~/sd1"]


@pytest.fixture
def here(model, tmp_path, monkeypatch) -> Path:
    """The working directory and home, with the model in places of every name."""
    for name in PLACES[:4]:
        shutil.copytree(model, tmp_path / name)
    shutil.copytree(model, tmp_path / "sd1")
    (tmp_path / "link").symlink_to(model, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("place", PLACES)
def test_models_load_from_any_place(place, here):
    loaded = load_denoiser(place, "cpu")
    assert same(weights(build_family("sd1").unet), weights(loaded.module))


@pytest.mark.parametrize(
    ("place", "out"),
    [("with space", "my runs/größe"), ("日本", "./実行//猫"), ("link", "it's (1) [a]"), (".//sd1/", "linked/run")],
)
def test_runs_go_to_any_place(place, out, here):
    (here / "elsewhere").mkdir()
    (here / "linked").symlink_to(here / "elsewhere", target_is_directory=True)
    (here / "eigene Sätze.csv").write_text(
        "forget,retain\n"
        + "".join(f"a cat by a {thing},a dog by a {thing}\n" for thing in ("hut", "lake", "tree", "car")),
        encoding="utf-8",
    )
    words = [
        "unlearn",
        "--concept",
        "cat",
        "--model",
        place,
        "--prompts",
        "eigene Sätze.csv",
        *SHORT[4:],
        "--steps",
        "1",
    ]
    ended = command(*words, "--formats", "denoiser", "--out", out)
    assert ended.code == 0, ended.err
    assert_whole(here / out)
