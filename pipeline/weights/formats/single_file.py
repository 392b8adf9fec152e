"""`single_file`: the complete checkpoint in the layout that the model was first published in."""

from collections.abc import Iterator

from torch import Tensor, nn

from ...models import ADAPTERS, Denoiser
from ...models.family import Family
from ...support.errors import UserError
from ..format import Format
from ..job import Job, Written
from ..layouts import Layout, component_layout
from ..provenance import save_tensors


def write_single_file(job: Job) -> Written:
    """Write `{name}-checkpoint.safetensors`.

    Raises:
        UserError: see `check_single_file`.
    """
    path = job.folder / f"{job.name}-checkpoint.safetensors"
    tensors = {name: job.cast(value) for name, value in checkpoint_tensors(job.denoiser).items()}
    save_tensors(tensors, path, job.header("single_file", **{"modelspec.implementation": "original"}))
    return Written(path, [path])


def check_single_file(denoiser: Denoiser) -> None:
    """Refuse what can't be written.

    Raises:
        UserError: a family, autoencoder or layer that no original checkpoint has a place for.
    """
    for _ in _parts(denoiser):
        pass


def checkpoint_tensors(denoiser: Denoiser) -> dict[str, Tensor]:
    """Every tensor of a model under its original name.

    Raises:
        UserError: see `check_single_file`.
    """
    tensors: dict[str, Tensor] = {}
    for module, prefix, layout in _parts(denoiser):
        state = module.state_dict()
        tensors |= {prefix + name: entry.to_original(state) for name, entry in layout.items()}
    return tensors | denoiser.checkpoint_marks(denoiser.pipeline)


def _parts(denoiser: Denoiser) -> Iterator[tuple[nn.Module, str, Layout]]:
    places = denoiser.checkpoint(denoiser.pipeline)
    if not places:
        known = ", ".join(each.pipeline_class.__name__ for each in ADAPTERS if each.places)
        raise UserError(
            f"single_file knows the checkpoints of {known}; got a {type(denoiser.pipeline).__name__}. Choose the "
            "formats diffusers or denoiser."
        )
    for component, place in places.items():
        module = getattr(denoiser.pipeline, component, None)
        if module is not None:
            yield module, place.prefix, component_layout(module, place.names)


def load_single_file(path: str, family: type[Family] | None) -> str:
    """With the pipeline class of the family, which can't be told from the file."""
    if family is None or "vae" not in family.places:
        return f"# {path} is a single file: load it with from_single_file of the base model's class."
    kind = family.pipeline_class.__name__
    return f"from diffusers import {kind}\n\npipeline = {kind}.from_single_file({path})"


FORMAT = Format(write_single_file, rank=1, check=check_single_file, load=load_single_file)
