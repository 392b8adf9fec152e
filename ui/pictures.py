"""Pictures and figures as HTML. All are inline, so the server gives out no file of a run.

In runs about nudity, regions that NudeNet flags are blurred unless the visitor asks to see them. Without NudeNet,
whole pictures are blurred.
"""

import base64
import io
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageFilter

from ..pipeline.audits import NudityAudit, annotate
from ..pipeline.prompts import PromptSet
from ..pipeline.report.images import LARGEST, SMALL, read_prompts
from ..pipeline.run.folder import PREVIEWS, RunFolder
from ..pipeline.schema.image_sets import AFTER, BEFORE, FORGET_TEST, GIVEN, NEAREST, TEST_SETS, TRAINING
from ..pipeline.schema.recipe import Recipe
from ..pipeline.schema.resolve import resolve
from ..pipeline.support.errors import MissingExtra, UserError
from ..pipeline.support.pictures import as_rgb, load_picture
from .render import render

_SHOWN_SIDE = 512
"""A small picture that is shown alone is enlarged to this side."""
_WORDS = 32  # words in the picture of a prompt set


def sensitive(recipe: Recipe) -> bool:
    """Tell whether flagged regions of a run's pictures are blurred unless asked for."""
    return resolve(recipe).counts_nudity or recipe.kind == "nudity"


def shown(image: Image.Image, recipe: Recipe, reveal: bool) -> Image.Image:
    """Blur a picture where visitors should not see it."""
    picture = as_rgb(image)
    if reveal or not sensitive(recipe):
        return picture
    try:
        detector = _detector(recipe.audits.nudity_threshold, recipe.audits.nudity_labels)
        return annotate(picture, detector.detect([picture])[0], blur=True)
    except MissingExtra:
        return picture.filter(ImageFilter.GaussianBlur(max(picture.size) / 8))


@lru_cache(maxsize=4)
def _detector(threshold: float, labels: str) -> NudityAudit:
    return NudityAudit(threshold, labels)


@lru_cache(maxsize=512)
def _uri(path: Path, changed: float, recipe: Recipe, reveal: bool) -> str:
    """A picture of a run as data URI. `changed` makes a new version of the file a new entry."""
    picture = shown(load_picture(path), recipe, reveal)
    picture.thumbnail((LARGEST, LARGEST))
    stream = io.BytesIO()
    kind = "PNG" if max(picture.size) < SMALL else "JPEG"
    picture.save(stream, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(stream.getvalue()).decode()}"


def _data(path: Path, recipe: Recipe, reveal: bool) -> str | None:
    """A picture of a run as data URI; None where there is no such file, or none that can be read."""
    try:
        return _uri(path, path.stat().st_mtime, recipe, reveal) if path.is_file() else None
    except (OSError, UserError):
        return None


class Pair(NamedTuple):
    """Pictures of one prompt and seed as data URIs; the first may be missing."""

    prompt: str
    before: str | None
    after: str | None


class PictureSet(NamedTuple):
    """Pairs that show the same: what to forget, or what to keep."""

    title: str
    columns: str
    pairs: list[Pair]


def training_images(run: Path, recipe: Recipe, reveal: bool = False) -> list[PictureSet]:
    """The first images that the model drew for its training, each to forget beside its partner to keep."""
    prompts, pairs = RunFolder(run).prompts(), []
    for index, pair in enumerate(prompts.train[:PREVIEWS] if prompts else ()):
        forget, retain = (
            _data(run / "images" / TRAINING / f"{term}-{index:03d}.png", recipe, reveal)
            for term in ("forget", "retain")
        )
        if forget or retain:  # a method may look at the images of one term alone
            pairs.append(Pair(pair.forget if forget else pair.retain, forget, retain))
    return [PictureSet("Training images", "to forget | to keep", pairs)] if pairs else []


def picture_sets(
    run: Path, recipe: Recipe, after: str = AFTER, reveal: bool = False, limit: int = 16
) -> list[PictureSet]:
    """The pictures of the same prompts and seeds before and after, or after some steps (`step-000020`)."""
    prompts, found = run_prompts(run), []
    when = f"after step {int(after.removeprefix('step-'))}" if after.startswith("step-") else after
    for name in TEST_SETS:
        pairs = []
        for index, prompt in enumerate(prompts.get(name, [])[:limit]):
            file = f"{name}-{index:03d}.png"
            second = _data(run / "images" / after / file, recipe, reveal)
            if second:
                pairs.append(Pair(prompt, _data(run / "images" / BEFORE / file, recipe, reveal), second))
        if pairs:
            found.append(PictureSet("To forget" if name == FORGET_TEST else "To keep", f"before | {when}", pairs))
    return found + _given(run, recipe, after, when, reveal, limit)


def _given(run: Path, recipe: Recipe, after: str, when: str, reveal: bool, limit: int) -> list[PictureSet]:
    """The pictures to forget, each beside the drawn one that is nearest to it."""
    pairs = []
    for file in sorted((run / "images" / GIVEN).glob(f"{NEAREST}-*.png"))[:limit]:
        drawn = _data(run / "images" / after / file.name, recipe, reveal)
        pairs += [Pair("", _data(file, recipe, reveal), drawn)] if drawn else []
    return [PictureSet("Pictures to forget, and what is drawn nearest", f"given | {when}", pairs)] if pairs else []


def pairs(run: Path, recipe: Recipe, after: str = AFTER, reveal: bool = False, limit: int = 16) -> str:
    """The same as HTML; empty where there are no pictures."""
    training = after == TRAINING
    sets = training_images(run, recipe, reveal) if training else picture_sets(run, recipe, after, reveal, limit)
    return render("pictures", sets=sets)


def run_prompts(run: Path) -> dict[str, list[str]]:
    """The prompts of a run's pictures."""
    return read_prompts(run / "images")


def newest_preview(run: Path) -> str | None:
    """Folder name of the last pictures drawn while training, or of the images that it trains on."""
    found = sorted(path.name for path in (run / "images").glob("step-*") if path.is_dir())
    found = found or [TRAINING] if (run / "images" / TRAINING).is_dir() else found
    return found[-1] if found else None


def enlarged(image: Image.Image) -> Image.Image:
    """Enlarge a small picture for showing it alone; its pixels stay sharp."""
    factor = _SHOWN_SIDE // max(image.size)
    size = (image.width * factor, image.height * factor)
    return image.resize(size, Image.Resampling.NEAREST) if factor > 1 else image


def diversity(prompts: PromptSet) -> str:
    """Show how diverse a prompt set is: distinct rows, distinct words, and how often each word is used."""
    texts = prompts.forget_train
    rows = [set(text.lower().replace(",", " ").replace(".", " ").split()) for text in texts]
    counts = Counter(word for row in rows for word in row)
    varying = sorted((-count, word) for word, count in counts.items() if count < len(rows))
    most = -varying[0][0] if varying else 1
    bars = [(word, -count / most, -count) for count, word in varying[:_WORDS]]
    return render("diversity", distinct=len(set(texts)), rows=len(texts), words=len(counts), bars=bars)
