"""One ComfyUI server for all tests of the node pack. Set COMFYUI_DIR to a checkout, COMFYUI_PYTHON to its Python."""

import os
import sys
from pathlib import Path

import pytest
import turpentine

from .comfyui import ComfyUI


@pytest.fixture(scope="session")
def comfy_base(tmp_path_factory):
    """A base folder for ComfyUI with a tiny checkpoint of each family."""
    if not os.environ.get("COMFYUI_DIR"):
        pytest.skip("needs ComfyUI: set COMFYUI_DIR to a checkout")
    from . import comfy_checkpoints

    base = tmp_path_factory.mktemp("comfyui")
    folder = base / "models" / "checkpoints"
    folder.mkdir(parents=True)
    for family in comfy_checkpoints.FAMILIES:
        getattr(comfy_checkpoints, f"write_{family}")(folder / f"{family}.safetensors")
    for name in comfy_checkpoints.STAND_INS:
        (folder / f"{name}.safetensors").symlink_to("sd15.safetensors")
    return base


@pytest.fixture(scope="session")
def start_comfy(comfy_base):
    """Gives a new server on the base folder, to be started with `with`."""
    pack = Path(turpentine.__file__).parent
    python = os.environ.get("COMFYUI_PYTHON", sys.executable)
    return lambda: ComfyUI(Path(os.environ["COMFYUI_DIR"]), python, comfy_base, pack)


@pytest.fixture(scope="session")
def comfy(start_comfy):
    """A running server."""
    with start_comfy() as server:
        yield server
