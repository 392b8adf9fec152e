"""The recipe: everything that decides a run. Typed once; the CLI, the nodes and the app derive from it."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo

from ..methods import METHODS, AnyMethodConfig
from ..methods.restricted import RGDConfig
from ..models.family import Family
from ..models.lineage import lineage_of, pipeline_class_of
from ..models.protocol import Sampling
from ..prompts.compose import split_concepts
from ..support.errors import UserError
from ..support.files import write_text
from ..worlds.tiny_canvas import MODELS, dimension_of
from .choices import WEIGHT_FORMATS, AdapterTargets, GradientKeeping, TrainableParameters, WeightFormat

RECIPES = Path(__file__).parent / "recipes"
_ALTERNATIVE = re.compile(r"(float|literal\[.*)$")  # what pydantic adds to a place where a field may be of two types


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
    keep_forgotten: tuple[str, ...] = Field(
        default=("auto",),
        description="what was removed before and shall stay so: concepts, run folders or weights of Turpentine; "
        "auto: what the model's own weights tell",
    )
    llm_fallback: bool = Field(default=True, description="use the templates when the LLM fails (else stop)")


class DataSection(Section):
    """The real images that class-conditional models unlearn with."""

    dataset: str | None = Field(
        default=None, description="'digits', 'cifar10' or a folder with one folder per class; none: the model's own"
    )
    retain_classes: Literal["balanced", "similar"] = Field(
        default="balanced", description="retain images of all other classes alike, or of the most similar ones only"
    )
    retain_per_class: int = Field(
        default=50,
        ge=1,
        le=100_000,
        description="retain images for each other class (their sum, where only some count)",
    )
    similar_classes: int = Field(default=2, ge=1, le=1000, description="how many classes 'similar' takes")


class SampleSection(Section):
    """How the model draws its own training and audit images."""

    num_inference_steps: int = Field(default=50, ge=1, le=1000, description="denoising steps an image")
    guidance_scale: float = Field(default=7.5, ge=0, le=50, description="classifier-free guidance")
    training_guidance_scale: float | None = Field(
        default=None,
        ge=0,
        le=50,
        description="guidance of the training images alone; less keeps the model nearer to itself (none: the same)",
    )
    scheduler: Literal["own", "dpm-solver++"] = Field(
        default="own", description="the model's own sampler, or DPM-Solver++"
    )
    sample_batch_size: int = Field(default=8, ge=1, le=1024, description="images drawn at once")
    image_size: int | None = Field(
        default=None, ge=8, le=4096, description="side of the images in pixels (none: the model's own)"
    )

    def for_training(self) -> "SampleSection":
        """How training images are drawn."""
        if self.training_guidance_scale is None:
            return self
        return self.model_copy(update={"guidance_scale": self.training_guidance_scale})

    def sampling(self) -> Sampling:
        """The same for `Denoiser.sample`."""
        return Sampling(
            self.num_inference_steps, self.guidance_scale, self.scheduler, self.sample_batch_size, self.image_size
        )


TRAINING_IMAGES = ("samples.training_guidance_scale",)
"""Fields, as paths with dots, that are about training images: commands that draw none leave them out."""


class TrainingSection(Section):
    """The fine-tuning."""

    steps: int = Field(default=100, ge=1, le=1_000_000, description="optimizer steps")
    early_stop: bool = Field(
        default=False,
        description="end before the last step once the concept is forgotten and the retain loss as before",
    )
    batch_size: int = Field(default=8, ge=1, le=4096, description="forget/retain pairs a step")
    retain_batch: Literal["batch", "all"] = Field(
        default="batch", description="retain samples a step: as many as forget samples, or the whole retain set"
    )
    proportion_empty_prompts: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share of the retain samples that train with the empty prompt, from which guidance starts",
    )
    gradient_accumulation_steps: int = Field(
        default=1, ge=1, le=1024, description="split each batch into this many parts"
    )
    learning_rate: float = Field(default=1e-5, gt=0, le=1, description="Adam's learning rate")
    warmup_steps: int = Field(
        default=0, ge=0, le=100_000, description="steps over which the learning rate rises from 0"
    )
    lr_scheduler: Literal["constant", "linear", "cosine"] = Field(
        default="constant", description="course of the learning rate after the warm-up: level, or falling to 0"
    )
    parameters: TrainableParameters = Field(
        default="full",
        description="weights that train: all, cross-attention only (ESD-x), the rest (ESD-u), or a LoRA beside them",
    )
    adapter_rank: int = Field(default=16, ge=1, le=4096, description="rank of a LoRA that trains")
    adapter_alpha: float | None = Field(
        default=None, gt=0, description="its scale is alpha / rank (none: alpha = rank)"
    )
    adapter_targets: AdapterTargets = Field(
        default="attention", description="its layers: the attention's linear layers, or all linear and convolution ones"
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
    optimizer: Literal["adam", "adam8bit"] = Field(
        default="adam", description="Adam, or Adam with its moments in 8 bits (bitsandbytes)"
    )
    forget_gradient: GradientKeeping = Field(
        default="whole",
        description="how the forget gradient waits for the retain one: whole, rounded to bf16, or on the CPU",
    )
    torch_compile: bool = Field(default=False, description="compile the network first: minutes once, faster steps")
    channels_last: bool = Field(
        default=False, description="convolutions' weights with channels innermost, which CUDA prefers in bf16"
    )
    max_grad_norm: float | None = Field(default=None, gt=0, description="clip the combined direction to this norm")
    checkpoint_every: int = Field(default=100, ge=1, le=1_000_000, description="steps between checkpoints")
    preview_every: int = Field(
        default=0, ge=0, le=1_000_000, description="steps between pictures drawn while it trains; 0: none, saves memory"
    )


class AuditSection(Section):
    """What is measured before and after."""

    images: int = Field(
        default=100,
        ge=1,
        le=100_000,
        description="images of the forget test prompts, and of the retain ones (class-conditional: of every class)",
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
    class_judge: str = Field(
        default="digits", description="classifier of class-conditional models: 'digits' or a folder with one"
    )
    distance_features: str | None = Field(
        default=None,
        description="features of FID and CMMD: 'inception:FILE' with InceptionV3's weights, or a CLIP model as "
        "alignment_model names one (none: the classifier's)",
    )


class OutputSection(Section):
    """The weights that are written."""

    formats: tuple[WeightFormat, ...] = Field(
        default=("diffusers", "denoiser"),
        description="; ".join(f"{name}: {meaning}" for name, meaning in WEIGHT_FORMATS.items()),
    )
    dtype: Literal["fp32", "fp16", "bf16"] = Field(
        default="fp32", description="number format of the weights on disk; with fp16 and bf16 tell diffusers the dtype"
    )
    lora_rank: int = Field(default=16, ge=1, le=4096, description="rank of a LoRA taken from a full run")
    lora_energy: float | None = Field(
        default=None, gt=0, le=1, description="share of each layer's squared change that it keeps, in place of a rank"
    )


class Recipe(Section):
    """A complete description of a run; with the same recipe the same machine gives the same bits."""

    concept: str = Field(description="what to remove, e.g. 'cat', 'pop art', 'nudity'; several as 'cat + pop art'")
    kind: Literal["object", "style", "nudity", "class"] = Field(
        default="object", description="what sort of concept it is ('class': of a class-conditional model)"
    )
    model: str = Field(
        default="tiny-canvas",
        description="'tiny-canvas', 'tiny-canvas-dit', a diffusers folder, a .safetensors checkpoint or a hub id",
    )
    model_config_folder: str | None = Field(
        default=None,
        description="for a .safetensors checkpoint: diffusers folder with its configs, tokenizers and missing weights",
    )
    attribute_of: str | None = Field(
        default=None, description="the object that keeps everything but the concept, e.g. hat from 'cowboy'"
    )
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="decides every random choice")
    device: str = Field(default="auto", description="'auto', 'cpu', 'cuda', 'cuda:1', 'mps', …")
    method: AnyMethodConfig = Field(default_factory=RGDConfig)
    prompts: PromptSection = Field(default_factory=PromptSection)
    data: DataSection = Field(default_factory=DataSection)
    samples: SampleSection = Field(default_factory=SampleSection)
    training: TrainingSection = Field(default_factory=TrainingSection)
    audits: AuditSection = Field(default_factory=AuditSection)
    output: OutputSection = Field(default_factory=OutputSection)

    @field_validator("concept")
    @classmethod
    def _named(cls, concept: str) -> str:
        if not concept.strip():
            raise ValueError("expected the name of a concept, got an empty text")
        try:
            split_concepts(concept)
        except UserError as error:
            raise ValueError(str(error)) from None
        return concept.strip()

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        if self.training.metric == "adam" and self.method.name not in ("rg", "rgd"):
            raise ValueError(f"training.metric 'adam' belongs to rg and rgd, got method {self.method.name!r}")
        if self.training.metric == "adam" and self.training.optimizer != "adam":
            raise ValueError(f"training.metric 'adam' needs training.optimizer 'adam', got {self.training.optimizer!r}")
        if self.training.forget_gradient != "whole" and self.method.name not in ("rg", "rgd", "grad_diff"):
            raise ValueError(f"training.forget_gradient belongs to rg, rgd and grad_diff, got {self.method.name!r}")
        if self.training.batch_size % self.training.gradient_accumulation_steps:
            raise ValueError(
                "training.batch_size must be a multiple of gradient_accumulation_steps, got "
                f"{self.training.batch_size} and {self.training.gradient_accumulation_steps}"
            )
        fields = TrainingSection.model_fields
        for name in ("adapter_rank", "adapter_alpha", "adapter_targets"):
            if self.training.parameters != "lora" and getattr(self.training, name) != fields[name].default:
                raise ValueError(f"training.{name} needs training.parameters 'lora', got {self.training.parameters!r}")
        if self.data.dataset and self.kind != "class":
            raise ValueError(f"data.dataset belongs to kind 'class' (class-conditional models), got kind {self.kind!r}")
        if self.training.guard and not {"forget", "retain"} <= set(METHODS[self.method.name][1].terms):
            raise ValueError(f"training.guard needs a forget and a retain term, and {self.method.name!r} lacks one")
        if self.training.early_stop and getattr(self.method, "forget_limit", None) is None:
            raise ValueError(
                f"training.early_stop needs a method with a forget limit, got {self.method.name!r} without"
            )
        if self.attribute_of is not None and (self.kind != "object" or len(self.concepts) > 1):
            raise ValueError(f"attribute_of needs one concept of kind 'object', got {self.concept!r}, {self.kind!r}")
        return self

    @property
    def concepts(self) -> tuple[str, ...]:
        """What to remove, one by one."""
        return split_concepts(self.concept)

    @property
    def world(self) -> Literal["open", "tiny-canvas", "classes"]:
        """Whose words the prompts use; in the world of classes a prompt is the name of a class."""
        if self.kind == "class":
            return "classes"
        return "tiny-canvas" if Path(lineage_of(self.model).origin).name in MODELS else "open"

    @property
    def forgotten_before(self) -> tuple[str, ...]:
        """What was removed earlier and shall stay so."""
        found: list[str] = []
        for name in self.prompts.keep_forgotten:
            lineage = lineage_of(self.model if name == "auto" else name)
            found += lineage.forgotten if name == "auto" or Path(name).exists() else [name]
        return tuple(name for name in dict.fromkeys(found) if name not in self.concepts)

    @property
    def counts_nudity(self) -> bool:
        """Whether the nudity audit is asked for, or of use."""
        if self.audits.nudity != "auto":
            return self.audits.nudity == "on"
        if self.world == "tiny-canvas":
            return any(dimension_of(name) == ("subject", "astronaut") for name in self.concepts)
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


_FAMILIES = {
    "tiny-canvas": ("tiny-canvas",),
    "tiny-canvas-dit": ("tiny-canvas", "tiny-canvas-dit"),
    "digits": ("digits",),
}
"""Bundled model -> folders of `recipes/` that hold its defaults, each building on the one before."""


def defaults_for(model: str, method: str, pipeline_class: str | None = None) -> dict[str, Any]:
    """The shipped starting point for a model and method: `recipes/<family>/all.yaml`, then `<method>.yaml`.

    A family can build on another one; then its files hold what differs.

    Args:
        model: as a recipe names it.
        method: of `METHODS`.
        pipeline_class: name of the model's diffusers class, where it is known; else it is looked up.
    """
    if method not in METHODS:
        raise UserError(f"method must be one of {sorted(METHODS)}, got {method!r}.")
    found = {"model": model, "method": {"name": method}, **METHODS[method][0].recipe}
    for family in _families(model, pipeline_class):
        for name in ("all", method):
            path = RECIPES / family / f"{name}.yaml"
            found = merge(found, read_yaml(path) if path.exists() else {})
    return found


def _families(model: str, pipeline_class: str | None) -> tuple[str, ...]:
    origin = lineage_of(model).origin
    if Path(origin).name in _FAMILIES:
        return _FAMILIES[Path(origin).name]
    kind = pipeline_class or pipeline_class_of(model)
    if not kind:
        return Family.defaults
    from ..models.registry import family_of_pipeline  # all of diffusers: only for models that say which class they are

    return (family_of_pipeline(kind) or Family).defaults


def build_recipe(chosen: Mapping[str, Any], pipeline_class: str | None = None) -> Recipe:
    """Fill what was chosen (nested dictionaries) with the defaults of its model and method.

    Args:
        chosen: fields of a recipe.
        pipeline_class: see `defaults_for`.

    Raises:
        UserError: an unknown key or a value out of range, one line each.
    """
    method = chosen.get("method") or {}
    name = method.get("name", "rgd") if isinstance(method, Mapping) else method
    if pipeline_class is None and chosen.get("model_config_folder"):
        pipeline_class = pipeline_class_of(str(chosen["model_config_folder"]))
    base = defaults_for(str(chosen.get("model", "tiny-canvas")), str(name), pipeline_class)
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
        place = ".".join(
            str(part) for part in problem["loc"] if part not in METHODS and not _ALTERNATIVE.match(str(part))
        )
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
