"""The base of a LoRA, or of a part of the weights, in fewer bits than it came: from the first image to the last."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..maths.parameters import select_parameters
from ..models import Denoiser
from ..models.frozen import frozen_copy, merge
from ..schema.recipe import TrainingSection
from .lora import factors_in


@contextmanager
def frozen_base(denoiser: Denoiser, spec: TrainingSection) -> Iterator[None]:
    """A copy of the network with its frozen weights in `denoiser.stages.base`, in the network's place.

    Meanwhile the network itself waits on the CPU as it came. After the block it holds what was trained: worked in in
    float32, so that no step is rounded away.

    Args:
        denoiser: the model.
        spec: which weights train.
    """
    if denoiser.stages.base == "fp32":
        yield
        return
    pipeline, component, network = denoiser.pipeline, denoiser.component, denoiser.module
    trained = {} if spec.parameters == "lora" else select_parameters(network, spec.parameters)
    copy = frozen_copy(network, trained, denoiser.stages)
    network.to("cpu")
    setattr(pipeline, component, copy)
    try:
        yield
    finally:
        layers = factors_in(copy)
        setattr(pipeline, component, network)
        with torch.no_grad():
            for name in trained:
                network.get_parameter(name).data = copy.get_parameter(name).detach().to("cpu", torch.float32)
            merge(network, {f"{name}.weight": factors.product() for name, factors in layers.items()})
