"""`delta`: the whole difference, norms and biases included, in the form that ComfyUI's LoRA loader takes.

`lora_unet_<layer>.diff` is added to the layer's weight and `.diff_b` to its bias, both times the
strength; what is neither goes as `diffusion_model.<tensor>.diff`. The names are the original layout's. In float32
it also keeps what adding the change, or taking it back, would miss (`rest`), which other programs leave alone.
"""

from torch import Tensor

from ...models import Denoiser
from ...support.errors import UserError
from ..format import Claim, Format, Keys
from ..job import Job, Written
from ..layouts import denoiser_layout
from ..names import kohya_name
from ..provenance import save_tensors
from ..rest import BACK, FORTH, REST, rest_of


def delta_key(original: str) -> str:
    """The key under which the difference of an original tensor is kept.

    >>> delta_key("out.2.weight"), delta_key("out.2.bias")
    ('lora_unet_out_2.diff', 'lora_unet_out_2.diff_b')
    >>> delta_key("norm.scale")
    'diffusion_model.norm.scale.diff'
    """
    layer, _, last = original.rpartition(".")
    ending = {"weight": "diff", "bias": "diff_b"}.get(last)
    return f"{kohya_name(layer)}.{ending}" if ending else f"diffusion_model.{original}.diff"


def write_delta(job: Job) -> Written:
    """Write `{name}-delta.safetensors`; tensors that did not change are left out.

    Added to the weights before it in float32, a float32 file gives the unlearned ones bit for bit; taken back from
    those, the ones before.

    Raises:
        UserError: nothing changed, or a network without an original layout.
    """
    tensors: dict[str, Tensor] = {}
    difference = job.difference
    for original, entry in denoiser_layout(job.denoiser.module).items():
        change = entry.to_original({name: difference[name] for name in entry.sources})
        if change.any():
            tensors[delta_key(original)] = job.cast(change)
    if not tensors:
        raise UserError("there is no difference to write: the weights are the base's.")
    if job.dtype == "fp32":
        for way in (BACK, FORTH):
            tensors |= rest_of(difference.after, difference.before, way)
    path = job.folder / f"{job.name}-delta.safetensors"
    save_tensors(tensors, path, job.header("delta"))
    return Written(path, [path])


def check_delta(denoiser: Denoiser) -> None:
    """Refuse a network that has no original layout.

    Raises:
        UserError: it has none.
    """
    denoiser_layout(denoiser.module)


def read_delta(keys: Keys) -> Claim:
    """Each tensor is added to the one of the original layout that it is named after."""
    places = {delta_key(name): entry for name, entry in keys.original.items()}
    names = keys.names & set(places)
    rest = keys.names & REST
    return names | rest, (change for name in sorted(names) for change in keys.spread(places[name], keys.get(name)))


FORMAT = Format(write_delta, rank=4, of_difference=True, check=check_delta, read=read_delta)
