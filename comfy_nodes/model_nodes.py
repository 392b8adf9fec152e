"""Nodes that load models, apply weights to them and save them: TURPENTINE_MODEL."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from ..pipeline.support.errors import UserError
from . import host
from .model import TYPE, Model
from .node import Node, shown
from .saving import KINDS, header_of, native_model, save_model

_OTHER = "other"


class ModelFromDiffusers(Node):
    """Loads a bundled model, a diffusers folder, a hub id, or a single file."""

    TITLE = "Model from diffusers"
    DESCRIPTION = "Loads a diffusers model. The bundled tiny-canvas needs no download and no GPU."
    SEARCH_ALIASES = ("diffusers loader", "load diffusers", "tiny-canvas", "turpentine model")
    RETURN_TYPES = (TYPE,)
    RETURN_NAMES = ("model",)
    OUTPUT_TOOLTIPS = ("The model, for Unlearn Concept, Generate and Apply Unlearned Weights.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The bundled models, the folders that ComfyUI knows, and a path."""
        from ..pipeline.models import BUNDLED

        bundled = [name for name in BUNDLED if name != "digits"]  # digits is conditioned on classes, not on prompts
        return {
            "required": {
                "model": (
                    [*bundled, *sorted(_diffusers_folders()), _OTHER],
                    {
                        "tooltip": "The bundled models, then the folders in ComfyUI's models/diffusers and "
                        f"output/diffusers. {_OTHER}: the model at `path`. For a checkpoint use Load Checkpoint "
                        "and Model from ComfyUI."
                    },
                ),
            },
            "optional": {
                "path": (
                    "STRING",
                    {
                        "default": "",
                        "tooltip": f"With model {_OTHER}: a diffusers folder, an id on the hub, or a .safetensors "
                        "checkpoint.",
                    },
                ),
                "allow_download": (
                    "BOOLEAN",
                    {
                        "default": False,
                        "tooltip": "Download a hub id that is not in the local cache, or the configs of a single file.",
                    },
                ),
                "config_folder": (
                    "STRING",
                    {
                        "default": "",
                        "tooltip": "With a .safetensors checkpoint in `path`: a diffusers folder of the same "
                        "architecture, for its configs and tokenizers.",
                    },
                ),
            },
        }

    @classmethod
    def VALIDATE_INPUTS(cls, model: str) -> bool | str:
        """Accept any name; folders come and go, so `work` looks for them."""
        return True

    def work(  # noqa: D102
        self, model: str, path: str = "", allow_download: bool = False, config_folder: str = ""
    ) -> Any:
        from ..pipeline.models import BUNDLED, load_denoiser

        if model == _OTHER:
            source = path.strip()
            if not source:
                raise UserError(
                    "expected a diffusers folder, a hub id or a checkpoint in `path`, got nothing. Fill it in, or "
                    f"choose a model other than {_OTHER!r}."
                )
        elif model in BUNDLED:
            source = model
        else:
            folder = _diffusers_folders().get(model)
            if folder is None:
                raise UserError(
                    f"expected a folder in ComfyUI's diffusers folders, got {model!r}, which is gone. Press R to "
                    "refresh the list and choose another model."
                )
            source = str(folder)
        here, configs = Path(source).expanduser(), config_folder.strip() or None
        if here.is_file() and not configs and not allow_download:
            raise UserError(
                f"expected configs and tokenizers with {here.name}, got a single file without them. Load it with Load "
                "Checkpoint and Model from ComfyUI, give config_folder, or set allow_download to fetch them."
            )
        if source not in BUNDLED and not here.exists() and not allow_download:
            source = _cached(source)
        return (Model(load_denoiser(source, "cpu", configs)),)


class ModelFromComfyUI(Node):
    """Takes the MODEL, CLIP and VAE of a loader, with LoRAs and other patches on the MODEL."""

    TITLE = "Model from ComfyUI"
    DESCRIPTION = (
        "Takes the MODEL, CLIP and VAE of a loader, with the LoRAs on them, so that they can be unlearned. Works with "
        "Stable Diffusion 1.x, 2.x, XL and 3.x."
    )
    SEARCH_ALIASES = ("checkpoint to turpentine", "bridge", "convert model", "turpentine model")
    RETURN_TYPES = (TYPE,)
    RETURN_NAMES = ("model",)
    OUTPUT_TOOLTIPS = (
        "The model, for Unlearn Concept, Generate and Apply Unlearned Weights. The incoming MODEL stays as it is.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The outputs of a checkpoint loader, a name and an image size."""
        return {
            "required": {
                "model": ("MODEL", {"tooltip": "From Load Checkpoint, Load Diffusion Model or Load LoRA."}),
                "clip": ("CLIP", {"tooltip": "The text encoder of this MODEL."}),
                "vae": (
                    "VAE",
                    {"tooltip": "The autoencoder of this MODEL. Only pictures to look at need it; training doesn't."},
                ),
                "name": (
                    "STRING",
                    {"default": "checkpoint", "tooltip": "The model's name in reports and file names."},
                ),
                "image_size": (
                    "INT",
                    {
                        "default": 512,
                        "min": 64,
                        "max": 4096,
                        "step": 64,
                        "tooltip": "Side in pixels of the pictures that it draws to train on: the size that the model "
                        "was made for.",
                    },
                ),
            }
        }

    def work(self, model: Any, clip: Any, vae: Any, name: str, image_size: int) -> Any:  # noqa: D102
        from .bridge import cross

        return (cross(model, clip, vae, host.safe_name(name), image_size),)


class ApplyWeights(Node):
    """Applies a saved LoRA, delta or UNet to a model at a strength."""

    TITLE = "Apply Unlearned Weights"
    DESCRIPTION = "Applies unlearned weights to a model at any strength: 0 is the model as it was, 1 the unlearned one."
    SEARCH_ALIASES = ("load unlearned", "apply delta", "unlearning strength", "apply lora")
    RETURN_TYPES = (TYPE, "MODEL")
    RETURN_NAMES = ("model", "MODEL")
    OUTPUT_TOOLTIPS = (
        "The model with these weights.",
        "The same as a MODEL for KSampler, if the model came from Model from ComfyUI.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """A model, a file and a strength."""
        return {
            "required": {
                "model": (TYPE, {"tooltip": "From Model from ComfyUI or Model from diffusers."}),
                "file": (
                    sorted(_weight_files()) or ["none found"],
                    {"tooltip": "A safetensors file in ComfyUI's loras or diffusion_models folders."},
                ),
                "strength": (
                    "FLOAT",
                    {
                        "default": 1.0,
                        "min": -10.0,
                        "max": 10.0,
                        "step": 0.05,
                        "tooltip": "0: the model as it was. 1: the unlearned model. Other values scale the change.",
                    },
                ),
                "any_base": (
                    "BOOLEAN",
                    {"default": False, "tooltip": "Apply the file even if it was made from another model's weights."},
                ),
            }
        }

    @classmethod
    def VALIDATE_INPUTS(cls, file: str) -> bool | str:
        """Accept any name; files come and go, so `work` looks for them."""
        return True

    def work(self, model: Model, file: str, strength: float, any_base: bool) -> Any:  # noqa: D102
        from ..pipeline.weights import snapshot
        from ..pipeline.weights.apply import apply, remove

        path = _weight_file(file)
        with model.borrowed(to_train=True) as (denoiser, _):
            apply(denoiser.pipeline, path, strength, any_base=any_base)
            weights = snapshot(denoiser.module)
            remove(denoiser.pipeline)
        changed = replace(model, weights=weights, applied=(path, strength), header=None)
        return (changed, native_model(changed))


class TakeBack(Node):
    """Takes the removal of a saved delta back."""

    TITLE = "Take Back"
    DESCRIPTION = (
        "Takes one removal back from an unlearned model: the concept returns and what else was removed stays removed. "
        "The last one is taken back bit for bit."
    )
    SEARCH_ALIASES = ("undo unlearning", "restore concept", "undo removal", "revert delta")
    RETURN_TYPES = (TYPE, "MODEL", "STRING")
    RETURN_NAMES = ("model", "MODEL", "report")
    OUTPUT_TOOLTIPS = (
        "The model in which the concept is back.",
        "The same as a MODEL for KSampler, if the model came from Model from ComfyUI.",
        "What is back, whether bit for bit, and what is still removed.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """A model and the file of the removal."""
        return {
            "required": {
                "model": (TYPE, {"tooltip": "A model from which the file's concept was removed."}),
                "file": (
                    sorted(_weight_files()) or ["none found"],
                    {
                        "tooltip": "The delta of that removal, saved by Turpentine, in ComfyUI's loras folder. A LoRA "
                        "works too, but not bit for bit."
                    },
                ),
                "any_base": (
                    "BOOLEAN",
                    {"default": False, "tooltip": "Go on even if nothing shows that the model holds this removal."},
                ),
            }
        }

    @classmethod
    def VALIDATE_INPUTS(cls, file: str) -> bool | str:
        """Accept any name; files come and go, so `work` looks for them."""
        return True

    def work(self, model: Model, file: str, any_base: bool) -> Any:  # noqa: D102
        from ..pipeline.weights import base_hashes, snapshot
        from ..pipeline.weights.apply import remove
        from ..pipeline.weights.provenance import undone_header
        from ..pipeline.weights.undo import Difference, take_back

        difference = Difference.of_file(_weight_file(file))
        with model.borrowed(to_train=True) as (denoiser, own):
            header = header_of(model, own)
            taken = take_back(denoiser.module, difference, header, any_base)
            weights = snapshot(denoiser.module)
            remove(denoiser.pipeline)
        told = undone_header(
            header or difference.metadata,
            model.denoiser.family,
            model.denoiser.name,
            taken.concepts,
            taken.lineage,
            base_hashes(weights),
        )
        changed = replace(model, weights=weights, run=None, applied=None, header=told)
        return (changed, native_model(changed), taken.told)


class SaveWeights(Node):
    """Writes unlearned weights into the folders of ComfyUI's own loaders."""

    TITLE = "Save Unlearned Weights"
    DESCRIPTION = "Writes unlearned weights into ComfyUI's folders. The file's header says how they were made."
    SEARCH_ALIASES = ("export weights", "save lora", "save checkpoint", "save delta", "safetensors")
    OUTPUT_NODE = True
    RETURN_TYPES = ("STRING",)
    RETURN_NAMES = ("path",)
    OUTPUT_TOOLTIPS = ("The path of the file or folder that was written.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """A model, a form, a name and a number format."""
        from ..pipeline.weights import DTYPES

        meanings = "; ".join(f"{name}: {kind.meaning} ({kind.folder}/)" for name, kind in KINDS.items())
        return {
            "required": {
                "model": (TYPE, {"tooltip": "From Unlearn Concept or Apply Unlearned Weights."}),
                "save_as": (list(KINDS), {"default": "delta", "tooltip": f"{meanings}."}),
                "name": (
                    "STRING",
                    {
                        "default": "",
                        "tooltip": "File name without its ending. Empty: named after the model and the concept.",
                    },
                ),
                "dtype": (
                    list(DTYPES),
                    {
                        "tooltip": "Number format on disk. With a model from Model from ComfyUI, diffusion_model and "
                        "checkpoint keep the format of the loaded model."
                    },
                ),
            }
        }

    def work(self, model: Model, save_as: str, name: str, dtype: str) -> Any:  # noqa: D102
        path = str(save_model(model, save_as, name, dtype))
        return shown(path, path)


def _diffusers_folders() -> dict[str, Path]:
    found = {}
    for folder in host.model_folders("diffusers"):
        for depth in ("*", "*/*", "*/*/*"):
            for index in folder.glob(f"{depth}/model_index.json"):
                found[index.parent.relative_to(folder).as_posix()] = index.parent
    return found


def _weight_files() -> dict[str, Path]:
    found: dict[str, Path] = {}
    for kind in ("loras", "diffusion_models"):
        for folder in host.model_folders(kind):
            found |= {f"{kind}/{p.relative_to(folder).as_posix()}": p for p in folder.rglob("*.safetensors")}
    return found


def _weight_file(name: str) -> Path:
    path = _weight_files().get(name)
    if path is None:
        raise UserError(
            f"expected a file in ComfyUI's loras or diffusion_models folders, got {name!r}. Choose another file."
        )
    return path


def _cached(hub_id: str) -> str:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return snapshot_download(hub_id, local_files_only=True)
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError):
        raise UserError(
            f"expected a diffusers folder or a hub id in the local cache, got {hub_id!r}. Check the path, or "
            "set allow_download to fetch it."
        ) from None
