"""Nodes for what is to be forgotten and what is to be kept: PROMPT_SET."""

import tempfile
from pathlib import Path
from typing import Any, Literal

from ..pipeline.support.errors import UserError
from . import host
from .inputs import chosen, seed_widget, widgets
from .node import Node, shown

TYPE = "PROMPT_SET"
_FIELDS = ("prompts", "attribute_of")
_SKIP = ("prompts.file",)
_OUT = ("turpentine", "prompts")


class DiversePromptSet(Node):
    """Paired forget and retain prompts: from templates, from a language model, or written by hand."""

    TITLE = "Diverse Prompt Set"
    DESCRIPTION = "Makes paired prompts: with the concept to forget, and the same prompts without it."
    SEARCH_ALIASES = ("forget prompts", "retain prompts", "unlearning prompts", "concept prompts", "turpentine")
    RETURN_TYPES = (TYPE, "STRING", "STRING", "STRING")
    RETURN_NAMES = ("prompts", "forget_prompts", "retain_prompts", "preview")
    OUTPUT_IS_LIST = (False, True, True, False)
    OUTPUT_TOOLTIPS = (
        "The whole set, for UnlearnConcept, Generate and Save Prompt Set.",
        "The forget prompts that are trained on, as a list.",
        "The retain prompts that are trained on, row by row those of the forget prompts without the concept.",
        "What kind of set it is, its first rows and its warnings.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Widgets from the recipe's fields."""
        from ..pipeline.prompts import composed_worlds
        from ..pipeline.schema.fields import fields

        known = fields()
        kinds = list(known["kind"].choices)
        required = {
            "concept": ("STRING", {"default": "astronaut", "tooltip": f"{known['concept'].help}."}),
            "kind": (kinds, {"default": kinds[0], "tooltip": f"{known['kind'].help}."}),
            "world": (
                composed_worlds(),
                {
                    "default": "open",
                    "tooltip": "open: prompts for any model. tiny-canvas: only what the bundled model can draw.",
                },
            ),
            "seed": seed_widget("Which combinations are drawn."),
        }
        optional = {
            "text": (
                "STRING",
                {
                    "default": "",
                    "multiline": True,
                    "tooltip": "Your own prompts in place of made ones: on each line a forget prompt, |, its retain "
                    "prompt. Without | the retain prompt is made. Empty: all prompts are made.",
                },
            ),
            **widgets(*_FIELDS, skip=_SKIP),
            "structure": (
                ["diverse", "uniform"],
                {
                    "default": "diverse",
                    "advanced": True,
                    "tooltip": "diverse: many different pairs (RGD). uniform: one pair again and again (RG, SalUn).",
                },
            ),
        }
        return {"required": required, "optional": optional}

    def work(  # noqa: D102
        self,
        concept: str,
        kind: str,
        world: str,
        seed: int,
        text: str = "",
        structure: Literal["diverse", "uniform"] = "diverse",
        **more: Any,
    ) -> Any:
        from ..pipeline.run.prompts import make_prompts
        from ..pipeline.schema.defaults import SOME_MODEL, build_part, merge
        from ..pipeline.worlds import find_world

        wanted = find_world(world)
        picked = {"concept": concept, "kind": kind, "seed": seed, "model": next(iter(wanted.models), SOME_MODEL)}
        picked = merge(picked, chosen(more, *_FIELDS, skip=_SKIP))
        with tempfile.TemporaryDirectory() as folder:
            if text.strip():
                file = Path(folder) / "prompts.txt"
                file.write_text(_as_rows(text), encoding="utf-8")
                picked = merge(picked, {"prompts": {"file": str(file)}})
            part = build_part(picked, "concepts", "kind", "seed", "attribute_of", "prompts")
            prompts = make_prompts(
                part.concepts,
                part.kind,
                part.prompts,
                wanted,
                seed=part.seed,
                structure=structure,
                attribute_of=part.attribute_of,
            )
        if prompts.world != world:
            prompts = prompts.model_copy(update={"world": world})
            prompts.check()
        return _outputs(prompts)


class LoadPromptSet(Node):
    """A prompt set from a file of ComfyUI's input folder, or one that was saved."""

    TITLE = "Load Prompt Set"
    DESCRIPTION = "Reads a prompt set that was saved, or a .csv, .txt or .json of yours in ComfyUI's input folder."
    SEARCH_ALIASES = ("import prompts", "csv prompts", "open prompt set")
    RETURN_TYPES = DiversePromptSet.RETURN_TYPES
    RETURN_NAMES = DiversePromptSet.RETURN_NAMES
    OUTPUT_IS_LIST = DiversePromptSet.OUTPUT_IS_LIST
    OUTPUT_TOOLTIPS = DiversePromptSet.OUTPUT_TOOLTIPS

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The files that are there."""
        return {
            "required": {
                "file": (
                    sorted(_prompt_files()) or ["none found"],
                    {"tooltip": "Saved prompt sets, and .json, .csv and .txt files in ComfyUI's input folder."},
                ),
            },
            "optional": {
                "concept": (
                    "STRING",
                    {"default": "", "tooltip": "What the prompts are about; .csv and .txt files don't say it."},
                ),
            },
        }

    @classmethod
    def IS_CHANGED(cls, file: str, **_: Any) -> Any:
        """Read again when the file was written again."""
        path = _prompt_files().get(file)
        return path.stat().st_mtime_ns if path else file

    @classmethod
    def VALIDATE_INPUTS(cls, file: str) -> bool | str:
        """Files come and go: look at the time of running."""
        return (
            True
            if file in _prompt_files()
            else f"no prompt set {file!r}: save one, or put a file into the input folder."
        )

    def work(self, file: str, concept: str = "") -> Any:  # noqa: D102
        from ..pipeline.prompts import PromptSet

        path = _prompt_files().get(file)
        if path is None:
            raise UserError(f"no prompt set {file!r}: save one, or put a file into ComfyUI's input folder.")
        return _outputs(PromptSet.load(path, concept=concept.strip() or None))


class SavePromptSet(Node):
    """Keeps a prompt set under ComfyUI's output folder."""

    TITLE = "Save Prompt Set"
    DESCRIPTION = "Writes a prompt set to output/turpentine/prompts, where Load Prompt Set finds it."
    SEARCH_ALIASES = ("export prompts", "keep prompts")
    OUTPUT_NODE = True
    RETURN_TYPES = ("STRING",)
    RETURN_NAMES = ("path",)
    OUTPUT_TOOLTIPS = ("Where it was written.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """A set and a name."""
        return {
            "required": {
                "prompts": (TYPE, {"tooltip": "From Diverse Prompt Set."}),
                "name": ("STRING", {"default": "my prompts", "tooltip": "File name without ending."}),
                "format": (
                    ["json", "csv", "txt"],
                    {"tooltip": "json keeps everything; csv keeps the split; txt keeps the pairs only."},
                ),
            }
        }

    def work(self, prompts: Any, name: str, format: str) -> Any:  # noqa: D102
        path = host.output_folder(*_OUT) / f"{host.safe_name(name)}.{format}"
        prompts.save(path)
        return shown(str(path), str(path))


def _as_rows(text: str) -> str:
    rows = [line.partition("|") for line in text.splitlines()]
    return "".join(f"{forget.strip()}\t{retain.strip()}\n" if bar else f"{forget}\n" for forget, bar, retain in rows)


def _outputs(prompts: Any) -> tuple[Any, list[str], list[str], str]:
    return prompts, prompts.forget_train, prompts.retain_train, prompts.preview()


def _prompt_files() -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in (host.input_folder(), host.output_folder(*_OUT)):
        if folder.is_dir():
            found |= {path.name: path for path in folder.iterdir() if path.suffix in (".json", ".csv", ".txt")}
    return found
