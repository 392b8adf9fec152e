"""A judge of class-conditional models: a small classifier that has seen real images only.

Beside the dataset's classes it knows "random noise", as an unlearned class may come out as noise and
a classifier without that choice would have to call it something (Ko et al. 2024, Section 4.1).
Its penultimate features serve the Fréchet distance and the similarity of classes.
"""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..models import ASSETS
from ..support.errors import UserError, given
from ..support.files import replacing, write_text
from ..support.places import user_path

BUNDLED_JUDGES = {"digits": ASSETS / "digits" / "judge"}
NOISE = "random noise"


class ClassJudge(nn.Module):
    """A convolutional classifier with one more class, `NOISE`.

    Args:
        names: the dataset's classes.
        size: pixels a side.
        channels: of the images.
        num_features: width of the penultimate layer.
    """

    def __init__(self, names: tuple[str, ...], size: int, channels: int, num_features: int = 64) -> None:
        super().__init__()
        self.names, self.size, self.channels, self.num_features = (*names, NOISE), size, channels, num_features
        self.body = nn.Sequential(
            nn.Conv2d(channels, 24, 3, padding=1), nn.BatchNorm2d(24), nn.SiLU(),
            nn.Conv2d(24, 48, 3, padding=1, stride=2), nn.BatchNorm2d(48), nn.SiLU(),
            nn.Conv2d(48, 48, 3, padding=1), nn.BatchNorm2d(48), nn.SiLU(),
            nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48 * 16, num_features), nn.SiLU(),
        )  # fmt: skip
        self.head = nn.Linear(num_features, len(self.names))

    def features(self, images: Tensor) -> Tensor:
        """Penultimate features, (N, num_features), of images (N, C, H, W) in [-1, 1]."""
        return self.body(images)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, (N, classes + 1)."""
        return self.head(self.features(images))

    def inputs(self, pixels: np.ndarray) -> Tensor:
        """Images as this judge takes them, from uint8 RGB, (N, H, W, 3).

        Raises:
            UserError: images of another size.
        """
        self.check_side(pixels.shape[2], pixels.shape[1])
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
        return images.mean(1, keepdim=True) if self.channels == 1 else images

    def check_side(self, width: int, height: int) -> None:
        """Refuse images of another size.

        Raises:
            UserError: they are not as large as those that it has seen.
        """
        if (width, height) != (self.size, self.size):
            raise UserError(
                f"the judge takes images of {self.size}x{self.size} pixels, got {width}x{height}. "
                "Name the judge of the model's own dataset with --audit-class-judge."
            )

    @torch.no_grad()
    def classify(self, images: Tensor) -> list[str]:
        """The class seen in each image; images as in `features`."""
        return [self.names[index] for index in self(images).argmax(1).tolist()]

    def save(self, folder: Path, results: dict) -> None:
        """Write `model.safetensors` (float16), `config.json` and `results.json`."""
        config = {"names": self.names[:-1], "size": self.size, "channels": self.channels,
                  "num_features": self.num_features}  # fmt: skip
        with replacing(folder / "model.safetensors") as partial:
            save_file({k: v.half() if v.is_floating_point() else v for k, v in self.state_dict().items()}, partial)
        write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")
        write_text(folder / "results.json", json.dumps(results, indent=2) + "\n")

    @classmethod
    def load(cls, judge: str) -> "ClassJudge":
        """Read a bundled judge ("digits") or a folder that `save` wrote.

        Raises:
            UserError: there is none.
        """
        if not isinstance(judge, str | Path):
            raise UserError(f"expected the name of a judge or a folder, got {given(judge)}.")
        folder = BUNDLED_JUDGES.get(str(judge)) or user_path(judge)
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            module = cls(tuple(config["names"]), config["size"], config["channels"], config["num_features"])
            module.load_state_dict({k: v.float() if v.is_floating_point() else v
                                    for k, v in load_file(folder / "model.safetensors").items()})  # fmt: skip
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"can't load the judge {judge!r}: expected one of {sorted(BUNDLED_JUDGES)} or a folder with "
                f"config.json and model.safetensors ({reason}). "
                "`python -m turpentine.pipeline.bundled.digits.train` makes one."
            ) from None
        return module.eval().requires_grad_(False)
