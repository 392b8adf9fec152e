"""Pictures as ComfyUI's IMAGE (float, (N, H, W, 3), in [0, 1]) and as arrays; grids and loss curves."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..pipeline.schema.image_sets import AFTER, BEFORE, FORGET_TEST
from ..pipeline.support.errors import UserError
from . import host

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image
    from torch import Tensor

_LEAST = 128
"""Grids enlarge pictures with a side below this many pixels, without smoothing."""

_PAPER, _INK, _FAINT = (250, 250, 248), (40, 40, 40), (215, 215, 210)
_CURVES = {"loss_forget": (190, 60, 40), "loss_retain": (40, 100, 160)}


def to_image(pixels: "np.ndarray | Tensor | Sequence[Image.Image]") -> "Tensor":
    """Convert 8-bit pictures of one size, (N, H, W, 3), to an IMAGE."""
    import numpy as np
    import torch

    if not isinstance(pixels, torch.Tensor):
        pixels = torch.from_numpy(np.stack([np.asarray(one) for one in pixels]))
    return pixels.float() / 255


def from_image(image: "Tensor") -> "np.ndarray":
    """Convert an IMAGE to 8-bit pixels, (N, H, W, 3).

    Transparency is dropped, what is darker than black or brighter than white is clipped, and one grey channel
    stands for all three.

    Raises:
        UserError: pixels that are NaN or infinite.
    """
    import numpy as np

    from ..pipeline.audits import to_uint8

    if not image.isfinite().all():
        raise UserError(
            "expected pictures, got an IMAGE with NaN (not a number) or infinity: the VAE overflows in half precision. "
            "Let ComfyUI compute it in float32, or use another VAE."
        )
    pixels = image[..., :3].float().clamp(0, 1)
    if pixels.shape[-1] == 1:
        pixels = pixels.expand(*pixels.shape[:-1], 3)
    return np.asarray(to_uint8(pixels.movedim(-1, 1)))


def keep_images(image: "Tensor") -> Path:
    """Write an IMAGE below ComfyUI's output directory, so that a run can name it; the same one gives the same folder.

    Raises:
        UserError: pixels that are NaN or infinite.
    """
    from ..pipeline.data.pictures import keep_pictures

    return keep_pictures(from_image(image), host.output_folder("turpentine"))


def side_by_side(columns: "Sequence[np.ndarray]", titles: Sequence[str]) -> "Image.Image":
    """Draw a grid: one row for each picture, one column for each set, with its title above.

    Args:
        columns: 8-bit pictures (N, H, W, 3), of one shape in all columns.
        titles: one for each column.
    """
    from PIL import Image, ImageDraw

    height, width = columns[0].shape[1:3]
    factor = max(1, -(-_LEAST // min(height, width)))
    height, width = height * factor, width * factor
    gap, head = 6, 22
    sheet = Image.new("RGB", (len(columns) * (width + gap) + gap, len(columns[0]) * (height + gap) + head), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for place, (pictures, title) in enumerate(zip(columns, titles, strict=True)):
        left = gap + place * (width + gap)
        draw.text((left, 5), title[: max(4, width // 7)], fill=_INK)
        for row, picture in enumerate(pictures):
            shown = Image.fromarray(picture).resize((width, height), Image.Resampling.NEAREST if factor > 1 else None)
            sheet.paste(shown, (left, head + row * (height + gap)))
    return sheet


def live_preview(run: Path) -> "Image.Image | None":
    """The loss curves of a run so far, and its first pictures before and now; None before the second step."""
    from PIL import Image

    curves = loss_curves(run / "events.jsonl")
    drawn = sorted((run / "images").glob("step-*"))
    sheet = thumbnails(run, FORGET_TEST, after=drawn[-1].name, title="now", count=2) if drawn and curves else None
    if curves is None or sheet is None:
        return curves
    sheet = sheet.resize((round(sheet.width * curves.height / sheet.height), curves.height))
    both = Image.new("RGB", (curves.width + sheet.width, curves.height), _PAPER)
    both.paste(curves, (0, 0))
    both.paste(sheet, (curves.width, 0))
    return both


def loss_curves(events: Path) -> "Image.Image | None":
    """The losses of a run so far, on a small picture that is quick to draw; None before the second step."""
    import numpy as np
    from PIL import Image, ImageDraw

    from ..pipeline.report.events import read_columns

    columns = read_columns(events)
    if len(columns["step"]) < 2:
        return None
    width, height, edge = 384, 216, 14
    picture = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(picture)
    values = np.concatenate([columns[name] for name in _CURVES])
    values = values[np.isfinite(values)]
    top = float(values.max()) if values.size else 1.0
    for share in (0, 0.5, 1):
        y = height - edge - share * (height - 2 * edge)
        draw.line((edge, y, width - edge, y), fill=_FAINT)
        draw.text((edge, y - 12), f"{share * top:.2g}", fill=_INK)
    for number, (name, colour) in enumerate(_CURVES.items()):
        draw.text((width - 100, edge + 14 * number), name.replace("_", " "), fill=colour)
        kept = np.isfinite(columns[name])
        if kept.sum() < 2:
            continue
        x = edge + (width - 2 * edge) * np.arange(len(kept))[kept] / max(1, len(kept) - 1)
        ys = height - edge - (height - 2 * edge) * columns[name][kept] / max(top, 1e-9)
        draw.line(list(zip(x.tolist(), ys.tolist(), strict=True)), fill=colour, width=2)
    return picture


def thumbnails(run: Path, name: str, after: str = AFTER, title: str = AFTER, count: int = 4) -> "Image.Image | None":
    """The first pictures of a set before and after, side by side; None if the run kept none.

    Args:
        run: the run folder.
        name: the set of prompts.
        after: the folder of the later pictures.
        title: the title above the later pictures.
        count: the number of pictures.
    """
    import numpy as np

    from ..pipeline.support.pictures import load_picture

    columns = []
    for when in (BEFORE, after):
        files = sorted((run / "images" / when).glob(f"{name}-*.png"))[:count]
        columns.append(np.stack([np.asarray(load_picture(file)) for file in files]) if files else None)
    before, later = columns
    if before is None or later is None or before.shape != later.shape:
        return None
    return side_by_side([before, later], [BEFORE, title])
