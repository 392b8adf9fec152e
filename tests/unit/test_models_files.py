"""A model's files and numbers, one by one: what is wrong is told in one line, with the file's name."""

import pytest
import torch
from safetensors.torch import save_file
from turpentine.pipeline.models.entry import calm
from turpentine.pipeline.models.files import check_file, read_header, read_json, reason_of
from turpentine.pipeline.models.pixels import to_pixels
from turpentine.pipeline.support.errors import UserError


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"x\.json is missing"),
        (b"", r"x\.json is empty"),
        (b"{", r"x\.json is not JSON"),
        (b"\xff\xfe{}", r"x\.json is not JSON"),
        (b"[" * 100_000, r"x\.json is not JSON"),
        (b"[1]", r"JSON object in .*x\.json, found a list"),
        (b"null", "found a NoneType"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", r"x\.json is a Git LFS pointer"),
    ],
)
def test_what_is_no_json_object(content, message, tmp_path):
    if content is not None:
        (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_json(tmp_path / "x.json")
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(UserError, match="is missing"):
        check_file(tmp_path)


@pytest.mark.parametrize("keep", [0, 4, 8, 40, -1])
def test_a_file_that_ends_too_early(keep, tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"a.weight": torch.zeros(3)}, path, {"k": "v"})
    assert read_header(path).shapes == {"a.weight": [3]} and read_header(path).metadata == {"k": "v"}
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"x\.safetensors"):
        read_header(path)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("two\n  lines."), "two lines"),
        (KeyError("unet"), "KeyError: 'unet'"),
        (OSError(), "OSError: "),
        (RuntimeError("x" * 400), "x" * 300),
    ],
)
def test_a_reason_is_one_line(error, line):
    assert reason_of(error) == line


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_pixels_are_rounded_and_clipped_but_never_made_up(bad, dtype):
    images = torch.tensor([-1.5, -1.0, 0.0, 1.0, 3.0], dtype=dtype).reshape(5, 1, 1, 1)
    assert to_pixels(images)[:, 0, 0].tolist() == [[value] * 3 for value in (0, 0, 128, 255, 255)]
    with pytest.raises(
        UserError, match=r"expected numbers from the vae, got NaN \(not a number\) or infinity in 1 of 5"
    ):
        to_pixels(torch.where(images == 0, bad, images), "the vae")


def test_torch_is_calm_inside_and_as_before_outside():
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16), torch.device("meta"):
            with calm():
                made = torch.zeros(1)
                assert made.dtype == torch.float32 and made.device.type == "cpu" and not made.is_inference()
                assert torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
            made = torch.zeros(1)
            assert made.dtype == torch.float64 and made.device.type == "meta" and made.is_inference()
            assert torch.is_autocast_enabled("cpu") and not torch.is_grad_enabled()
        with pytest.raises(KeyError), calm():
            raise KeyError
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
