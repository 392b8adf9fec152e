"""The name and the header of a run's weights."""

from pathlib import Path

from ..models import Denoiser
from ..models.lineage import lineage_of
from ..schema.recipe import Recipe
from ..schema.results import AuditResult
from ..support.files import file_name
from ..weights import BaseHashes, header


def weights_name(recipe: Recipe) -> str:
    """The stem of the names of a run's weights files."""
    return file_name(f"{Path(recipe.model).name.removesuffix('.safetensors')}-without-{recipe.concept}").lower()


def run_header(denoiser: Denoiser, recipe: Recipe, base: BaseHashes, after: AuditResult | None) -> dict[str, str]:
    """The header of a run's weights.

    Args:
        denoiser: the unlearned model.
        recipe: what was done.
        base: hashes of the weights before.
        after: the figures that the header tells.
    """
    return header(
        denoiser,
        base,
        model=recipe.model,
        lineage=lineage_of(recipe.model),
        concepts=recipe.concepts,
        method=recipe.method.name,
        seed=recipe.seed,
        recipe=recipe.to_yaml(),
        figures=after.model_dump(mode="json", exclude_none=True) if after else {},
    )
