"""Pictures of every kind as 8-bit RGB."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin
from turpentine.pipeline.audits import to_uint8
from turpentine.pipeline.support.errors import Caution, UserError
from turpentine.pipeline.support.pictures import as_rgb, load_picture

RAMP = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (16, 1))
"""Grey, 16x64, from black to nearly white."""
BOTH = Image.fromarray(np.stack([RAMP, RAMP[::-1, ::-1], RAMP // 2], -1))
"""Of three channels that differ."""


def read(path):
    return np.asarray(load_picture(path)).astype(float)


def saved(image, path, **options):
    image.save(path, **options)
    return path


def sixteen(order):
    return Image.frombytes(
        "I;16B" if order == ">" else "I;16", (64, 16), (RAMP.astype(np.uint16) * 257).astype(f"{order}u2").tobytes()
    )


@given(st.sampled_from(["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"]), st.randoms())
def test_the_brightness_of_every_mode_is_kept(mode, random):
    shades = np.frombuffer(random.randbytes(12 * 9 * 3), np.uint8).reshape(12, 9, 3) // 2
    shades = shades + random.randrange(128)
    picture = Image.fromarray(shades).convert(mode)
    got = np.asarray(as_rgb(picture)).astype(float)
    if mode in ("P", "PA"):  # few colours are left
        shades = np.asarray(picture.convert("RGBA"))[..., :3]
    if mode in ("1", "L", "LA"):
        shades = np.repeat(np.asarray(picture.convert("L"))[..., None], 3, -1)
    assert got.shape == (12, 9, 3) and abs(got.mean() - shades.mean()) < 3


@pytest.mark.parametrize(
    ("ending", "order"),
    [(None, "<"), (None, ">"), ("png", "<"), ("tiff", "<"), ("tiff", ">"), ("pgm", "<"), ("jp2", "<")],
)
def test_grey_of_16_bits_is_scaled(tmp_path, ending, order):
    picture = sixteen(order)
    item = saved(picture, tmp_path / f"grey.{ending}") if ending else picture
    np.testing.assert_allclose(to_uint8([item])[0], np.stack([RAMP] * 3, -1), atol=1)


def png(shades, colour, depth=16):
    """A PNG of 16 bits, which Pillow writes of grey only."""
    height, width = shades.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in shades)

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
@pytest.mark.parametrize("shift", [0, 4])
def test_every_png_of_16_bits_is_scaled(tmp_path, colour, channels, shift):
    shades = np.stack([RAMP.astype(np.uint16) * 257 >> shift] * channels, -1)
    (tmp_path / "a.png").write_bytes(png(shades, colour))
    np.testing.assert_allclose(read(tmp_path / "a.png"), np.stack([RAMP >> shift] * 3, -1), atol=1)


def tiff(values, bits, meaning=1, kind=1):
    """A TIFF of one channel: little-endian values, their bits, whether 0 is black, and whether they are floats."""
    data = values.tobytes()
    height, width = values.shape
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: meaning, 273: 8, 277: 1, 278: height, 279: len(data)}
    tags[339] = kind
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + b"\0\0\0\0"


def test_tiff_where_0_is_white(tmp_path):
    (tmp_path / "a.tiff").write_bytes(tiff(RAMP.astype("<u2") * 257, 16, meaning=0))
    np.testing.assert_allclose(read(tmp_path / "a.tiff")[..., 0], 255 - RAMP, atol=1)


def test_tiff_of_12_bits(tmp_path):
    values = np.repeat(np.arange(64, dtype=np.uint16) * 65, 1)[None].repeat(16, 0)  # 0 to 4095
    pairs = values.reshape(16, 32, 2)
    first, second = pairs[..., 0], pairs[..., 1]
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], -1).astype(np.uint8)
    data = tiff(packed.reshape(16, 96), 12)
    data = data.replace(struct.pack("<HHII", 256, 4, 1, 96), struct.pack("<HHII", 256, 4, 1, 64))
    (tmp_path / "a.tiff").write_bytes(data)
    np.testing.assert_allclose(read(tmp_path / "a.tiff")[..., 0], values / 4095 * 255, atol=1)


@pytest.mark.parametrize(
    ("values", "bits", "kind", "words"),
    [
        (RAMP.astype("<i4"), 32, 2, "32-bit integers"),
        (RAMP.astype("<f4") / 255, 32, 3, "floating-point numbers"),
    ],
)
def test_pictures_without_a_range_are_refused(tmp_path, values, bits, kind, words):
    (tmp_path / "a.tiff").write_bytes(tiff(values, bits, kind=kind))
    for item in (tmp_path / "a.tiff", Image.open(tmp_path / "a.tiff")):
        with pytest.raises(
            UserError, match=rf"pixels of 8 or 16 bits, and the image .* has {words}, whose range is not known"
        ):
            to_uint8([item])


@pytest.mark.parametrize("form", ["RGBA", "LA", "palette", "grey with a transparent shade", "RGB with one"])
def test_transparency_is_dropped_everywhere_alike(tmp_path, form):
    grey, mask = Image.fromarray(RAMP), Image.fromarray(RAMP.T.repeat(4, 1)[:16].copy())
    if form in ("RGBA", "LA"):
        picture = grey.convert(form)
        picture.putalpha(mask)
        picture.save(tmp_path / "a.png")
    elif form == "palette":
        grey.convert("P").save(tmp_path / "a.png", transparency=bytes(range(256)))
    else:
        shade = 40 if form.startswith("grey") else (40, 40, 40)
        grey.convert("L" if form.startswith("grey") else "RGB").save(tmp_path / "a.png", transparency=shade)
    np.testing.assert_allclose(read(tmp_path / "a.png"), np.stack([RAMP] * 3, -1), atol=1)


TURNED = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}


@pytest.mark.parametrize("turn", TURNED)
@pytest.mark.parametrize("mode", ["RGB", "I;16", "L"])
def test_photos_are_upright(tmp_path, turn, mode):
    picture = sixteen("<") if mode == "I;16" else BOTH.convert(mode)
    exif = Image.Exif()
    exif[0x0112] = turn
    stored = picture.transpose(TURNED[turn]) if TURNED[turn] is not None else picture
    path = saved(stored, tmp_path / "photo.png", exif=exif)
    for item in (path, Image.open(path)):
        np.testing.assert_allclose(to_uint8([item])[0], np.asarray(as_rgb(picture)), atol=1)


def animated(path):
    frames = [Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in (250, 120, 10)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    return path


@pytest.mark.parametrize("ending", ["gif", "webp", "png", "tiff"])
def test_of_an_animation_the_first_frame_is_seen_and_that_is_told(tmp_path, ending):
    path = animated(tmp_path / f"moving.{ending}")
    with pytest.warns(Caution, match=rf"moving.{ending} has 3 frames, and only the first is seen"):
        assert read(path)[..., 0].mean() > 240
    with pytest.warns(Caution, match="at place 0 of the list has 3 frames"):
        to_uint8([Image.open(path)])


def test_a_frame_that_was_chosen_is_seen_without_a_word(tmp_path):
    picture = Image.open(animated(tmp_path / "moving.gif"))
    picture.seek(2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert to_uint8([picture])[0][..., 0].mean() < 20


@pytest.mark.parametrize("ending", ["gif", "webp", "png", "tiff", "bmp", "jpg", "mpo"])
def test_ordinary_pictures_are_read_without_a_word(tmp_path, ending):
    extra = {"save_all": True, "append_images": [BOTH.rotate(180)]} if ending == "mpo" else {}  # as phones write them
    path = saved(BOTH, tmp_path / f"Bild ü 日本.{ending}", **extra)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert abs(read(path).mean() - np.asarray(BOTH).mean()) < 3


@pytest.mark.parametrize("size", [(1, 1), (1, 2000), (3000, 2)])
def test_thin_pictures(tmp_path, size):
    assert read(saved(Image.new("RGB", size, (9, 8, 7)), tmp_path / "a.png")).shape == (size[1], size[0], 3)


def test_cmyk_of_adobe_and_of_others(tmp_path):
    path = saved(BOTH.convert("CMYK"), tmp_path / "a.jpg", quality=95)
    assert Image.open(path).mode == "CMYK" and abs(read(path).mean() - np.asarray(BOTH).mean()) < 3
    path = saved(BOTH.convert("CMYK"), tmp_path / "a.tiff")
    np.testing.assert_array_equal(read(path), np.asarray(BOTH))


def bomb():
    head = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0)
    whole = io.BytesIO()
    PngImagePlugin.putchunk(whole, b"IHDR", head)
    return b"\x89PNG\r\n\x1a\n" + whole.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.png", b""),
        ("page.jpg", b"<!DOCTYPE html><html></html>"),
        ("bomb.png", bomb()),
        ("cut.png", png(np.random.default_rng(0).integers(0, 65536, (9, 9, 1)), 0)[:150]),
        ("cut.tiff", tiff(RAMP.astype("<u2"), 16)[:200]),
        ("gif.gif", b"GIF89a\1\0\1\0\0\0\0"),
        ("missing.png", None),
    ],
)
def test_files_that_can_not_be_read_are_named_on_one_line(tmp_path, name, content):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match="image") as told:
        to_uint8([tmp_path / name])
    assert name.split(".")[0] in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize("how", ["cut", "closed"])
def test_opened_pictures_whose_pixels_can_not_be_read(tmp_path, how):
    Image.effect_noise((64, 64), 50).save(tmp_path / "a.png")
    if how == "cut":
        (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:1000])
    opened = Image.open(tmp_path / "a.png")
    if how == "closed":
        opened.close()
    with pytest.raises(UserError, match=r"can't read the image at place 1 of the list: .") as told:
        to_uint8([Image.new("RGB", (2, 2)), opened])
    assert "\n" not in str(told.value)


def test_a_picture_without_pixels():
    with pytest.raises(UserError, match="at least one pixel, got the image at place 0 of the list with 0x4"):
        to_uint8([Image.new("RGB", (0, 4))])


def test_a_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    saved(BOTH, tmp_path / "a.png")
    np.testing.assert_array_equal(to_uint8(["~/a.png"])[0], np.asarray(BOTH))
