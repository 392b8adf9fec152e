"""A bundled model says in its folder which one it is, so that nothing must be concluded from the folder's name."""

import json
from pathlib import Path

from ..models.lineage import ORIGIN, model_index
from ..support.files import write_text


def mark_origin(folder: Path, name: str) -> None:
    """Write the model's name into the `model_index.json` of a folder that `save_pretrained` wrote."""
    found = {**model_index(folder), ORIGIN: name}
    write_text(folder / "model_index.json", json.dumps(found, indent=2, sort_keys=True) + "\n")
