import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from turpentine.pipeline.audits import to_uint8
from turpentine.pipeline.support.errors import UserError

PIXELS = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_float_tensors_are_rounded(dtype):
    values = torch.tensor([0.0, 0.5, 1.0], dtype=dtype).view(1, 3, 1, 1).expand(2, 3, 4, 5)
    pixels = to_uint8(values)
    assert pixels.shape == (2, 4, 5, 3)
    assert pixels.dtype == np.uint8
    assert pixels[0, 0, 0].tolist() == [0, 128, 255]


def test_every_form_of_the_same_images_gives_the_same_pixels(tmp_path):
    pictures = [Image.fromarray(one) for one in PIXELS]
    for index, picture in enumerate(pictures):
        picture.save(tmp_path / f"{index}.png")
    tensor = torch.from_numpy(PIXELS).permute(0, 3, 1, 2)
    forms = [
        PIXELS,
        PIXELS.astype(np.float32) / 255,
        tensor,
        tensor.float() / 255,
        (tensor.float() / 255).requires_grad_(),
        pictures,
        tuple(pictures),
        [tmp_path / "0.png", str(tmp_path / "1.png")],
        [pictures[0], tmp_path / "1.png"],
        [PIXELS[0], pictures[1]],
    ]
    for form in forms:
        np.testing.assert_array_equal(to_uint8(form), PIXELS)


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6).map(lambda hw: (2, *hw, 3))))
def test_eight_bits_survive_the_way_through_floats(pixels):
    as_float = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    np.testing.assert_array_equal(to_uint8(as_float), pixels)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_other_modes_become_rgb(mode):
    assert to_uint8([Image.new("RGB", (5, 4), (200, 200, 200)).convert(mode)]).shape == (1, 4, 5, 3)


def test_mixed_sizes_come_back_as_a_list():
    pixels = to_uint8([Image.new("RGB", (5, 4)), Image.new("RGB", (6, 4))])
    assert isinstance(pixels, list)
    assert [one.shape for one in pixels] == [(4, 5, 3), (4, 6, 3)]
    again = to_uint8(pixels)
    assert [one.shape for one in again] == [(4, 5, 3), (4, 6, 3)]


def test_inputs_stay_as_they_are():
    tensor = torch.full((1, 3, 2, 2), 0.3)
    before = tensor.clone()
    to_uint8(tensor)
    assert torch.equal(tensor, before)


NAN = torch.zeros(1, 3, 2, 2)
NAN[0, 0, 0, 0] = float("nan")


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (NAN, "got 1 that are NaN or infinite"),
        (torch.zeros(1, 3, 2, 2) - 1, r"got values from -1 to -1. From \[-1, 1\], scale"),
        (torch.zeros(1, 3, 2, 2) + 255, "got values from 255 to 255. Divide them by 255"),
        (torch.zeros(1, 3, 2, 2) + 1.2, "got values from 1.2 to 1.2. Clamp"),
        (torch.zeros(1, 3, 2, 2) + 60000, r"got values from 6e\+04 to 6e\+04. Divide them by the value that"),
        (torch.zeros(1, 3, 2, 2, dtype=torch.int64), "got int64. Divide them by the value that stands for white"),
        (torch.zeros(1, 3, 2, 2, dtype=torch.bool), "got bool"),
        (torch.zeros(1, 3, 2, 2, dtype=torch.uint16), "got uint16"),
        (torch.zeros(1, 3, 2, 2, dtype=torch.complex64), "got complex64"),
        (torch.zeros(1, 3, 2, 2).to_sparse(), "expected images as a dense tensor, got one that is sparse"),
        (torch.zeros(1, 3, 2, 2, device="meta"), "on the device 'meta'"),
        (np.zeros((1, 4, 4, 3), np.uint16), "got uint16"),
        (np.zeros((1, 4, 4, 3), bool), "got bool"),
        (np.zeros((1, 4, 4, 3), object), "got object"),
        (np.zeros((1, 0, 4, 3)), r"at least one pixel, got the shape \(1, 0, 4, 3\)"),
        (torch.zeros(1, 3, 4, 0), r"at least one pixel, got the shape \(1, 3, 4, 0\)"),
        ([np.zeros((0, 4, 3), np.uint8)], "at least one pixel"),
        ([np.zeros((4, 4), np.uint8)], r"got ndarray of shape \(4, 4\) at place 0"),
        ([np.zeros((4, 4, 1), np.uint8)], r"got ndarray of shape \(4, 4, 1\) at place 0"),
        ([np.zeros((4, 4, 4), np.uint8)], r"got ndarray of shape \(4, 4, 4\) at place 0"),
        ([np.zeros((4, 4, 3), np.uint16)], "got uint16"),
        (np.zeros((4, 4)), r"got an array of shape \(4, 4\)"),
        (np.zeros((1, 4, 4, 1)), r"got an array of shape \(1, 4, 4, 1\)"),
        (torch.zeros(4, 4), r"got a tensor of shape \(4, 4\)"),
        (torch.zeros(1, 1, 4, 4), r"got a tensor of shape \(1, 1, 4, 4\)"),
        (torch.zeros(1, 4, 4, 3), r"got a tensor of shape \(1, 4, 4, 3\). Channels come second"),
        (torch.zeros(3, 4, 4), r"got a tensor of shape \(3, 4, 4\)"),
        (torch.zeros(1, 4, 4, 4), r"got a tensor of shape \(1, 4, 4, 4\)"),
        (np.zeros((4, 4, 3)), r"got an array of shape \(4, 4, 3\)"),
        (torch.zeros(0, 3, 2, 2), "at least one image, got none"),
        ([], "at least one image, got none"),
        (Image.new("RGB", (2, 2)), "got Image. Put a single image into a list"),
        ("picture.png", "got str. Put a single image into a list"),
        ({"a": 1}, "got dict"),
        ([Image.new("RGB", (2, 2)), 7], "got int at place 1"),
        ([torch.zeros(3, 2, 2)], r"got Tensor of shape \(3, 2, 2\) at place 0"),
        (["no-such-picture.png"], "an image at no-such-picture.png, found no such file"),
    ],
)
def test_anything_else_is_refused_with_a_reason(images, message):
    with pytest.raises(UserError, match=message):
        to_uint8(images)


def test_files_that_are_no_images(tmp_path):
    (tmp_path / "words.png").write_text("not a picture")
    with pytest.raises(UserError, match=r"words\.png, but the file is none that Pillow can read"):
        to_uint8([tmp_path / "words.png"])
    with pytest.raises(UserError, match="can't read the image"):
        to_uint8([tmp_path])


@given(st.integers(20, 200))
def test_truncated_files_are_refused(tmp_path_factory, length):
    path = tmp_path_factory.mktemp("cut") / "cut.png"
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UserError, match=r"cut\.png"):
        to_uint8([path])
