"""LoRA adapters that a pipeline carries: what they do at this moment goes into the weights, nothing else."""

from collections.abc import Mapping
from typing import Any

from torch import nn


def fuse_adapters(pipeline: Any, networks: Mapping[str, nn.Module]) -> list[str]:
    """Fold into each layer's weights what its adapters do as they are switched and scaled, and take all of them off.

    Args:
        pipeline: for its own records of its adapters.
        networks: its components with weights.

    Returns:
        What the user should know: which adapters were fused, and which were switched off and are left out.
    """
    carrying = [part for part in networks.values() if getattr(part, "peft_config", None)]
    if not carrying:
        return []
    from diffusers.utils.peft_utils import recurse_remove_peft_layers  # it needs peft, which is optional

    carried: set[str] = {name for part in carrying for name in _configs(part)}
    used: set[str] = {name for part in carrying for name in _fused(part)}
    if hasattr(pipeline, "unload_lora_weights"):
        pipeline.unload_lora_weights()
    for part in carrying:
        recurse_remove_peft_layers(part)
        if _configs(part):  # the pipeline knows no adapters on this component
            del part.peft_config
            part.__dict__["_hf_peft_config_loaded"] = False
    said = []
    if used:
        said.append(
            f"the model carried LoRA adapters ({', '.join(sorted(used))}); they were fused into its weights before "
            "training."
        )
    if unused := carried - used:
        said.append(
            f"the model carried LoRA adapters that were switched off ({', '.join(sorted(unused))}); they were taken "
            "off, and are not in its weights."
        )
    return said


def _configs(part: Any) -> dict[str, Any]:
    return getattr(part, "peft_config", None) or {}


def _fused(part: nn.Module) -> set[str]:
    """Merge the active adapters of every layer, and take out those of layers that are switched off."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    used: set[str] = set()
    for layer in part.modules():
        if not isinstance(layer, BaseTunerLayer):
            continue
        if not layer.disable_adapters:
            if not layer.merged:  # where some are merged, peft leaves the other ones out of what the layer does
                layer.merge()
            used |= {*layer.merged_adapters}
        elif layer.merged:
            layer.unmerge()
    return used
