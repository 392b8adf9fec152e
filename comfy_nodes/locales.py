"""Write the nodes' names and descriptions for ComfyUI's menus: `python -m turpentine.comfy_nodes.locales`."""

import json
from pathlib import Path

from . import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

FILE = Path(__file__).parents[1] / "locales" / "en" / "nodeDefs.json"


def texts() -> str:
    """The names and descriptions of all nodes, in the JSON that ComfyUI reads."""
    entries = {
        key: {"display_name": NODE_DISPLAY_NAME_MAPPINGS[key], "description": node.DESCRIPTION}
        for key, node in sorted(NODE_CLASS_MAPPINGS.items())
    }
    return json.dumps(entries, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(texts(), encoding="utf-8")
