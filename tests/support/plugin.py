"""A package that brings a method of its own, as pip installs it."""

import os
import subprocess
import sys

PLUGIN = """
from typing import ClassVar, Literal

from turpentine.pipeline.maths.gradients import Combination
from turpentine.pipeline.methods import MethodConfig, register
from turpentine.pipeline.methods.base import Loss, Method, noise_loss


class PushConfig(MethodConfig):
    name: Literal["push"] = "push"
    terms: ClassVar[tuple[str, ...]] = ("forget",)
    strength: float = 2.0


class Push(Method[PushConfig]):
    def loss(self, term, denoiser, batch):
        loss = noise_loss(denoiser, batch)
        return Loss(-self.config.strength * loss, loss.item())

    def combine(self, grads, weights=None, reduce=None):
        return Combination(grads, {"forget": 1.0})


register(PushConfig, Push)
"""


def install(folder, name, module, source):
    """A package as pip leaves it: its module, and what it tells of itself."""
    (folder / f"{module}.py").write_text(source)
    told = folder / f"{name}-1.0.dist-info"
    told.mkdir()
    (told / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (told / "entry_points.txt").write_text(f"[turpentine.methods]\nit = {module}\n")


def python(folder, code):
    """Run code with the packages of `folder` installed."""
    paths = [str(folder), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)},
        cwd=folder,
        capture_output=True,
        text=True,
    )
