"""All calls to ComfyUI itself. Outside of ComfyUI, in tests and scripts, plain stand-ins answer.

Nothing of ComfyUI is imported before a node runs, and nothing at all if ComfyUI isn't running.
"""

import logging
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..pipeline.support.errors import Cancelled, UserError

_NAME = re.compile(r"[^\W_][\w .+-]*")


def running() -> bool:
    """Whether this process is ComfyUI's server."""
    return "folder_paths" in sys.modules and "comfy.model_management" in sys.modules


def output_folder(*parts: str) -> Path:
    """A folder below ComfyUI's output directory; outside of ComfyUI, below `output/`."""
    if running():
        import folder_paths

        return Path(folder_paths.get_output_directory(), *parts)
    return Path("output", *parts)


def input_folder() -> Path:
    """ComfyUI's input directory; outside of ComfyUI, `input/`."""
    if running():
        import folder_paths

        return Path(folder_paths.get_input_directory())
    return Path("input")


def model_folders(kind: str) -> list[Path]:
    """The folders with models of a kind: ComfyUI's own, then ours below its output directory."""
    folders = []
    if running():
        import folder_paths

        folders = [Path(folder) for folder in folder_paths.get_folder_paths(kind)]
    own = output_folder(kind)
    return folders if own in folders else [*folders, own]


def save_folder(kind: str) -> Path:
    """Make the folder for new models of a kind, and register it with ComfyUI's loaders."""
    folder = output_folder(kind)
    folder.mkdir(parents=True, exist_ok=True)
    if running():
        import folder_paths

        if str(folder) not in folder_paths.get_folder_paths(kind):
            folder_paths.add_model_folder_path(kind, str(folder))
    return folder


def safe_name(name: str) -> str:
    """Check that a name is a plain file name and can't lead to another folder.

    >>> safe_name(" sd15 without-cat ")
    'sd15 without-cat'

    Raises:
        UserError: the name is empty or too long, or has other characters than letters, digits, blanks and `. _ + -`.
    """
    from ..pipeline.support.files import NAME_BYTES

    name = name.strip()
    if len(name.encode()) > NAME_BYTES:
        raise UserError(
            f"expected a plain file name of at most {NAME_BYTES} bytes, got {len(name.encode())}: {name!r}."
        )
    if not _NAME.fullmatch(name):
        raise UserError(
            f"expected a plain file name of letters, digits, blanks and . _ + -, got {name!r}. Begin it with a letter "
            "or a digit."
        )
    return name


def compute_device() -> str:
    """The device that ComfyUI computes on; outside of ComfyUI, "auto"."""
    if running():
        import comfy.model_management

        return str(comfy.model_management.get_torch_device())
    return "auto"


def make_room() -> None:
    """Let ComfyUI unload its models from the device, because training needs the memory."""
    if running():
        import comfy.model_management

        comfy.model_management.unload_all_models()
        comfy.model_management.soft_empty_cache()


def blocked(message: str | None) -> Any:
    """An output that stops the nodes wired to it, with a message or silently; None outside of ComfyUI."""
    if running():
        from comfy_execution.graph_utils import ExecutionBlocker

        return ExecutionBlocker(message)
    return None


@contextmanager
def working() -> Iterator[None]:
    """Allow gradients inside, and turn our `Cancelled` into ComfyUI's own exception."""
    import torch

    with torch.inference_mode(False):
        try:
            yield
        except Cancelled:
            if not running():
                raise
            import comfy.model_management

            raise comfy.model_management.InterruptProcessingException from None
        finally:
            if running():
                import comfy.model_management

                comfy.model_management.soft_empty_cache()


class NodeProgress:
    """`Progress` for the running node: its bar, its preview, and ComfyUI's cancel button.

    Args:
        picture: gives a PIL image to show during the work, or None for nothing new.
    """

    def __init__(self, picture: Callable[[], Any] | None = None) -> None:
        self.picture = picture

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Callable[..., None]]:
        """See `Progress`."""
        if not running():
            yield lambda units=1, note="": None
            return
        import comfy.model_management
        import comfy.utils

        bar, done = comfy.utils.ProgressBar(total), 0

        def advance(units: int = 1, note: str = "") -> None:
            nonlocal done
            done += units
            image = self.picture() if self.picture and units else None
            try:
                bar.update_absolute(done, total, ("JPEG", image, 512) if image else None)
            except comfy.model_management.InterruptProcessingException:
                raise Cancelled("Stopped by ComfyUI.") from None

        yield advance

    def warn(self, text: str) -> None:
        """Write it to ComfyUI's log; the node's text repeats it."""
        logging.getLogger(__name__).warning(text)
