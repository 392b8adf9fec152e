"""Real images with class labels: scikit-learn's digits, CIFAR-10, or a folder with one folder per class.

Nothing is downloaded. Images are float32 in [-1, 1], shape (N, C, H, W).
"""

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..support.errors import Caution, MissingExtra, UserError
from ..support.pictures import SUFFIXES, load_picture
from ..support.places import user_path

Split = Literal["train", "test"]

_HELD_OUT = 5
"""Where a dataset names no test images, every fifth image of each class is held out."""


@dataclass(frozen=True)
class LabelledImages:
    """Images and the class of each.

    Attributes:
        images: (N, C, H, W), float32 in [-1, 1].
        labels: (N,), int64, indices into `names`.
        names: the classes.
    """

    images: Tensor
    labels: Tensor
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def of(self, name: str) -> Tensor:
        """The images of one class.

        Raises:
            UserError: no such class.
        """
        return self.images[self.labels == self.label(name)]

    def label(self, name: str) -> int:
        """The label of a class.

        Raises:
            UserError: no such class.
        """
        if name not in self.names:
            close = [known for known in self.names if known.casefold() == str(name).casefold()]
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise UserError(f"expected the name of a class, one of {list(self.names)}; got {name!r}.{hint}")
        return self.names.index(name)


def load_images(dataset: str, split: Split, size: int | None = None, channels: int | None = None) -> LabelledImages:
    """Read one split of a dataset.

    Args:
        dataset: "digits" (scikit-learn's, 8x8), "cifar10" (torchvision's files in the folder that
            TURPENTINE_DATA names, else `data/`), or a folder with one folder per class; inside it,
            folders `train/` and `test/` are taken as the splits if they are there.
        split: "train" or "test"; of a folder without splits of its own, every fifth image of each class is a test
            image.
        size: resize the images of a folder to this many pixels a side (None: that of the first image).
        channels: 1 or 3 for the images of a folder (None: 3).

    Raises:
        UserError: no such dataset, a folder that is not as described, or an image that can't be read.
        MissingExtra: the package that reads the dataset is not installed.
    """
    if dataset == "digits":
        return _digits(split)
    if dataset == "cifar10":
        return _cifar10(split)
    return _folder(user_path(dataset), split, size, channels or 3)


def classes_of(dataset: str, split: Split) -> dict[str, int]:
    """The classes of a dataset, and how many images each has in a split; no image of a folder is read.

    Args:
        dataset: see `load_images`, as for the errors.
        split: "train" or "test".
    """
    if dataset in ("digits", "cifar10"):
        data = load_images(dataset, split)
        return {name: int((data.labels == label).sum()) for label, name in enumerate(data.names)}
    files, splits = _files(user_path(dataset), split)
    held = {name: len(found) // _HELD_OUT for name, found in files.items()}
    if splits:
        return {name: len(found) for name, found in files.items()}
    return held if split == "test" else {name: len(found) - held[name] for name, found in files.items()}


def held_out(labels: Tensor) -> Tensor:
    """Which images are test images, shape (N,), bool: every fifth of each class."""
    mask = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        mask[(labels == label).nonzero().flatten()[_HELD_OUT - 1 :: _HELD_OUT]] = True
    return mask


def _digits(split: Split) -> LabelledImages:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise MissingExtra("scikit-learn", "classes", "the digits dataset") from None
    pixels, labels = load_digits(return_X_y=True)  # 0 to 16
    images = torch.from_numpy(pixels).float().reshape(-1, 1, 8, 8) / 8 - 1
    return _part(images, torch.from_numpy(labels).long(), tuple(map(str, range(10))), split)


def _part(images: Tensor, labels: Tensor, names: tuple[str, ...], split: Split) -> LabelledImages:
    chosen = held_out(labels) if split == "test" else ~held_out(labels)
    return LabelledImages(images[chosen], labels[chosen], names)


def _cifar10(split: Split) -> LabelledImages:
    try:
        from torchvision.datasets import CIFAR10
    except ImportError:
        raise MissingExtra("torchvision", "train", "CIFAR-10") from None
    root = os.environ.get("TURPENTINE_DATA", "data")
    try:
        data: Any = CIFAR10(root, train=split == "train", download=False)
    except RuntimeError:
        raise UserError(
            f"expected torchvision's CIFAR-10 files in {root}/cifar-10-batches-py, found none that are whole. "
            "Put them there, or name their folder with the environment variable TURPENTINE_DATA."
        ) from None
    images = torch.from_numpy(data.data).permute(0, 3, 1, 2).float() / 127.5 - 1
    return LabelledImages(images, torch.tensor(data.targets), tuple(data.classes))


def _files(path: Path, split: Split) -> tuple[dict[str, list[Path]], bool]:
    """The files of each class, and whether the folder has splits of its own."""
    if not path.is_dir():
        raise UserError(f"dataset must be 'digits', 'cifar10' or a folder with one folder per class, got {path}.")
    splits = (path / "train").is_dir() and (path / "test").is_dir()
    root = path / split if splits else path
    files = _classes(root)
    if splits and set(files) != set(_classes(path / ("test" if split == "train" else "train"))):
        raise UserError(f"expected the same classes in {path / 'train'} and {path / 'test'}, got others.")
    few = next((name for name, found in files.items() if len(found) < _HELD_OUT), None)
    if few and not splits:
        raise UserError(
            f"expected at least {_HELD_OUT} images in {root / few}, as every fifth is held out for the test; found "
            f"{len(files[few])}. Add some, or make the splits yourself as {root / 'train'} and {root / 'test'}."
        )
    return files, splits


def _folder(path: Path, split: Split, size: int | None, channels: int) -> LabelledImages:
    files, splits = _files(path, split)
    names, images, labels = tuple(files), [], []
    for label, name in enumerate(names):
        for file in files[name]:
            image = _read(file, size, channels)
            size = size or image.shape[-1]
            images.append(image)
            labels.append(label)
    stacked, numbered = torch.stack(images), torch.tensor(labels)
    return LabelledImages(stacked, numbered, names) if splits else _part(stacked, numbered, names, split)


def _classes(root: Path) -> dict[str, list[Path]]:
    """Class -> its images; hidden files and folders are left out, other files that are no images with a warning.

    Raises:
        UserError: fewer than two classes, one without an image, or two whose names differ in case only.
    """
    files, others = {}, []
    for folder in sorted(root.iterdir()):
        if not folder.is_dir() or folder.name.startswith("."):
            continue
        seen = [file for file in sorted(folder.iterdir()) if not file.name.startswith(".")]
        files[folder.name] = [file for file in seen if file.suffix.lower() in SUFFIXES]
        others += [file for file in seen if file.suffix.lower() not in SUFFIXES]
        if not files[folder.name]:
            raise UserError(f"expected images in the folder of each class, found none in {folder}. Fill or remove it.")
    if len(files) < 2:
        raise UserError(f"expected at least two folders of images (one per class) in {root}, found {len(files)}.")
    spellings: dict[str, str] = {}
    for name in files:
        other = spellings.setdefault(name.casefold(), name)
        if other != name:
            raise UserError(f"expected classes with names of their own, got {other!r} and {name!r} in {root}.")
    if others:
        kinds = ", ".join(SUFFIXES)
        warnings.warn(
            f"{len(others)} files in {root} are no images ({kinds}) and are left out, for example {others[0]}.",
            Caution,
            stacklevel=2,
        )
    return files


def _read(file: Path, size: int | None, channels: int) -> Tensor:
    image = load_picture(file)
    if channels == 1:
        image = image.convert("L")
    side = size or image.width
    if image.size != (side, side):
        image = image.resize((side, side), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(image)).float() / 127.5 - 1
    return pixels.reshape(side, side, channels).permute(2, 0, 1)
