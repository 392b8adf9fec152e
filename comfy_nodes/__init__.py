"""The nodes of Turpentine for ComfyUI. Importing this loads no library; a node loads what it needs when it is asked.

Every `Node` class of the modules below is offered, under its class name after "Turpentine".
"""

from . import audit_nodes, image_nodes, model_nodes, prompt_sets, unlearn_concept
from .node import Node

_MODULES = (prompt_sets, model_nodes, unlearn_concept, image_nodes, audit_nodes)

NODE_CLASS_MAPPINGS: dict[str, type[Node]] = {
    f"Turpentine{node.__name__}": node
    for module in _MODULES
    for node in vars(module).values()
    if isinstance(node, type) and issubclass(node, Node) and node.__module__ == module.__name__
}
NODE_DISPLAY_NAME_MAPPINGS = {key: f"{node.TITLE} (Turpentine)" for key, node in NODE_CLASS_MAPPINGS.items()}
WEB_DIRECTORY = "./comfy_nodes/web"
"""Where the help pages are, relative to the folder that ComfyUI loads."""
