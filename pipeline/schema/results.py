"""`results.json`: the figures of a run, in a schema that the report, tables, nodes and app read.

The file is versioned by `schema_version`; `Results.load` refuses a version that it does not know.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from ..support.errors import UserError
from ..support.files import write_text

SCHEMA_VERSION: Literal[1] = 1

TOLERATED_LOSS = 0.02
"""Largest loss (relative for a cosine, absolute for an accuracy) that still counts as kept; more is hurt."""


class Record(BaseModel):
    """A part of `results.json`: frozen, and strict about its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")


class ModelInfo(Record):
    """The model that was unlearned."""

    name: str = Field(description="bundled name, folder or hub id")
    family: str = Field(description="name of the adapter, for example 'stable-diffusion'")
    sha256: str = Field(description="hash of the denoiser's weights before unlearning")


class Pair(Record):
    """One number for each of the two objectives."""

    forget: float
    retain: float


class BudgetResult(Record):
    """Whether `combine: budget` kept the retain loss within its budget, over the last pass through the retain data."""

    allowed: float = Field(description="how much it may rise, as a share of what it was")
    rise: float = Field(description="mean rise, as a share of what it was on the same data before the first step")
    steps: int = Field(description="of that pass")
    multiplier: float = Field(description="mu after the last step, the weight of the retain gradient")


class TrainingResult(Record):
    """The cost of the fine-tuning, or of the edit in closed form, and its course."""

    steps: int = Field(description="0 for an edit in closed form")
    settled: int | None = Field(
        default=None, description="steps after which the concept was found forgotten and the rest as it was"
    )
    seconds: float
    seconds_per_step: float
    peak_memory_bytes: int = Field(description="peak resident (CPU) or allocated (accelerator) memory of the process")
    conflict_rate: float = Field(description="share of steps with g_f . g_r < 0, in [0, 1]")
    violation_rate: Pair = Field(description="share of steps whose actual update raises the loss to first order")
    truncation_rate: float = Field(description="share of steps whose forget loss was at the limit")
    final_loss: Pair = Field(description="denoising losses, mean over the last tenth of the steps")
    moved: float | None = Field(
        default=None,
        description="closed form: share of the distance from what the edited layers read of the forget prompts to what "
        "they read of their anchors that was covered, at most 1",
    )
    budget: BudgetResult | None = Field(default=None, description="combine 'budget': whether it held")


class NudityResult(Record):
    """NudeNet detections on the images of the forget test prompts."""

    images: int
    images_with_any: int
    threshold: float
    detections: dict[str, int] = Field(description="label -> number of detections at or above the threshold")
    floor: float | None = Field(
        default=None, description="share of *retain* test images with any detection: false alarms to compare with"
    )


class Interval(Record):
    """A mean with its bootstrap interval (95 %)."""

    mean: float
    low: float
    high: float
    images: int


class AlignmentResult(Record):
    """Mean image-text cosine, in [-1, 1]; the intervals beside the means."""

    forget: float
    forget_to_anchor: float | None = Field(
        default=None, description="of the same pictures with what should be drawn instead; None where that is not known"
    )
    retain_train: float
    retain_test: float
    model: str
    intervals: dict[Literal["forget", "forget_to_anchor", "retain_train", "retain_test"], Interval]


class SetAlignment(Interval):
    """Mean image-text cosine of one set of pictures, in [-1, 1]."""

    model: str


class ValueAccuracy(Record):
    """Accuracy on the images of one value, for example of the cats."""

    accuracy: float
    images: int


class AccuracyResult(Record):
    """Zero-shot accuracies in [0, 1], as UnlearnCanvas names them."""

    UA: float = Field(description="1 - accuracy of the concept on the forget test prompts")
    IRA: float = Field(description="accuracy of the concept's own dimension on the retain test prompts")
    CRA: float = Field(
        description="accuracy of the other domain (styles for a subject, subjects for a style) on the retain "
        "test prompts"
    )
    scene: float | None = Field(
        default=None,
        description="mean share of what else a forget test prompt names that its picture still shows; None in results "
        "of before it was measured, and where prompts name nothing else",
    )
    scene_interval: Interval | None = None
    scene_by_dimension: dict[str, float] = Field(
        default_factory=dict, description="the same for each dimension alone, time among them"
    )
    images: int
    by_dimension: dict[str, float] = Field(default_factory=dict, description="retain accuracy of each dimension")
    by_value: dict[str, dict[str, ValueAccuracy]] = Field(
        default_factory=dict, description="dimension -> value -> retain accuracy"
    )


class Nearest(Record):
    """The drawn picture that is nearest to one of the pictures to forget."""

    picture: str = Field(description="name of the file of the picture to forget")
    image: int = Field(description="place among the forget test images")
    prompt: str = Field(description="that drew it")
    similarity: float = Field(description="cosine of the two, in [-1, 1]")


class ResemblanceResult(Record):
    """How near drawn pictures come to the pictures to forget: cosines of image features, in [-1, 1]."""

    forget: float = Field(description="of each forget test image with the nearest picture, the mean")
    retain: float = Field(description="the same of the retain test images, which nobody calls copies")
    closest: float = Field(description="the largest of any forget test image")
    copies: float = Field(description="share of forget test images nearer than 95 % of the retain test images are")
    pictures: int
    images: int
    model: str
    nearest: list[Nearest] = Field(description="for the first pictures, the forget test image nearest to each")


class ConceptResult(Record):
    """Whether a CLIP model still calls pictures by the concept, among others of its kind and "random noise"."""

    UA: float = Field(description="share of the pictures that are called something else, in [0, 1]")
    UA_interval: Interval
    floor: float | None = Field(
        default=None, description="share of *retain* test images that are called by the concept: false alarms"
    )
    noise: float = Field(description="share of the answers that are random noise")
    instead: dict[str, float] = Field(description="share of the answers that are each name, the concept's among them")
    among: list[str] = Field(description="every name that could be chosen")
    model: str
    images: int


class ClassResult(Record):
    """Class-conditional models: accuracies by the judge, in [0, 1], and distances from real images."""

    UA: float = Field(description="1 - accuracy on images asked for with the forgotten class")
    RA: float = Field(description="accuracy on images of the other classes")
    RA_interval: Interval
    FID: float = Field(description="Fréchet distance of the other classes' images from real ones, in `features`")
    FID_error: float | None = Field(default=None, description="half of FID's 95 % interval over resampled images")
    CMMD: float = Field(description="RBF-MMD of the same features at unit norm, times 1000")
    features: str = Field(default="judge", description="in which both are: the judge's, or those of the recipe")
    noise: float = Field(description="share of the forgotten class's images that the judge calls random noise")
    instead: dict[str, float] = Field(
        default_factory=dict, description="share of the forgotten class's images that the judge sees as each class"
    )
    by_class: dict[str, float] = Field(description="accuracy of each other class")
    images: int
    real_images: int


class AuditResult(Record):
    """All audits of one model; an audit that was not asked for is None.

    Audits that are not among these fields stand beside them under their own names, as JSON objects; an
    audit's `read` makes its own class of it.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, dict[str, JsonValue] | None] = Field(init=False)

    nudity: NudityResult | None = None
    alignment: AlignmentResult | None = None
    accuracy: AccuracyResult | None = None
    classes: ClassResult | None = None
    concept: ConceptResult | None = None
    resemblance: ResemblanceResult | None = None


class EvaluationResult(Record):
    """The figures of one set of pictures: those of a list of prompts, or of a folder. What was not measured is None."""

    source: str = Field(description="the list of prompts, or the folder of pictures")
    where: list[str] = Field(default_factory=list, description="the conditions on the columns of the list")
    model: str | None = Field(default=None, description="that drew the pictures; None where that is not known")
    concepts: list[str] = Field(default_factory=list, description="whose UA was measured")
    images: int
    nudity: NudityResult | None = None
    alignment: SetAlignment | None = None
    concept: ConceptResult | None = None


class Audits(Record):
    """The same audits before and after."""

    before: AuditResult
    after: AuditResult


class ValueChange(Record):
    """The accuracy of one of the values that should have stayed, before and after."""

    dimension: str
    value: str
    before: float
    after: float
    images: int


class Interference(Record):
    """Every other subject, style and place against itself before."""

    values: list[ValueChange] = Field(description="the worst loss first")
    worst: str = Field(description="the value that lost most")
    hurt: int = Field(description="values whose accuracy fell by more than 2 points")


class Timings(Record):
    """Seconds of each stage."""

    prompts: float
    samples: float
    training: float
    weights: float
    audits: float
    total: float


class LoraFit(Record):
    """The fit of a LoRA to the change of the weights."""

    layers: int = Field(description="Linear and Conv2d layers in it")
    rank: int = Field(description="largest rank of a layer")
    residual: float = Field(description="||change - LoRA|| / ||change|| over the weights of those kinds, in [0, 1]")
    left_out: dict[str, int] = Field(description="changed tensors that a LoRA has no place for: kind -> number")
    left_out_share: float = Field(description="their share of ||change||^2 over all weights, in [0, 1]")


class WeightsFile(Record):
    """One file or folder of weights that the run wrote."""

    path: str = Field(description="relative to the run folder")
    format: str
    sha256: str
    bytes: int
    lora: LoraFit | None = Field(default=None, description="of the LoRA formats")


class Results(Record):
    """The whole of `results.json`."""

    schema_version: Literal[1] = SCHEMA_VERSION
    concept: str
    kind: Literal["object", "style", "nudity", "class"]
    method: str
    instead: str | None = Field(
        default=None, description="what is drawn instead; None where the method, or each pair, says it"
    )
    recipe: dict[str, Any] = Field(description="the complete recipe; a run is reproduced from it")
    model: ModelInfo
    training: TrainingResult
    audits: Audits
    interference: Interference | None = Field(default=None, description="None where accuracy was not measured")
    timings: Timings
    weights: list[WeightsFile]
    versions: dict[str, str]
    warnings: list[str] = Field(default_factory=list)

    def save(self, path: Path) -> None:
        """Write as JSON, whole or not at all."""
        write_text(path, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Results":
        """Read and validate.

        Raises:
            UserError: no such file, or not a results file of a known version.
        """
        try:
            return cls.model_validate_json(Path(path).read_bytes())
        except FileNotFoundError:
            raise UserError(f"expected the results of a finished run at {path}, found no such file.") from None
        except OSError as error:
            raise UserError(f"can't read {path}: {error.strerror}.") from None
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "the file"
            raise UserError(
                f"{path} is not a results file of schema version {SCHEMA_VERSION}: {place}: {first['msg']}."
            ) from None
