"""Turpentine removes a concept from a text-to-image diffusion model and leaves the rest as it was.

The public names load what they need when they are first used, so that `import turpentine` is light.
"""

from importlib import import_module
from typing import Any

from .pipeline.support.version import __version__

_PUBLIC = {
    "unlearn": "pipeline.api",
    "PromptSet": "pipeline.prompts",
    "SampleSet": "pipeline.data.samples",
    "Trainer": "pipeline.training.trainer",
    "Recipe": "pipeline.schema.recipe",
    "load_recipe": "pipeline.schema.defaults",
    "Results": "pipeline.schema.results",
    "load_denoiser": "pipeline.models",
    "wrap_pipeline": "pipeline.models",
    "build_method": "pipeline.methods",
    "NudityAudit": "pipeline.audits",
    "AlignmentAudit": "pipeline.audits",
    "AccuracyAudit": "pipeline.audits",
    "ConceptAudit": "pipeline.audits",
    "write_report": "pipeline.report",
    "apply": "pipeline.weights.apply",
    "remove": "pipeline.weights.apply",
    "undo": "pipeline.weights.undo",
    "UserError": "pipeline.support.errors",
    "Cancelled": "pipeline.support.errors",
}
_MODULES = {"modular": "pipeline.modular"}

__all__ = ["__version__", *_PUBLIC, *_MODULES]

_COMFYUI = ("NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS", "WEB_DIRECTORY")
"""Names that ComfyUI asks a folder in its `custom_nodes` for."""


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
    if name in _MODULES:
        return import_module(f".{_MODULES[name]}", __name__)
    if name in _COMFYUI:
        return getattr(import_module(".comfy_nodes", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
