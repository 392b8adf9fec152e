"""The weights of a run: their name, their header and the job of their writers."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ..models import Denoiser
from ..schema.recipe import OutputSection, Recipe
from ..schema.resolve import Setting
from ..schema.results import AuditResult
from ..support.files import file_name
from ..support.progress import Progress
from ..weights import Adapter, BaseHashes, Job, base_hashes, header


def run_job(
    denoiser: Denoiser,
    run: Path,
    setting: Setting,
    output: OutputSection,
    hashes: BaseHashes,
    after: AuditResult,
    base: Mapping[str, Tensor] | None,
    trained: Adapter | None,
    progress: Progress,
) -> Job:
    """The weights of a run as their writers take them.

    Args:
        denoiser: the unlearned model.
        run: the run folder.
        setting: what was done.
        output: number format and LoRA rank; not always those of the recipe.
        hashes: of the weights before.
        after: the figures that the header tells.
        base: the weights before, where a format needs them.
        trained: the LoRA, if one was trained.
        progress: told of long work.
    """
    return Job(
        denoiser,
        run / "weights",
        weights_name(setting.recipe),
        output.dtype,
        run_header(denoiser, setting, hashes, after),
        base=base,
        rank=output.lora_rank,
        energy=output.lora_energy,
        trained=trained,
        progress=progress,
    )


def weights_name(recipe: Recipe) -> str:
    """The stem of the names of a run's weights files."""
    model = Path(recipe.model).name.removesuffix(".safetensors")
    return file_name(f"{model}-without-{recipe.concept}".lower())


def run_header(
    denoiser: Denoiser,
    setting: Setting,
    base: BaseHashes,
    after: AuditResult | None,
    result: BaseHashes | None = None,
) -> dict[str, str]:
    """The header of a run's weights.

    Args:
        denoiser: the unlearned model.
        setting: what was done.
        base: hashes of the weights before.
        after: the figures that the header tells.
        result: hashes of the weights afterwards, if the denoiser doesn't hold them.
    """
    recipe = setting.recipe
    return header(
        denoiser,
        base,
        result or base_hashes(denoiser.module.state_dict()),
        model=recipe.model,
        lineage=setting.lineage,
        concepts=recipe.concepts,
        method=recipe.method.name,
        seed=recipe.seed,
        recipe=recipe.to_yaml(),
        figures=after.model_dump(mode="json", exclude_none=True) if after else {},
    )
