"""An audit, a world, a method, a model family, a weights format: each a file and a line, added to a copy."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import turpentine

ROOT = Path(turpentine.__file__).parent

AUDIT = '''"""How bright pictures are: a toy."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

from ..prompts import PromptPair
from ..schema.recipe import AuditSection
from ..schema.results import Record
from ..support.progress import Progress
from ..support.text import number, relative
from .base import Audit, AuditImages, Judges, Subject
from .figures import Bars, Evidence, Loss, Row, Section, moved


class BrightnessResult(Record):
    """Mean pixel value in [0, 1] of the pictures of two sets."""

    forget: float
    shouted: float


class BrightnessAudit(Audit[BrightnessResult]):
    """Is the picture bright, also if the prompt is shouted?"""

    name: ClassVar[str] = "brightness"
    result: ClassVar[type[Record]] = BrightnessResult
    sets: ClassVar[tuple[str, ...]] = ("shouted",)

    @classmethod
    def wanted(cls, options: AuditSection, subject: Subject) -> bool:
        return True

    @classmethod
    def build(cls, options: AuditSection, subject: Subject, judges: Judges) -> Self:
        return cls()

    @classmethod
    def further_prompts(
        cls, test: Sequence[PromptPair], options: AuditSection, subject: Subject
    ) -> Mapping[str, Sequence[str]]:
        return {"shouted": [pair.forget.upper() for pair in test]}

    def measure(self, images: AuditImages, subject: Subject, progress: Progress) -> BrightnessResult:
        forget, shouted = (float(images.named(name).images.mean()) / 255 for name in ("forget_test", "shouted"))
        return BrightnessResult(forget=forget, shouted=shouted)

    @classmethod
    def rows(cls, before: BrightnessResult | None, after: BrightnessResult | None) -> list[Row]:
        x, y = (side.forget if side else float("nan") for side in (before, after))
        return [Row("Brightness", x, y, number(x), number(y), "", moved(x, y, "lower"), "lower", "Of <i>pictures</i>.")]

    @classmethod
    def section(cls, before: BrightnessResult | None, after: BrightnessResult | None) -> Section | None:
        counts = tuple(int(255 * side.shouted) if side else 0 for side in (before, after))
        return Section("How bright it is", bars=Bars("Brightness", "grey levels", (("shouted", *counts),)))

    @classmethod
    def forgetting(cls, kind: str, before: BrightnessResult, after: BrightnessResult) -> Evidence | None:
        return Evidence("brightness was looked at", 1.0, 0.0)

    @classmethod
    def keeping(cls, before: BrightnessResult, after: BrightnessResult) -> list[Loss]:
        return [Loss(-relative(before.shouted, before.shouted), "the light as it was")]
'''

WORLD = '''"""A world of woods: a toy."""

from typing import ClassVar

from .base import Words, World


class Forest(World):
    """Two animals in one place."""

    name: ClassVar[str] = "forest"
    models: ClassVar[tuple[str, ...]] = ("forest-model",)
    words: ClassVar[Words] = {"subject": {"fox": ("fox", "vixen"), "owl": ("owl",)}}

    def find(self, concept: str) -> tuple[str, str] | None:
        named = [value for value, phrases in self.words["subject"].items() if concept in phrases]
        return ("subject", named[0]) if named else None
'''

METHOD = '''"""Push: raise the denoising loss on the forget data, as strongly as is asked for: a toy."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from ..maths.gradients import Combination, Gradient, Reduce, Tensors
from ..models.protocol import Denoiser
from .base import Batch, Loss, Method, noise_loss
from .config import MethodConfig
from .registry import register


class PushConfig(MethodConfig):
    """Options of `push`."""

    terms: ClassVar[tuple[str, ...]] = ("forget",)
    ascends: ClassVar[bool] = True

    name: Literal["push"] = "push"
    strength: float = Field(default=2.0, gt=0, le=10, description="factor of the forget gradient")


class Push(Method[PushConfig]):
    """Minimise -strength times the denoising loss."""

    def loss(self, term: str, denoiser: Denoiser, batch: Batch) -> Loss:
        loss = noise_loss(denoiser, batch)
        return Loss(-self.config.strength * loss, loss.item())

    def combine(
        self, grads: Mapping[str, Gradient], weights: Tensors | None = None, reduce: Reduce | None = None
    ) -> Combination:
        return Combination(grads, {"forget": 1.0})


register(PushConfig, Push)
'''

USE_OF_THE_WORLD = """
import json
from turpentine.pipeline.audits import AccuracyAudit, NudityAudit, Subject
from turpentine.pipeline.prompts import PromptSet, composed_worlds
from turpentine.pipeline.schema.defaults import build_recipe
from turpentine.pipeline.worlds import world_of

recipe = build_recipe({"concept": "vixen"})
world = world_of(recipe.kind, "forest-model")
made = PromptSet.build("fox", n=8, n_test=4, world=world.name)
subject = Subject(recipe.concepts, recipe.kind, world)
print(json.dumps({
    "world": world.name,
    "composed": composed_worlds(),
    "found": world.find_concept("vixen"),
    "prompts": PromptSet.model_validate_json(made.model_dump_json()).world,
    "accuracy": AccuracyAudit.wanted(recipe.audits, subject),
    "nudity": NudityAudit.wanted(recipe.audits, subject),
}))
"""


FAMILY = '''"""A family of models with a network of their own: a toy."""

from collections.abc import Iterable
from typing import Any, ClassVar

from diffusers import DDIMScheduler, DiffusionPipeline, UNet2DConditionModel
from torch import nn

from .family import Place, Row
from .stable_diffusion import StableDiffusion


class ToyNetwork(UNet2DConditionModel):
    """A class of its own, by which the family is known."""


class ToyPipeline(DiffusionPipeline):
    """The network and its scheduler."""

    def __init__(self, unet: ToyNetwork, scheduler: DDIMScheduler) -> None:
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)


def toy_rows(config: Any) -> Iterable[Row]:
    """The names of its published checkpoints."""
    return [("conv_in.%", "first.%"), ("**", "rest.**")]


class Toy(StableDiffusion):
    """`Denoiser` over a `ToyPipeline`, conditioned and drawn as Stable Diffusion."""

    family = "toy"
    pipeline_class = ToyPipeline
    siblings = ()
    network = ToyNetwork
    marks = ("first.weight",)
    kinds = ("toy",)
    other_kinds = ()
    defaults = ("stable-diffusion", "flux")
    places: ClassVar = {"unet": Place("toy.", "denoiser")}
    layout = staticmethod(toy_rows)
    lora_names = "original"
    known: ClassVar = {"toy-one": {**StableDiffusion.tiny, "sample_size": 16}}

    @classmethod
    def owns(cls, module: nn.Module) -> bool:
        return isinstance(module, cls.network)
'''

FORMAT = '''"""`toy`: the difference of each tensor under its own name."""

from safetensors.torch import save_file

from ...models import Denoiser
from ...models.family import Family
from ...support.errors import UserError
from ...support.files import replacing
from ..change import Change
from ..format import Claim, Format, Keys
from ..job import Job, Written


def write_toy(job: Job) -> Written:
    path = job.folder / f"{job.name}.toy.safetensors"
    with replacing(path) as partial:
        change = {f"toy:{name}": job.cast(value) for name, value in job.difference.items()}
        save_file(change, partial, job.header("toy"))
    return Written(path, [path])


def check_toy(denoiser: Denoiser) -> None:
    if denoiser.family == "flux":
        raise UserError("no toys for Flux.")


def load_toy(path: str, family: type[Family] | None) -> str:
    return f"pipeline = play_with({path})"


def read_toy(keys: Keys) -> Claim:
    names = {name for name in keys.names if name.startswith("toy:")}
    return names, (Change(name.removeprefix("toy:"), keys.get(name)) for name in sorted(names))


FORMAT = Format(write_toy, rank=9, of_difference=True, check=check_toy, load=load_toy, read=read_toy)
'''

USE_OF_THE_FAMILY = """
import json
from pathlib import Path

import torch
from diffusers import DDIMScheduler
from safetensors.torch import load_file
from turpentine.pipeline.models import wrap_pipeline
from turpentine.pipeline.models.single_file import recognise
from turpentine.pipeline.models.toy import Toy, ToyNetwork, ToyPipeline
from turpentine.pipeline.run.cost import plan
from turpentine.pipeline.schema.defaults import build_recipe
from turpentine.pipeline.schema.recipe import TrainingSection
from turpentine.pipeline.training.lora import layer_names
from turpentine.pipeline.weights import Job, snapshot, write_weights

torch.manual_seed(0)
pipe = ToyPipeline(ToyNetwork(**Toy.tiny), DDIMScheduler(clip_sample=False))
denoiser = wrap_pipeline(pipe, "a toy")
base = snapshot(denoiser.module)
with torch.no_grad():
    denoiser.module.conv_in.weight.add_(1)
metadata = {"modelspec.architecture": denoiser.family}
formats = ["single_file", "lora", "delta"]
job = Job(denoiser, Path("toy-weights"), "toy", "fp32", metadata, base=base, rank=1)
whole, lora, delta = (load_file(record.path) for record in write_weights(job, formats))
Path("toy-model").mkdir()
Path("toy-model/model_index.json").write_text('{"_class_name": "ToyPipeline"}')
recipe = build_recipe({"concept": "cat", "model": "toy-model"})
print(json.dumps({
    "family": denoiser.family,
    "recognised": recognise(["first.weight"], Path("a.safetensors")).family,
    "checkpoint": sorted({".".join(name.split(".")[:2]) for name in whole}),
    "lora": sorted(lora),
    "delta": sorted(delta),
    "guidance": recipe.samples.guidance_scale,
    "attention": len(layer_names(denoiser.module, "attention")) > 0,
    "plans": [each.weights for each in plan("toy-one", [TrainingSection()])]
    == [sum(4 * p.numel() for p in denoiser.module.parameters())],
}))
"""

USE_OF_THE_FORMAT = """
import json
from pathlib import Path

import torch
from turpentine.pipeline.models import load_denoiser
from turpentine.pipeline.report.use import snippet
from turpentine.pipeline.schema.recipe import OutputSection
from turpentine.pipeline.schema.results import Results
from turpentine.pipeline.weights import Job, check_formats, needs_base, snapshot, write_weights
from turpentine.pipeline.weights.apply import apply

denoiser = load_denoiser("tiny-canvas", "cpu")
formats = OutputSection(formats=("toy",)).formats
check_formats(denoiser, formats)
base = snapshot(denoiser.module)
with torch.no_grad():
    denoiser.module.conv_in.weight.add_(1)
(record,) = write_weights(Job(denoiser, Path("formats"), "a", "fp32", {}, base=base), formats)
fresh = load_denoiser("tiny-canvas", "cpu")
apply(fresh.pipeline, record.path, any_base=True)
print(json.dumps({
    "path": record.path,
    "needs_base": needs_base(formats),
    "offered": OutputSection.model_fields["formats"].description.endswith("toy, a toy"),
    "applied": torch.allclose(fresh.module.conv_in.weight, denoiser.module.conv_in.weight),
    "snippet": "play_with" in snippet(
        Results.model_construct(weights=[record], model=type("Model", (), {"family": "stable-diffusion"})())
    ),
}))
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the package with one file and one line more for each."""
    package = tmp_path_factory.mktemp("added") / "turpentine"
    package.mkdir()
    shutil.copytree(ROOT / "pipeline", package / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "__init__.py", package)
    (package / "assets").symlink_to(ROOT / "assets")
    (package / "pipeline" / "audits" / "brightness.py").write_text(AUDIT)
    (package / "pipeline" / "worlds" / "forest.py").write_text(WORLD)
    (package / "pipeline" / "methods" / "push.py").write_text(METHOD)
    registry = package / "pipeline" / "methods" / "registry.py"
    text = registry.read_text()
    assert text.count('"speed")') == 1
    registry.write_text(text.replace('"speed")', '"speed", "push")'))
    for file, module, name, last in (
        ("audits/registry.py", "brightness", "BrightnessAudit", "ResemblanceAudit)"),
        ("worlds/__init__.py", "forest", "Forest", "Classes())"),
    ):
        path = package / "pipeline" / file
        text = path.read_text()
        first = text.index("from .")
        added = f"{last[:-1]}, {name}{'()' if '()' in last else ''})"
        text = f"{text[:first]}from .{module} import {name}\n{text[first:]}"
        assert text.count(last) == 1
        path.write_text(text.replace(last, added))
    (package / "pipeline" / "models" / "toy.py").write_text(FAMILY)
    (package / "pipeline" / "weights" / "formats" / "toy.py").write_text(FORMAT)
    for file, old, new in (
        ("models/registry.py", "from .stable_diffusion import", "from .toy import Toy\nfrom .stable_diffusion import"),
        ("models/registry.py", "    ClassConditional,\n)", "    ClassConditional,\n    Toy,\n)"),
        ("schema/choices.py", '"the whole change",\n}', '"the whole change",\n    "toy": "a toy",\n}'),
    ):
        path = package / "pipeline" / file
        text = path.read_text()
        assert text.count(old) == 1
        path.write_text(text.replace(old, new))
    return package.parent


def python(copy, *words):
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment, cwd=copy)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_an_audit_is_a_file_and_a_line(copy):
    words = (
        "unlearn --concept cat --n 2 --n-test 2 --steps 1 --batch-size 2 --num-inference-steps 2 --audit-images 2 "
        "--audit-retain-train-images 2 --alignment false --accuracy false --formats denoiser --out run"
    )
    shown = python(copy, "-m", "turpentine.pipeline.commands.main", *words.split())
    assert "Brightness" in shown
    run = copy / "run"
    found = json.loads((run / "results.json").read_text())["audits"]
    assert found["before"].keys() >= {"brightness"} and 0 < found["before"]["brightness"]["shouted"] < 1
    assert json.loads((run / "images" / "prompts.json").read_text())["shouted"][0].isupper()
    assert (run / "images" / "after" / "shouted-001.png").is_file()
    page = (run / "report.html").read_text()
    assert "<h2>How bright it is</h2>" in page and "shouted" in page and "Of &lt;i&gt;pictures&lt;/i&gt;." in page
    assert "Forgotten: brightness was looked at; kept: the light as it was." in page
    assert "Brightness" in (run / "MODEL_CARD.md").read_text()
    python(copy, "-m", "turpentine.pipeline.commands.main", "report", "run")  # results with it are read again


def test_a_world_is_a_file_and_a_line(copy):
    assert json.loads(python(copy, "-c", USE_OF_THE_WORLD)) == {
        "world": "forest",
        "composed": ["open", "tiny-canvas", "forest"],
        "found": ["subject", "fox"],
        "prompts": "forest",
        "accuracy": False,
        "nudity": False,
    }


def test_a_model_family_is_a_file_and_a_line(copy):
    assert json.loads(python(copy, "-c", USE_OF_THE_FAMILY).splitlines()[-1]) == {
        "family": "toy",
        "recognised": "toy",
        "checkpoint": ["toy.first", "toy.rest"],
        "lora": ["lora_unet_first.alpha", "lora_unet_first.lora_down.weight", "lora_unet_first.lora_up.weight"],
        "delta": ["lora_unet_first.diff", "turpentine.rest.gaps", "turpentine.rest.values"],
        "guidance": 3.5,
        "attention": True,
        "plans": True,
    }


def test_a_weights_format_is_a_file_and_a_line(copy):
    assert json.loads(python(copy, "-c", USE_OF_THE_FORMAT).splitlines()[-1]) == {
        "path": "formats/a.toy.safetensors",
        "needs_base": True,
        "offered": True,
        "applied": True,
        "snippet": True,
    }


def test_a_method_is_a_file_and_a_line(copy):
    words = (
        "unlearn --concept cat --method push --strength 3 --n 2 --n-test 2 --steps 1 --batch-size 2 "
        "--num-inference-steps 2 --audit-images 2 --audit-retain-train-images 2 --alignment false --accuracy false "
        "--formats denoiser --out pushed"
    )
    python(copy, "-m", "turpentine.pipeline.commands.main", *words.split())
    found = json.loads((copy / "pushed" / "results.json").read_text())
    assert found["recipe"]["method"] == {"name": "push", "data": "diverse", "strength": 3.0}
    assert found["method"] == "push" and found["training"]["final_loss"]["forget"] > 0
    assert "It should rise" in (copy / "pushed" / "report.html").read_text(), "as its configuration says"
    assert "--strength" in python(copy, "-m", "turpentine.pipeline.commands.main", "unlearn", "--help")
