"""Draw the picture of the README: the same prompts and seeds before and after a run.

    python -m turpentine.benchmarks.before_after RUN [PICTURE]

Six forget prompts on the left, six retain prompts on the right; before above after.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from turpentine.pipeline.schema.image_sets import AFTER, BEFORE, FORGET_TEST, RETAIN_TEST
from turpentine.pipeline.support.files import replacing
from turpentine.pipeline.support.pictures import load_picture

COLUMNS, SIDE = 6, 128
PICTURE = Path(__file__).resolve().parents[1] / "docs" / "before-after.jpg"


def sheet(run: Path) -> Image.Image:
    """Both lines of the pictures that a run keeps."""
    lines = [
        np.concatenate([
            np.asarray(load_picture(run / "images" / when / f"{name}-{place:03d}.png").resize((SIDE, SIDE)))
            for name in (FORGET_TEST, RETAIN_TEST)
            for place in range(COLUMNS)
        ], axis=1)
        for when in (BEFORE, AFTER)
    ]  # fmt: skip
    return Image.fromarray(np.concatenate(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a finished run folder")
    parser.add_argument("picture", type=Path, nargs="?", default=PICTURE, help=f"the file; default {PICTURE.name}")
    options = parser.parse_args()
    with replacing(options.picture) as partial:
        sheet(options.run).save(partial, "JPEG", quality=92)


if __name__ == "__main__":
    main()
