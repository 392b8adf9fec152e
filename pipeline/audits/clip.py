"""CLIP through open_clip.

The published alignment scores of Ko et al. 2024 were computed with open_clip's *training*
transform, which crops at random: `transform="paper"` does the same, seeded. "validation" is the
transform that CLIP is meant to be used with.
"""

import difflib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from PIL import Image
from torch import Tensor

from ..schema.choices import ImageTransform
from ..support.errors import MissingExtra, UserError, given
from ..support.numbers import whole
from ..support.places import user_path
from .images import Images, in_parts

BUNDLED_JUDGE = Path(__file__).parents[2] / "assets" / "judge"
"""Folder of the bundled model "tiny-canvas"."""

PAPER_CLIP = "ViT-B-32/laion2b_s34b_b79k"
"""The model behind the alignment scores of Ko et al. 2024."""

_LOCAL = "local-dir:"
_HUB = "hf-hub:"
_NAMES = f"'tiny-canvas', 'architecture/pretrained' such as {PAPER_CLIP!r}, '{_HUB}owner/name', or a folder"


class ClipModel:
    """An open_clip model with its tokenizer and its two image transforms; made by `load`.

    Attributes:
        name: what it was loaded by.
        module: the open_clip model, float32, in evaluation mode.
    """

    def __init__(
        self,
        name: str,
        module: Any,
        tokenizer: Callable[[list[str]], Tensor],
        transforms: Mapping[ImageTransform, Callable[[Image.Image], Tensor]],
        device: torch.device,
    ) -> None:
        self.name = name
        self.module = module
        self._tokenizer = tokenizer
        self._transforms = transforms
        self._device = device

    @classmethod
    def load(cls, name: str, device: str | torch.device = "cpu") -> "ClipModel":
        """Load a model; its weights are computed in float32 whatever they are stored as.

        Args:
            name: "tiny-canvas" (bundled), "architecture/pretrained" as open_clip lists them,
                "hf-hub:owner/name", or a folder with `open_clip_config.json` and weights
                (also as "local-dir:<path>").
            device: where it computes.

        Raises:
            MissingExtra: open_clip is not installed.
            UserError: unknown name, or weights that are not here and can't be fetched.
        """
        if not isinstance(name, str):
            raise UserError(f"expected a CLIP model as {_NAMES}, got {given(name)}.")
        open_clip = _open_clip()
        from open_clip.transform import PreprocessCfg, image_transform_v2

        source, pretrained = _resolve(name, open_clip)
        try:
            with _root_logger_kept():
                module, validation = open_clip.create_model_from_pretrained(
                    source, pretrained=pretrained, precision="fp32", device=device
                )
                tokenizer = open_clip.get_tokenizer(source)
        except Exception as error:  # each way of fetching weights has its own family of errors
            raise UserError(_cannot_load(name, source, error)) from error
        training = image_transform_v2(PreprocessCfg(**module.visual.preprocess_cfg), is_train=True)
        module.eval().requires_grad_(False)
        return cls(name, module, tokenizer, {"validation": validation, "paper": training}, torch.device(device))

    @torch.no_grad()
    def encode_images(
        self,
        images: Images,
        batch_size: int = 64,
        transform: ImageTransform = "validation",
        seed: int = 0,
        advance: Callable[..., None] | None = None,
    ) -> Tensor:
        """Features of images.

        Args:
            images: see `to_uint8`; any size, the transform resizes and crops.
            batch_size: images that go through the network together.
            transform: "validation", or "paper" for the random crops of open_clip's training.
            seed: of the random crops.
            advance: called with the number of images of each batch.

        Returns:
            Unit-norm features, float32 on the CPU, shape (N, D).
        """
        whole("batch_size", batch_size, 1)
        prepare = self._transforms[transform]
        features = []
        with torch.random.fork_rng(devices=[]):  # torchvision draws its crops from the global state
            torch.manual_seed(seed)
            for pixels in in_parts(images, batch_size):
                batch = [prepare(Image.fromarray(one)) for one in pixels]
                encoded = self.module.encode_image(torch.stack(batch).to(self._device))
                features.append(F.normalize(encoded.float(), dim=-1).cpu())
                if advance is not None:
                    advance(len(batch))
        return torch.cat(features)

    @torch.no_grad()
    def encode_texts(self, prompts: Sequence[str], batch_size: int = 256) -> Tensor:
        """Features of prompts; what exceeds the model's context is cut off.

        Args:
            prompts: at least one.
            batch_size: prompts that go through the network together.

        Returns:
            Unit-norm features, float32 on the CPU, shape (N, D).
        """
        if isinstance(prompts, str) or not len(prompts):
            raise UserError(f"expected a list of at least one prompt, got {prompts!r}.")
        whole("batch_size", batch_size, 1)
        features = []
        for start in range(0, len(prompts), batch_size):
            tokens = self._tokenizer(list(prompts[start : start + batch_size]))
            features.append(F.normalize(self.module.encode_text(tokens.to(self._device)).float(), dim=-1).cpu())
        return torch.cat(features)


def check_clip(model: ClipModel) -> ClipModel:
    """Give a model that audits can ask.

    Raises:
        UserError: something else.
    """
    if not callable(getattr(model, "encode_images", None)):
        raise UserError(f"expected a CLIP model, got {given(model)}. `ClipModel.load(name)` gives one.")
    return model


def check_clip_name(name: str) -> list[str]:
    """Refuse a name that `ClipModel.load` can't load, without loading it; gives a warning of a download.

    Raises:
        MissingExtra: open_clip is not installed.
        UserError: an unknown name, a folder without a model, or weights that are not here and can't be fetched.
    """
    open_clip = _open_clip()
    source, pretrained = _resolve(name, open_clip)
    if source.startswith(_LOCAL):
        folder = Path(source.removeprefix(_LOCAL))
        if not _weights_in(folder):
            raise UserError(f"expected a CLIP model with its weights in {folder}, found none. Check the path.")
        return []
    described: dict[str, str] = open_clip.get_pretrained_cfg(source, pretrained) if pretrained else {}
    repo = source.removeprefix(_HUB) if source.startswith(_HUB) else described.get("hf_hub", "").rpartition("/")[0]
    if _is_cached(repo, described.get("url", "")):
        return []
    if repo and constants.HF_HUB_OFFLINE:
        raise UserError(
            f"the CLIP model {name!r} is not in the local cache, and HF_HUB_OFFLINE forbids to fetch it. Fetch it "
            "once, give a folder that holds it, or leave the alignment out."
        )
    return [f"the CLIP model {name!r} is not in the local cache: it will be downloaded when the audit begins."]


def _is_cached(repo: str, url: str) -> bool:
    """Tell whether weights are where open_clip looks for them before it fetches them."""
    if not repo:
        return (Path.home() / ".cache" / "clip" / url.rpartition("/")[2]).is_file()
    try:
        return _weights_in(Path(snapshot_download(repo, local_files_only=True)))
    except (LocalEntryNotFoundError, HFValidationError):
        return False


def _weights_in(folder: Path) -> bool:
    return any(file.suffix in (".safetensors", ".bin", ".pt", ".pth") for file in folder.iterdir())


def _open_clip() -> Any:
    try:
        import open_clip
    except ModuleNotFoundError:
        raise MissingExtra("open_clip_torch", "clip", "CLIP alignment") from None
    return open_clip


@contextmanager
def _root_logger_kept() -> Iterator[None]:
    """Keep open_clip, which logs to the root logger, from configuring it for the whole process."""
    root, placeholder = logging.getLogger(), logging.NullHandler()
    root.addHandler(placeholder)
    try:
        yield
    finally:
        root.removeHandler(placeholder)


def _resolve(name: str, open_clip: Any) -> tuple[str, str | None]:
    """Give open_clip's two names, (model, pretrained), for one of ours."""
    if not name.strip():
        raise UserError(f"expected a CLIP model as {_NAMES}, got {name!r}.")
    if name.startswith(_HUB):
        return name, None
    folder = BUNDLED_JUDGE if name == "tiny-canvas" else user_path(name.removeprefix(_LOCAL))
    architecture, slash, pretrained = name.partition("/")
    known = slash and architecture in open_clip.list_models()  # such a name wins over a folder that is called so
    if name == "tiny-canvas" or name.startswith(_LOCAL) or (folder.is_dir() and not known):
        if not (folder / "open_clip_config.json").is_file():
            remedy = "Check the path." if folder != BUNDLED_JUDGE else "Reinstall turpentine: assets are missing."
            raise UserError(f"expected a CLIP model with open_clip_config.json in {folder}, found none. {remedy}")
        return f"{_LOCAL}{folder}", None
    if not known:
        close = difflib.get_close_matches(architecture, open_clip.list_models(), n=3)
        tags = _tags(open_clip, architecture)
        raise UserError(
            f"expected a CLIP model as {_NAMES}, got {name!r}."
            + (f" Did you mean {' or '.join(close)}?" if close else "")
            + (f" Weights of {architecture}: {', '.join(tags)}." if tags and not slash else "")
        )
    tags = _tags(open_clip, architecture)
    if pretrained not in tags:
        raise UserError(f"expected weights of {architecture} that open_clip knows, {tags}, got {pretrained!r}.")
    return architecture, pretrained


def _tags(open_clip: Any, architecture: str) -> list[str]:
    return open_clip.list_pretrained_tags_by_model(architecture)


def _cannot_load(name: str, source: str, error: Exception) -> str:
    reason = f"{type(error).__name__}: {error}".strip().splitlines()[0].rstrip(".")
    if source.startswith(_LOCAL):
        return f"can't load the CLIP model {name!r}: {reason}. The folder needs its config, weights and tokenizer."
    return (
        f"can't load the CLIP model {name!r}: {reason}. It is neither in the local cache nor could it be fetched: "
        "connect once, or give a folder that holds the model, or use 'tiny-canvas' for images of that world."
    )
