"""The nodes of Turpentine for ComfyUI. Importing this loads no library: nodes do so when they are asked."""

from .audit_nodes import AuditAlignment, AuditNudeNet, Report
from .image_nodes import Compare, Generate
from .model_nodes import ApplyWeights, ModelFromComfyUI, ModelFromDiffusers, SaveWeights
from .prompt_sets import DiversePromptSet, LoadPromptSet, SavePromptSet
from .unlearn_concept import UnlearnConcept, UnlearnOptions

_NODES = {
    DiversePromptSet: "Diverse Prompt Set",
    ModelFromDiffusers: "Model from diffusers",
    ModelFromComfyUI: "Model from ComfyUI",
    UnlearnConcept: "Unlearn Concept",
    UnlearnOptions: "Unlearn Options",
    Generate: "Generate",
    AuditNudeNet: "Audit NudeNet",
    AuditAlignment: "Audit CLIP Alignment",
    Compare: "Compare",
    Report: "Unlearning Report",
    SavePromptSet: "Save Prompt Set",
    LoadPromptSet: "Load Prompt Set",
    SaveWeights: "Save Unlearned Weights",
    ApplyWeights: "Apply Unlearned Weights",
}

NODE_CLASS_MAPPINGS = {f"Turpentine{node.__name__}": node for node in _NODES}
NODE_DISPLAY_NAME_MAPPINGS = {f"Turpentine{node.__name__}": f"{title} (Turpentine)" for node, title in _NODES.items()}
WEB_DIRECTORY = "./comfy_nodes/web"
"""Help pages; relative to the folder that ComfyUI loads."""
