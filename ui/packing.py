"""Weights as one file to download."""

import os
import shutil
import zipfile
from pathlib import Path


def packed(weights: Path, folder: Path) -> Path:
    """Make one file to download: the weights themselves, or their folder as a zip archive."""
    if weights.is_dir():
        target = folder / f"{weights.parents[1].name}-{weights.name}.zip"
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
            for file in sorted(weights.rglob("*")):
                if file.is_file():
                    archive.write(file, file.relative_to(weights))
        return target
    target = folder / weights.name
    try:
        os.link(weights, target)
    except OSError:  # another disk
        shutil.copyfile(weights, target)
    return target
