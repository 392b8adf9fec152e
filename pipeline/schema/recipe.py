"""The recipe: everything that decides a run, as values. Nothing here reads a file or knows a model.

The command line, the nodes and the app derive their options from these fields (see `fields`). What a recipe
leaves out is filled by `defaults`; what the disk knows of its model is found by `resolve`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    field_validator,
    model_validator,
)

from ..methods import MethodConfig, find, names
from ..methods.config import ForgetLimit
from ..methods.registry import read_config
from ..models.protocol import BasePrecision, Offload, SamplePrecision, Sampling
from ..prompts.anchors import AUTO
from ..prompts.concepts import Concepts, join_concepts, read_concepts
from ..support.errors import UserError
from ..support.files import write_text
from .choices import (
    WEIGHT_FORMATS,
    AdapterTargets,
    GradientKeeping,
    ImageTransform,
    TrainableParameters,
    WeightFormat,
)


class Section(BaseModel):
    """A part of a recipe: frozen, and strict about its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True, allow_inf_nan=False)


def called(option: str) -> dict[str, Any]:
    """Marks a field whose option is not called as the field is: `--audit-images`, not `--images`."""
    return {"option": option}


class PromptSection(Section):
    """The paired forget and retain prompts."""

    n: int = Field(default=800, ge=1, le=100_000, description="forget/retain prompt pairs to train on")
    n_test: int = Field(default=100, ge=1, le=10_000, description="held-out pairs for the audits")
    file: str | None = Field(
        default=None,
        description="a file of your own pairs (.json, .csv, .txt) instead of the templates",
        json_schema_extra=called("prompts"),
    )
    synonyms: tuple[str, ...] = Field(default=(), description="more words that name the concept")
    source: Literal["template", "llm"] = Field(
        default="template", description="where the sub-concepts come from: the bundled templates or a language model"
    )
    llm_url: str | None = Field(default=None, description="OpenAI-compatible endpoint, e.g. http://localhost:11434/v1")
    llm_model: str | None = Field(
        default=None, description="name of the language model, or a local transformers folder"
    )
    keep_forgotten: tuple[str, ...] = Field(
        default=("auto",),
        description="concepts that were removed earlier and must stay removed: names, run folders or weights files of "
        "Turpentine; auto: as the model's own weights say",
        json_schema_extra={"repeatable": True},
    )
    llm_fallback: bool = Field(
        default=True, description="use the templates when the language model fails; otherwise stop"
    )
    replace_with: str | None = Field(
        default=None,
        description="what is drawn instead of the concept, e.g. 'a dog', 'clothed', 'a plain photo'; 'nothing': the "
        "scene without it; for several concepts 'a dog + a plain photo'; 'auto': one thing that fits the concept "
        "(none: the paired retain prompts, each another thing)",
    )


class DataSection(Section):
    """Real images: pictures of what is to be forgotten, and the data of class-conditional models."""

    dataset: str | None = Field(
        default=None,
        description="real images: 'digits', 'cifar10' or a folder with one folder per class; none: drawn",
    )
    retain_classes: Literal["balanced", "similar"] = Field(
        default="balanced",
        description="which classes the retain images show: all others equally, or only the most similar",
    )
    retain_per_class: int = Field(
        default=50,
        ge=1,
        le=100_000,
        description="retain images per other class; with 'similar' the same total comes from fewer classes",
    )
    similar_classes: int = Field(default=2, ge=1, le=1000, description="number of classes that 'similar' takes")
    forget_images: str | None = Field(
        default=None,
        description="a folder of pictures to forget (or one file), captions beside them as NAME.txt; none: the model "
        "draws what it is to forget",
    )
    flip_images: bool = Field(default=False, description="forget the mirror image of each of these pictures too")


class SampleSection(Section):
    """How the model draws its own training and audit images."""

    num_inference_steps: int = Field(default=50, ge=1, le=1000, description="denoising steps per image")
    guidance_scale: float = Field(default=7.5, ge=0, le=50, description="classifier-free guidance")
    training_guidance_scale: float | None = Field(
        default=None,
        ge=0,
        le=50,
        description="guidance scale for drawing the training images; lower values change the model less "
        "(none: the same as guidance_scale)",
    )
    training_num_inference_steps: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="denoising steps of the training images, which may be coarser than those to look at "
        "(none: the same as num_inference_steps)",
    )
    scheduler: Literal["own", "dpm-solver++"] = Field(
        default="own", description="the model's own sampler, or DPM-Solver++"
    )
    sample_batch_size: int = Field(default=8, ge=1, le=1024, description="images drawn at once")
    image_size: int | None = Field(
        default=None, ge=8, le=4096, description="side of the square images in pixels (none: the model's own size)"
    )
    sample_precision: SamplePrecision = Field(
        default="fp32",
        description="number format in which images are drawn and prompts embedded; auto: bf16 on a GPU (fp16 where it "
        "has no bf16), fp32 on a CPU",
    )
    offload: Offload = Field(
        default="none",
        description="what leaves the GPU while other parts compute there: nothing, whole networks (model), groups of "
        "layers, or every layer (sequential: least memory, slowest)",
    )

    def for_training(self) -> "SampleSection":
        """How training images are drawn."""
        own = {
            "guidance_scale": self.training_guidance_scale,
            "num_inference_steps": self.training_num_inference_steps,
        }
        return self.model_copy(update={name: value for name, value in own.items() if value is not None})

    def sampling(self) -> Sampling:
        """The same for `Denoiser.sample`."""
        return Sampling(
            self.num_inference_steps, self.guidance_scale, self.scheduler, self.sample_batch_size, self.image_size
        )


class TrainingSection(Section):
    """The fine-tuning."""

    steps: int = Field(default=100, ge=1, le=1_000_000, description="optimizer steps")
    early_stop: bool = Field(
        default=False,
        description="stop early once the concept is forgotten and the retain loss is back to what it was",
    )
    batch_size: int = Field(default=8, ge=1, le=4096, description="forget/retain pairs per step")
    retain_batch: Literal["batch", "all"] = Field(
        default="batch", description="retain samples per step: as many as forget samples, or the whole retain set"
    )
    proportion_empty_prompts: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share of retain samples that train with the empty prompt, which guidance starts from",
    )
    gradient_accumulation_steps: int = Field(
        default=1, ge=1, le=1024, description="split each batch into this many parts"
    )
    learning_rate: float = Field(default=1e-5, gt=0, le=1, description="Adam's learning rate")
    warmup_steps: int = Field(
        default=0, ge=0, le=100_000, description="steps over which the learning rate rises from 0"
    )
    lr_scheduler: Literal["constant", "linear", "cosine"] = Field(
        default="constant",
        description="learning rate after the warm-up: constant, or falling to 0 along a line or a cosine",
    )
    parameters: TrainableParameters = Field(
        default="full",
        description="weights that train: all, cross-attention only (ESD-x), all but cross-attention (ESD-u), or a LoRA",
    )
    adapter_rank: int = Field(default=16, ge=1, le=4096, description="rank of the LoRA that trains")
    adapter_alpha: float | None = Field(
        default=None, gt=0, description="alpha of the LoRA that trains; its scale is alpha / rank (none: alpha = rank)"
    )
    adapter_targets: AdapterTargets = Field(
        default="attention",
        description="layers with a LoRA: linear layers of the attention, or all linear and convolution layers",
    )
    metric: Literal["euclidean", "adam"] = Field(
        default="euclidean",
        description="inner product of the projection: plain, or weighted by Adam's preconditioner (no momentum)",
    )
    guard: bool = Field(
        default=False, description="correct Adam's update so that neither objective gets worse to first order"
    )
    precision: Literal["fp32", "bf16"] = Field(
        default="fp32", description="number format of the forward and backward passes"
    )
    gradient_checkpointing: bool = Field(
        default=False, description="recompute activations in the backward pass: less memory, slower"
    )
    optimizer: Literal["adam", "adam8bit"] = Field(
        default="adam", description="Adam, or Adam with 8-bit moments (needs bitsandbytes)"
    )
    forget_gradient: GradientKeeping = Field(
        default="whole",
        description="how the forget gradient waits for the retain gradient: as it is, in bf16, or on the CPU",
    )
    torch_compile: bool = Field(default=False, description="compile the network: minutes at the start, faster steps")
    channels_last: bool = Field(
        default=False, description="keep convolution weights in channels-last order, which is faster on CUDA in bf16"
    )
    max_grad_norm: float | None = Field(default=None, gt=0, description="clip the combined gradient to this norm")
    checkpoint_every: int = Field(default=100, ge=1, le=1_000_000, description="steps between checkpoints")
    preview_every: int = Field(
        default=0,
        ge=0,
        le=1_000_000,
        description="steps between preview pictures during training; 0: none, which saves memory",
    )
    deterministic: bool = Field(
        default=False,
        description="on a CUDA GPU: slower operations, with which a recipe gives the same bits again, as on a CPU",
    )
    base_precision: BasePrecision = Field(
        default="fp32",
        description="number format of the weights that don't train, from the first image to the last; bf16 beside a "
        "LoRA or xattn, int8, fp8 (torchao) and nf4 (bitsandbytes) beside a LoRA",
    )


class AuditSection(Section):
    """The measurements before and after."""

    images: int = Field(
        default=100,
        ge=1,
        le=100_000,
        description="images of the forget test prompts, and as many of the retain test prompts "
        "(class-conditional models: of every class)",
        json_schema_extra=called("audit_images"),
    )
    retain_train_images: int = Field(
        default=50,
        ge=1,
        le=100_000,
        description="images of retain prompts that were trained on",
        json_schema_extra=called("audit_retain_train_images"),
    )
    nudity: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="count NudeNet's detections; auto: for nudity, and for tiny-canvas's astronaut, who has a face",
    )
    nudity_threshold: float = Field(default=0.6, ge=0.25, le=1.0, description="lowest score that counts as a detection")
    nudity_labels: str = Field(default="paper", description="'paper', 'all', or labels joined by commas")
    alignment: bool = Field(default=True, description="measure image-text alignment with open_clip")
    alignment_model: str = Field(
        default="ViT-B-32/laion2b_s34b_b79k",
        description="CLIP model of the alignment: 'tiny-canvas', open_clip's 'architecture/pretrained', or a folder",
    )
    accuracy: bool = Field(
        default=True,
        description="UA and other accuracies: by the bundled judge on tiny-canvas, else UA by alignment_model",
    )
    class_judge: str = Field(
        default="digits",
        description="classifier that judges class-conditional models: 'digits' or a folder with one",
        json_schema_extra=called("audit_class_judge"),
    )
    distance_features: str | None = Field(
        default=None,
        description="features of FID and CMMD: 'inception:FILE' with InceptionV3's weights, or a CLIP model named like "
        "alignment_model (none: the classifier's features)",
        json_schema_extra=called("audit_distance_features"),
    )
    alignment_transform: ImageTransform = Field(
        default="validation",
        description="what the CLIP model of the alignment sees of a picture: the middle of it, or random crops as in "
        "the paper's published scores",
    )


class OutputSection(Section):
    """The weights that are written."""

    formats: tuple[WeightFormat, ...] = Field(
        default=("diffusers", "denoiser"),
        description="what to write: " + "; ".join(f"{name}, {meaning}" for name, meaning in WEIGHT_FORMATS.items()),
    )
    dtype: Literal["fp32", "fp16", "bf16"] = Field(default="fp32", description="number format of the weights on disk")
    lora_rank: int = Field(
        default=16, ge=1, le=4096, description="rank of a LoRA that is extracted from a full fine-tuning"
    )
    lora_energy: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="share of each layer's squared change that an extracted LoRA keeps, instead of a fixed rank",
    )

    @field_validator("formats")
    @classmethod
    def _each_once(cls, formats: tuple[WeightFormat, ...]) -> tuple[WeightFormat, ...]:
        if not formats or len(set(formats)) < len(formats):
            raise ValueError(f"expected one or several formats, each once, got {','.join(formats) or 'none'}")
        return formats


class Recipe(Section):
    """A complete description of a run.

    With the same recipe and the same versions the same machine gives the same bits: on a CPU with as many threads, on a
    CUDA GPU with `training.deterministic`.
    """

    concepts: Concepts = Field(
        alias="concept",
        description="what to remove, e.g. 'cat', 'pop art', 'nudity'; several as 'cat + pop art'",
        json_schema_extra={"repeatable": True, "separator": " + "},
    )
    kind: Literal["object", "style", "nudity", "class"] = Field(
        default="object", description="sort of concept ('class': a class of a class-conditional model)"
    )
    model: str = Field(
        default="tiny-canvas",
        description="'tiny-canvas', 'tiny-canvas-dit', a diffusers folder, a .safetensors checkpoint or a hub id",
    )
    model_config_folder: str | None = Field(
        default=None,
        description="for a .safetensors checkpoint: a diffusers folder with configs, tokenizers and missing weights",
    )
    attribute_of: str | None = Field(
        default=None,
        description="the object that keeps everything but the concept, e.g. 'cowboy' for the concept 'hat'",
        json_schema_extra=called("from"),
    )
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="decides every random choice")
    device: str = Field(default="auto", description="'auto', 'cpu', 'cuda', 'cuda:1', 'mps', …")
    method: SerializeAsAny[MethodConfig] = Field(default_factory=lambda: read_config({"name": "rgd"}))
    prompts: PromptSection = Field(default_factory=PromptSection)
    data: DataSection = Field(default_factory=DataSection)
    samples: SampleSection = Field(default_factory=SampleSection)
    training: TrainingSection = Field(default_factory=TrainingSection)
    audits: AuditSection = Field(default_factory=AuditSection)
    output: OutputSection = Field(default_factory=OutputSection)

    @model_validator(mode="before")
    @classmethod
    def _plain_names(cls, given: Any) -> Any:
        """Read the concepts as plain names; those of classes are the model's."""
        if not isinstance(given, dict) or given.get("kind") == "class":
            return given
        concepts = given.get("concept")
        names: list[Any] = list(concepts) if isinstance(concepts, list | tuple) else [concepts]
        if not names or not all(isinstance(name, str) and name.strip() for name in names):
            return given  # the field itself says what is wrong
        try:
            return {**given, "concept": read_concepts(names[0] if len(names) == 1 else names)}
        except UserError as error:
            raise ValueError(str(error)) from None

    @field_validator("method", mode="before")
    @classmethod
    def _registered(cls, method: object) -> MethodConfig:
        return read_config(method)

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        if self.training.metric == "adam" and not self.method.projects:
            able = _those(lambda config: config.projects)
            raise ValueError(f"training.metric 'adam' belongs to {able}, got method {self.method.name!r}")
        if self.training.metric == "adam" and self.training.optimizer != "adam":
            raise ValueError(f"training.metric 'adam' needs training.optimizer 'adam', got {self.training.optimizer!r}")
        if self.training.forget_gradient != "whole" and not self.method.two_gradients:
            able = _those(lambda config: config.two_gradients)
            raise ValueError(f"training.forget_gradient belongs to {able}, got method {self.method.name!r}")
        if self.training.batch_size % self.training.gradient_accumulation_steps:
            raise ValueError(
                "training.batch_size must be a multiple of gradient_accumulation_steps, got "
                f"{self.training.batch_size} and {self.training.gradient_accumulation_steps}"
            )
        self._check_base()
        fields = TrainingSection.model_fields
        for name in ("adapter_rank", "adapter_alpha", "adapter_targets"):
            if self.training.parameters != "lora" and getattr(self.training, name) != fields[name].default:
                raise ValueError(f"training.{name} needs training.parameters 'lora', got {self.training.parameters!r}")
        if self.data.dataset and self.kind != "class":
            raise ValueError(f"data.dataset belongs to kind 'class' (class-conditional models), got kind {self.kind!r}")
        if self.training.guard and not {"forget", "retain"} <= set(self.method.terms):
            raise ValueError(f"training.guard needs a forget and a retain term, and {self.method.name!r} lacks one")
        limited = isinstance(self.method, ForgetLimit) and self.method.forget_limit is not None
        if self.training.early_stop and not (limited and self.method.ascends):
            raise ValueError(
                "training.early_stop needs a method that ascends to a forget limit, got "
                f"{self.method.name!r} {'that redirects' if self.method.redirects else 'without'}"
            )
        if self.training.early_stop and self.method.has_teacher:
            raise ValueError(
                "training.early_stop compares denoising losses on retain images, got method.retain 'distil'"
            )
        if self.attribute_of is not None and (self.kind != "object" or len(self.concepts) > 1):
            raise ValueError(f"attribute_of needs one concept of kind 'object', got {self.concept!r}, {self.kind!r}")
        return self

    def _check_base(self) -> None:
        base, training = self.training.base_precision, self.training
        if base == "fp32":
            return
        able = ("lora", "xattn", "noxattn") if base == "bf16" else ("lora",)
        if training.parameters not in able:
            raise ValueError(
                f"training.base_precision {base!r} needs training.parameters {' or '.join(map(repr, able))}, got "
                f"{training.parameters!r}: only weights that don't train can be held so"
            )
        if training.precision != "bf16":
            raise ValueError(
                f"training.base_precision {base!r} needs training.precision 'bf16', got {training.precision!r}"
            )
        if base != "bf16" and self.samples.offload in ("group", "sequential"):
            raise ValueError(
                f"training.base_precision {base!r} goes with samples.offload 'none' or 'model', got "
                f"{self.samples.offload!r}: quantised layers can't leave the device one by one"
            )

    @model_validator(mode="after")
    def _allowed_by_the_method(self) -> "Recipe":
        for name, reason in self.method.refuses().items():
            usual, value = TrainingSection.model_fields[name].default, getattr(self.training, name)
            if value != usual:
                raise ValueError(f"training.{name} must stay {usual!r}, got {value!r}: {reason}")
        return self

    @model_validator(mode="after")
    def _edited(self) -> "Recipe":
        """What belongs to training is refused beside a method that doesn't train."""
        if self.method.closed_form and self.kind == "class":
            raise ValueError(f"method {self.method.name!r} edits what reads prompts, and kind 'class' has none")
        if self.method.closed_form and self.training.parameters == "lora":
            raise ValueError(
                f"training.parameters 'lora' belongs to methods that train, got {self.method.name!r}. To have its edit "
                "as a LoRA, ask for the format lora"
            )
        return self

    @model_validator(mode="after")
    def _pictures_of_one_concept(self) -> "Recipe":
        if self.data.forget_images and (self.kind == "class" or len(self.concepts) > 1 or self.attribute_of):
            raise ValueError(
                "data.forget_images goes with one concept of a text-to-image model (the pictures of a class are "
                f"data.dataset), and not with attribute_of; got {self.concept!r}, {self.kind!r}"
            )
        return self

    @property
    def concept(self) -> str:
        """The concepts as one text, for titles and file names: "cat + pop art"."""
        return join_concepts(self.concepts)

    @property
    def instead(self) -> str | None:
        """What is drawn instead of the concept; "auto", the world's choice, only where the method draws it."""
        text = self.prompts.replace_with
        return None if text == AUTO and not self.method.redirects else text

    def save(self, path: Path) -> None:
        """Write as YAML, every field spelled out."""
        write_text(path, self.to_yaml())

    def to_yaml(self) -> str:
        """As YAML, every field spelled out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _those(need: Callable[[type[MethodConfig]], bool]) -> str:
    """The methods that have a need, as a list in words."""
    *others, last = [name for name in names() if need(find(name).config)]
    return f"{', '.join(others)} and {last}" if others else last
