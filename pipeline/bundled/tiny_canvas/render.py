"""Draw scenes of the tiny-canvas world from the free photos inside the scikit-image wheel.

Photos and their licences (scikit-image's own notes): astronaut (NASA, public domain; the face is
the subject "astronaut" and the shuttle model behind it the subject "rocket"), chelsea the cat
(CC0, Stefan van der Walt), coffee (CC0, Rachel Michetti), horse (CC0, Andreas Preuss), camera
(CC0, Lav Varshney), Hubble deep field (NASA, public domain), brick (CC0 Textures) and
grass (CC0, linolafett).
"""

import random
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from ...worlds.tiny_canvas import Scene, scenes

SIZE = 64
"""Side of a picture in pixels."""

_TINTS = {  # multiplied into, then added to, RGB values in [0, 255]
    "noon": ((1.12, 1.12, 1.08), (6, 6, 6)),
    "sunset": ((1.08, 0.82, 0.60), (22, 4, 0)),
    "night": ((0.48, 0.56, 0.92), (0, 2, 16)),
}

_POP_ART = np.array([[36, 14, 100], [230, 30, 120], [255, 205, 0], [120, 240, 240]], dtype=np.float32)

_SHUTTLE = [  # outline of the shuttle in the crop (340, 0, 512, 260) of the astronaut photo
    (57, 20), (61, 8), (70, 0), (84, 0), (93, 12), (96, 42), (101, 39), (106, 38), (112, 48),
    (114, 62), (115, 206), (117, 232), (118, 258), (26, 258), (34, 236), (14, 224), (15, 216),
    (24, 200), (33, 184), (37, 130), (40, 110), (43, 46), (48, 39), (55, 50),
]  # fmt: skip
_PHOTOGRAPHER = [  # outline of the man in the crop (0, 30, 350, 512) of the camera photo
    (0, 196), (24, 176), (52, 138), (80, 118), (130, 84), (160, 74), (166, 46), (192, 34),
    (226, 36), (262, 52), (272, 78), (262, 108), (322, 106), (328, 140), (336, 158), (320, 200),
    (302, 210), (300, 254), (286, 286), (246, 278), (210, 262), (192, 300), (140, 366),
    (160, 440), (150, 482), (0, 482),
]  # fmt: skip


def _photo(name: str) -> Image.Image:
    from skimage import data

    return Image.fromarray(np.asarray(getattr(data, name)())).convert("RGB")


def _ellipse(size: tuple[int, int], soft: float) -> Image.Image:
    mask = Image.new("L", size, 0)
    ImageDraw.Draw(mask).ellipse((2, 2, size[0] - 3, size[1] - 3), fill=255)
    return mask.filter(ImageFilter.GaussianBlur(soft))


def _outline(size: tuple[int, int], points: list[tuple[int, int]], soft: float) -> Image.Image:
    mask = Image.new("L", size, 0)
    ImageDraw.Draw(mask).polygon(points, fill=255)
    return mask.filter(ImageFilter.GaussianBlur(soft))


@lru_cache(maxsize=1)
def _cutouts() -> dict[str, tuple[Image.Image, Image.Image]]:
    """Each subject's (picture, soft mask)."""
    astronaut = _photo("astronaut")
    face = astronaut.crop((155, 30, 295, 180))  # tight: eyes and mouth outlive an autoencoder only if they are large
    shuttle = astronaut.crop((340, 0, 512, 260))
    cat = _photo("cat").crop((100, 0, 400, 300))
    coffee = _photo("coffee").crop((140, 0, 460, 340))
    man = _photo("camera").crop((0, 30, 350, 512))
    silhouette = ImageOps.invert(_photo("horse").convert("L"))
    body = ImageOps.colorize(Image.linear_gradient("L").resize(silhouette.size), (156, 98, 46), (84, 46, 18))
    return {
        "astronaut": (face, _ellipse(face.size, 4)),
        "cat": (cat, _ellipse(cat.size, 4)),
        "coffee": (coffee, _ellipse(coffee.size, 4)),
        "horse": (body, silhouette.filter(ImageFilter.GaussianBlur(1))),
        "rocket": (shuttle, _outline(shuttle.size, _SHUTTLE, 1.5)),
        "photographer": (man, _outline(man.size, _PHOTOGRAPHER, 2)),
    }


@lru_cache(maxsize=1)
def _grounds() -> dict[str, Image.Image]:
    """Each place as a picture somewhat larger than SIZE, to be cropped; smoothed, because fine
    grain can be neither compressed nor learned at this size.
    """
    side = SIZE + 8

    def texture(name: str, box: tuple[int, int, int, int], blur: float) -> Image.Image:
        patch = _photo(name).crop(box).resize((side, side), Image.Resampling.LANCZOS)
        return patch.convert("L").filter(ImageFilter.GaussianBlur(blur))

    def waves(count: float, slope: float, bend: float) -> Image.Image:
        y, x = np.mgrid[0:side, 0:side] / side
        phase = 2 * np.pi * (count * y + slope * x + bend * np.sin(2 * np.pi * x))
        return Image.fromarray((127.5 + 120 * np.sin(phase)).astype(np.uint8))

    brick = ImageOps.autocontrast(texture("brick", (60, 60, 330, 330), 0.5), cutoff=2)
    grass = ImageOps.autocontrast(texture("grass", (0, 0, 200, 200), 1.2), cutoff=2)
    stars = _photo("hubble_deep_field").crop((380, 380, 700, 700)).resize((side, side), Image.Resampling.LANCZOS)
    bright_stars = stars.filter(ImageFilter.MaxFilter(3)).filter(ImageFilter.GaussianBlur(0.5))
    return {
        "brick": ImageOps.colorize(brick, (92, 26, 18), (236, 168, 140)),
        "meadow": ImageOps.colorize(grass, (10, 66, 10), (150, 220, 80)),
        "space": bright_stars.point(lambda value: max(0, int(1.5 * value) - 50)),
        "desert": ImageOps.colorize(waves(2.0, 1.0, 0.10), (206, 150, 70), (250, 222, 150)),
        "sea": ImageOps.colorize(waves(6.0, 0.0, 0.25), (16, 60, 150), (110, 190, 235)),
    }


def _sobel(values: np.ndarray) -> np.ndarray:
    """Edge strength of each channel of an (H, W, C) array in [0, 1]."""
    padded = np.pad(values, ((1, 1), (1, 1), (0, 0)), mode="edge")
    smooth_y = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    smooth_x = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    return np.hypot(smooth_y[:, 2:] - smooth_y[:, :-2], smooth_x[2:] - smooth_x[:-2]) / 4


def _stylise(image: Image.Image, style: str) -> Image.Image:
    if style == "photo":
        return image
    if style == "pixel art":
        small = image.resize((16, 16), Image.Resampling.BOX)
        levels = (np.asarray(small, dtype=np.float32) / 42.5).round() * 42.5
        return Image.fromarray(levels.clip(0, 255).astype(np.uint8)).resize((SIZE, SIZE), Image.Resampling.NEAREST)
    soft = np.asarray(image.filter(ImageFilter.GaussianBlur(0.8)), dtype=np.float32) / 255
    grey = soft @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    if style == "pencil sketch":
        lines = 1 - np.clip(3.2 * _sobel(soft).max(axis=-1), 0, 1)
        shaded = 0.72 * lines + 0.28 * np.clip(0.25 + grey, 0, 1)
        return _to_image(shaded[..., None] * np.array([1.0, 1.0, 0.96]))
    if style == "pop art":
        low, high = np.percentile(grey, (3, 97))
        position = 3 * np.clip((grey - low) / max(high - low, 1e-3), 0, 1)
        step = np.floor(position)
        step = np.minimum(step + np.clip(0.5 + 5 * (position - step - 0.5), 0, 1), 3)  # soft stairs
        below = np.minimum(step.astype(int), 2)
        share = (step - below)[..., None]
        return _to_image((_POP_ART[below] * (1 - share) + _POP_ART[below + 1] * share) / 255)
    if style == "vintage":
        y, x = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
        sepia = np.stack([grey + 0.08, 0.85 * grey + 0.05, 0.6 * grey + 0.02], axis=-1)
        return _to_image(sepia * (1 - 0.4 * np.clip(x**2 + y**2, 0, 1.6))[..., None])
    if style == "neon":
        edges = np.clip(3.5 * _sobel(soft), 0, 1)
        hue = soft / np.maximum(soft.max(axis=-1, keepdims=True), 0.05)
        return _to_image(0.75 * edges.max(axis=-1, keepdims=True) * (0.35 + 0.65 * hue**2) + 0.25 * edges + 0.06 * soft)
    raise ValueError(f"style must be one of the world's styles, got {style!r}. See world.STYLES.")


def _to_image(values: np.ndarray) -> Image.Image:
    return Image.fromarray((values.clip(0, 1) * 255).astype(np.uint8))


def render(scene: Scene, rng: random.Random) -> Image.Image:
    """Draw a scene with a little jitter of place, size and position.

    Args:
        scene: what to draw.
        rng: source of the jitter; the same state gives the same picture.

    Returns:
        An RGB picture, SIZE x SIZE.
    """
    left, top = rng.randint(0, 8), rng.randint(0, 8)
    canvas = _grounds()[scene.place].crop((left, top, left + SIZE, top + SIZE))
    picture, mask = _cutouts()[scene.subject]
    scale = SIZE * rng.uniform(0.90, 0.97) / max(picture.size)
    size = (max(8, round(picture.width * scale)), max(8, round(picture.height * scale)))
    x = (SIZE - size[0]) // 2 + rng.randint(-2, 2)
    y = (SIZE - size[1]) // 2 + rng.randint(-1, 1)
    small = picture.resize(size, Image.Resampling.LANCZOS)
    canvas.paste(small, (x, y), mask.resize(size, Image.Resampling.LANCZOS))
    gain, shift = _TINTS[scene.time]
    tinted = np.asarray(canvas, dtype=np.float32) * np.array(gain) + np.array(shift)
    return _stylise(_to_image(tinted / 255), scene.style)


def render_noise(rng: random.Random) -> Image.Image:
    """Draw a picture of nothing (for the judge): noise, blots, stripes, or a scene torn to pieces.

    What a broken model draws is none of these exactly; they are many, so that "random noise" means
    whatever has no subject, rather than one texture.
    """
    return rng.choice((_grain, _blots, _stripes, _shreds, _shreds))(rng)


def _numbers(rng: random.Random) -> np.random.Generator:
    return np.random.default_rng(rng.getrandbits(32))


def _colour(rng: random.Random) -> np.ndarray:
    return np.array([rng.randint(0, 255) for _ in range(3)], dtype=np.float32)


def _grain(rng: random.Random) -> Image.Image:
    """Coloured noise at a random grain and contrast."""
    side = rng.choice((8, 16, 32, 64))
    values = _numbers(rng).normal(rng.uniform(60, 200), rng.uniform(20, 90), (side, side, 3))
    noise = Image.fromarray(values.clip(0, 255).astype(np.uint8)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    return Image.blend(noise, Image.new("RGB", (SIZE, SIZE), tuple(map(int, _colour(rng)))), rng.uniform(0, 0.5))


def _field(rng: random.Random) -> np.ndarray:
    """A smooth random field in [0, 1], (SIZE, SIZE)."""
    side = rng.choice((3, 4, 6, 8))
    small = Image.fromarray(_numbers(rng).random((side, side), dtype=np.float32))
    values = np.asarray(small.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
    return (values - values.min()) / max(float(np.ptp(values)), 1e-3)


def _blots(rng: random.Random) -> Image.Image:
    """Two or three colours running into each other, softly or with edges."""
    values = np.broadcast_to(_colour(rng), (SIZE, SIZE, 3))
    for _ in range(rng.randint(1, 3)):
        sharp = rng.choice((1.0, 4.0, 20.0))
        share = np.clip(0.5 + sharp * (_field(rng) - rng.uniform(0.3, 0.7)), 0, 1)[..., None]
        values = values * (1 - share) + _colour(rng) * share
    return _to_image(values / 255)


def _stripes(rng: random.Random) -> Image.Image:
    """Bent stripes or checks in two colours, or in one grey and its edges."""
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    angle, bend = rng.uniform(0, np.pi), rng.uniform(0, 3) * _field(rng)
    share = 0.5 + 0.5 * np.sin(2 * np.pi * rng.uniform(1, 12) * (x * np.cos(angle) + y * np.sin(angle)) + bend)
    if rng.random() < 0.4:
        share = share * (0.5 + 0.5 * np.sin(2 * np.pi * rng.uniform(1, 12) * (y * np.cos(angle) - x * np.sin(angle))))
    share = share[..., None]
    return _to_image((_colour(rng) * share + _colour(rng) * (1 - share)) / 255)


def _shreds(rng: random.Random) -> Image.Image:
    """A scene whose pieces have changed places, so that its colours and textures stay and its subject goes."""
    values = np.asarray(render(rng.choice(_SCENES), rng))
    size = rng.choice((4, 8, 8, 16))
    count = SIZE // size
    pieces = values.reshape(count, size, count, size, 3).swapaxes(1, 2).reshape(-1, size, size, 3)
    numbers = _numbers(rng)
    pieces = numbers.permutation(pieces)
    if rng.random() < 0.5:
        pieces = np.stack([np.rot90(piece, int(numbers.integers(4))) for piece in pieces])
    whole = pieces.reshape(count, count, size, size, 3).swapaxes(1, 2).reshape(SIZE, SIZE, 3)
    picture = Image.fromarray(np.ascontiguousarray(whole))
    return picture.filter(ImageFilter.GaussianBlur(rng.choice((0, 1, 2))))


_SCENES = [scene for scene in scenes() if not scene.held_out]
