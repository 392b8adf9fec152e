"""The recipe: everything that decides a run. Typed once; the CLI, the nodes and the app derive from it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo

from .errors import UserError
from .files import write_text
from .methods import METHODS, AnyMethodConfig
from .methods.restricted import RGDConfig
from .parameters import TrainableParameters
from .tiny_canvas.world import dimension_of

RECIPES = Path(__file__).parent / "recipes"


class Section(BaseModel):
    """A part of a recipe: frozen, and strict about its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PromptSection(Section):
    """The paired forget and retain prompts."""

    n: int = Field(default=800, ge=1, le=100_000, description="forget/retain prompt pairs to train on")
    n_test: int = Field(default=100, ge=1, le=10_000, description="held-out pairs for the audits")
    file: str | None = Field(default=None, description="your own pairs (.json, .csv, .txt) in place of the templates")
    synonyms: tuple[str, ...] = Field(default=(), description="more words that name the concept")
    source: Literal["template", "llm"] = Field(default="template", description="who thinks up the sub-concepts")
    llm_url: str | None = Field(default=None, description="OpenAI-compatible endpoint, e.g. http://localhost:11434/v1")
    llm_model: str | None = Field(default=None, description="its model's name, or a local transformers folder")
    llm_fallback: bool = Field(default=True, description="use the templates when the LLM fails (else stop)")


class SampleSection(Section):
    """How the model draws its own training and audit images."""

    num_inference_steps: int = Field(default=50, ge=1, le=1000, description="denoising steps an image")
    guidance_scale: float = Field(default=7.5, ge=0, le=50, description="classifier-free guidance of training images")
    scheduler: Literal["own", "dpm-solver++"] = Field(
        default="own", description="the model's own sampler, or DPM-Solver++"
    )
    sample_batch_size: int = Field(default=8, ge=1, le=1024, description="images drawn at once")


class TrainingSection(Section):
    """The fine-tuning."""

    steps: int = Field(default=100, ge=1, le=1_000_000, description="optimizer steps")
    batch_size: int = Field(default=8, ge=1, le=4096, description="forget/retain pairs a step")
    gradient_accumulation_steps: int = Field(
        default=1, ge=1, le=1024, description="split each batch into this many parts"
    )
    learning_rate: float = Field(default=1e-5, gt=0, le=1, description="Adam's learning rate")
    warmup_steps: int = Field(
        default=0, ge=0, le=100_000, description="steps over which the learning rate rises from 0"
    )
    parameters: TrainableParameters = Field(
        default="full", description="weights that train: all, cross-attention only (ESD-x), or the rest (ESD-u)"
    )
    metric: Literal["euclidean", "adam"] = Field(
        default="euclidean",
        description="inner products of the projection: plain, or weighted by Adam's preconditioner (no momentum then)",
    )
    guard: bool = Field(
        default=False, description="project the update that Adam proposes so that neither objective gets worse"
    )
    precision: Literal["fp32", "bf16"] = Field(default="fp32", description="arithmetic of forward and backward passes")
    gradient_checkpointing: bool = Field(default=False, description="recompute activations: less memory, slower")
    max_grad_norm: float | None = Field(default=None, gt=0, description="clip the combined direction to this norm")
    checkpoint_every: int = Field(default=100, ge=1, le=1_000_000, description="steps between checkpoints")
    preview_every: int = Field(
        default=0, ge=0, le=1_000_000, description="steps between pictures drawn while it trains; 0: none, saves memory"
    )


class AuditSection(Section):
    """What is measured before and after."""

    images: int = Field(
        default=100, ge=1, le=100_000, description="images of the forget test prompts, and of the retain ones"
    )
    retain_train_images: int = Field(default=50, ge=1, le=100_000, description="images of retain prompts trained on")
    nudity: Literal["auto", "on", "off"] = Field(
        default="auto", description="count NudeNet's detections; auto: for nudity, and for tiny-canvas's astronaut"
    )
    nudity_threshold: float = Field(default=0.6, ge=0.25, le=1.0, description="least score of a detection")
    nudity_labels: str = Field(default="paper", description="'paper', 'all', or labels joined by commas")
    alignment: bool = Field(default=True, description="measure image-text alignment with open_clip")
    alignment_model: str = Field(
        default="ViT-B-32/laion2b_s34b_b79k", description="'tiny-canvas', 'architecture/pretrained', or a folder"
    )
    accuracy: bool = Field(default=True, description="UA, IRA and CRA by the judge (tiny-canvas only)")


class OutputSection(Section):
    """The weights that are written."""

    formats: tuple[Literal["diffusers", "denoiser"], ...] = Field(
        default=("diffusers", "denoiser"), description="diffusers: the whole pipeline folder; denoiser: the UNet alone"
    )
    dtype: Literal["fp32", "fp16", "bf16"] = Field(
        default="fp32", description="number format of the weights on disk; with fp16 and bf16 tell diffusers the dtype"
    )


class Recipe(Section):
    """A complete description of a run; with the same recipe the same machine gives the same bits."""

    concept: str = Field(description="what to remove, e.g. 'cat', 'pop art', 'nudity'")
    kind: Literal["object", "style", "nudity"] = Field(default="object", description="what sort of concept it is")
    model: str = Field(default="tiny-canvas", description="'tiny-canvas', a diffusers folder or a hub id")
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="decides every random choice")
    device: str = Field(default="auto", description="'auto', 'cpu', 'cuda', 'cuda:1', 'mps', …")
    method: AnyMethodConfig = Field(default_factory=RGDConfig)
    prompts: PromptSection = Field(default_factory=PromptSection)
    samples: SampleSection = Field(default_factory=SampleSection)
    training: TrainingSection = Field(default_factory=TrainingSection)
    audits: AuditSection = Field(default_factory=AuditSection)
    output: OutputSection = Field(default_factory=OutputSection)

    @field_validator("concept")
    @classmethod
    def _named(cls, concept: str) -> str:
        if not concept.strip():
            raise ValueError("expected the name of a concept, got an empty text")
        return concept.strip()

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        if self.training.metric == "adam" and self.method.name not in ("rg", "rgd"):
            raise ValueError(f"training.metric 'adam' belongs to rg and rgd, got method {self.method.name!r}")
        if self.training.batch_size % self.training.gradient_accumulation_steps:
            raise ValueError(
                "training.batch_size must be a multiple of gradient_accumulation_steps, got "
                f"{self.training.batch_size} and {self.training.gradient_accumulation_steps}"
            )
        if self.training.guard and not {"forget", "retain"} <= set(METHODS[self.method.name][1].terms):
            raise ValueError(f"training.guard needs a forget and a retain term, and {self.method.name!r} lacks one")
        return self

    @property
    def world(self) -> Literal["open", "tiny-canvas"]:
        """Whose words the prompts use."""
        return "tiny-canvas" if Path(self.model).name == "tiny-canvas" else "open"

    @property
    def counts_nudity(self) -> bool:
        """Whether the nudity audit is asked for, or of use."""
        if self.audits.nudity != "auto":
            return self.audits.nudity == "on"
        if self.world == "tiny-canvas":
            return dimension_of(self.concept) == ("subject", "astronaut")
        return self.kind == "nudity"

    def save(self, path: Path) -> None:
        """Write as YAML, every field spelled out."""
        write_text(path, self.to_yaml())

    def to_yaml(self) -> str:
        """As YAML, every field spelled out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def shipped() -> list[str]:
    """Names of the complete recipes that come with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a recipe as nested dictionaries: a file, or the name of a shipped one.

    Raises:
        UserError: unreadable, or not a mapping.
    """
    if not Path(path).exists() and str(path) in shipped():
        path = RECIPES / f"{path}.yaml"
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(
            f"can't read the recipe {path}: {str(error).splitlines()[0]}. Expected a YAML file or one of {shipped()}."
        ) from None
    if not isinstance(content, dict):
        raise UserError(f"expected a recipe (a YAML mapping) in {path}, got {type(content).__name__}.")
    return content


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dictionaries, the second one winning. Another method name drops the first's options."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            renamed = key == "method" and value.get("name", old.get("name")) != old.get("name")
            merged[key] = dict(value) if renamed else merge(old, value)
        else:
            merged[key] = value
    return merged


def defaults_for(model: str, method: str) -> dict[str, Any]:
    """The shipped starting point for a model and method: `recipes/<family>/<method>.yaml`."""
    if method not in METHODS:
        raise UserError(f"method must be one of {sorted(METHODS)}, got {method!r}.")
    family = "tiny-canvas" if Path(model).name == "tiny-canvas" else "stable-diffusion"
    path = RECIPES / family / f"{method}.yaml"
    return merge({"model": model, "method": {"name": method}}, read_yaml(path) if path.exists() else {})


def build_recipe(chosen: Mapping[str, Any]) -> Recipe:
    """Fill what was chosen (nested dictionaries) with the defaults of its model and method.

    Raises:
        UserError: an unknown key or a value out of range, one line each.
    """
    method = chosen.get("method") or {}
    name = method.get("name", "rgd") if isinstance(method, Mapping) else method
    base = defaults_for(str(chosen.get("model", "tiny-canvas")), str(name))
    try:
        return Recipe.model_validate(merge(base, chosen))
    except ValidationError as error:
        raise UserError(describe(error)) from None


def load_recipe(path: Path) -> Recipe:
    """Read a recipe file, filling what it leaves out."""
    return build_recipe(read_yaml(path))


def describe(error: ValidationError) -> str:
    """A pydantic error as lines that a person can act on."""
    lines = []
    for problem in error.errors():
        place = ".".join(str(part) for part in problem["loc"] if part not in METHODS)
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            lines.append(f"unknown option {place!r}; `turpentine unlearn --help` lists the known ones")
        elif problem["type"] == "missing":
            lines.append(f"{place} is missing")
        else:
            got = f", got {problem['input']!r}" if problem["loc"] else ""
            lines.append(f"{place}: {message}{got}" if place else message)
    return "; ".join(lines)


def options() -> Iterator[tuple[tuple[str, ...], FieldInfo, str]]:
    """Every field that a front end may offer.

    Yields:
        (path, field, note): the path is the nested key; `note` tells whose option it is when it
        belongs to some methods only.
    """
    for name, field in Recipe.model_fields.items():
        annotation = field.annotation
        if name == "method":
            yield from _method_options()
        elif isinstance(annotation, type) and issubclass(annotation, Section):
            for inner, inner_field in annotation.model_fields.items():
                yield (name, inner), inner_field, ""
        else:
            yield (name,), field, ""


def _method_options() -> Iterator[tuple[tuple[str, ...], FieldInfo, str]]:
    owners: dict[str, tuple[FieldInfo, list[str]]] = {}
    for method, (config, _) in METHODS.items():
        for name, field in config.model_fields.items():
            if name != "name":
                owners.setdefault(name, (field, []))[1].append(method)
    for name, (field, methods) in owners.items():
        yield ("method", name), field, "" if len(methods) == len(METHODS) else f"for {', '.join(methods)}"


def choices(field: FieldInfo) -> tuple[Any, ...]:
    """The values of a Literal field; empty for others."""
    return get_args(field.annotation) if getattr(field.annotation, "__origin__", None) is Literal else ()
