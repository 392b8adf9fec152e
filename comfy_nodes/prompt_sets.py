"""Nodes that make, load and save paired prompts: PROMPT_SET."""

import re
import tempfile
from pathlib import Path
from typing import Any, Literal

from ..pipeline.support.errors import UserError
from . import host
from .inputs import chosen, seed_widget, sentence, widgets
from .node import Node, shown

TYPE = "PROMPT_SET"
_FIELDS = ("prompts", "attribute_of")
_SKIP = ("prompts.file", "prompts.replace_with")
_CHOICE = re.compile(r"\{[^{}]*\}|\[[^\[\]]*\]")
_OUT = ("turpentine", "prompts")


class DiversePromptSet(Node):
    """Makes paired forget and retain prompts from templates, a language model, or your own text."""

    TITLE = "Diverse Prompt Set"
    DESCRIPTION = "Makes paired prompts: forget prompts with the concept, and the same prompts without it to retain."
    SEARCH_ALIASES = ("forget prompts", "retain prompts", "unlearning prompts", "concept prompts", "turpentine")
    RETURN_TYPES = (TYPE, "STRING", "STRING", "STRING")
    RETURN_NAMES = ("prompts", "forget_prompts", "retain_prompts", "preview")
    OUTPUT_IS_LIST = (False, True, True, False)
    OUTPUT_TOOLTIPS = (
        "The whole set, for Unlearn Concept, Generate and Save Prompt Set.",
        "The forget prompts of the training set, as a list.",
        "The retain prompts of the training set: each forget prompt without the concept, in the same order.",
        "A summary of the set, its first rows and its warnings.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Widgets from the recipe's fields."""
        from ..pipeline.prompts import composed_worlds
        from ..pipeline.schema.fields import fields

        known = fields()
        kinds = list(known["kind"].choices)
        required = {
            "concept": ("STRING", {"default": "astronaut", "tooltip": sentence(known["concept"].help)}),
            "kind": (kinds, {"default": kinds[0], "tooltip": sentence(known["kind"].help)}),
            "world": (
                composed_worlds(),
                {
                    "default": "open",
                    "tooltip": "open: prompts for any model. tiny-canvas: only words that the bundled model knows.",
                },
            ),
            "seed": seed_widget("Decides which combinations are drawn."),
        }
        optional = {
            "text": (
                "STRING",
                {
                    "default": "",
                    "multiline": True,
                    "tooltip": "Your own pairs, one on each line: a forget prompt, |, its retain prompt. Without |, "
                    "Turpentine makes the retain prompt. Empty: Turpentine makes all prompts.",
                },
            ),
            **widgets(*_FIELDS, skip=_SKIP),
            "structure": (
                ["diverse", "uniform"],
                {
                    "default": "diverse",
                    "advanced": True,
                    "tooltip": "diverse: many different pairs (RGD). uniform: one pair repeated (RG, SalUn).",
                },
            ),
            "replace_with": (
                "STRING",
                {
                    "default": "",
                    "tooltip": sentence(
                        known["replace_with"].help, "Empty: auto, if the method draws something instead."
                    ),
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
        replace_with: str = "",
        **more: Any,
    ) -> Any:
        from ..pipeline.run.prompts import make_prompts
        from ..pipeline.schema.defaults import SOME_MODEL, build_part, merge
        from ..pipeline.schema.resolve import forgotten_before
        from ..pipeline.worlds import find_world

        wanted = find_world(world)
        picked = {"concept": concept, "kind": kind, "seed": seed, "model": next(iter(wanted.models), SOME_MODEL)}
        picked = merge(picked, chosen(more, *_FIELDS, skip=_SKIP))
        if replace_with.strip():
            picked = merge(picked, {"prompts": {"replace_with": replace_with.strip()}})
        with tempfile.TemporaryDirectory() as folder:
            if text.strip():
                file = Path(folder) / "prompts.txt"
                file.write_text(_as_rows(text), encoding="utf-8")
                picked = merge(picked, {"prompts": {"file": str(file)}})
            part = build_part(picked, "concepts", "kind", "seed", "attribute_of", "prompts")
            try:
                prompts = make_prompts(
                    part.concepts,
                    part.kind,
                    part.prompts,
                    wanted,
                    seed=part.seed,
                    structure=structure,
                    attribute_of=part.attribute_of,
                    keep_forgotten=forgotten_before(part.prompts.keep_forgotten, part.concepts),
                )
            except UserError as error:
                raise UserError(str(error).replace(str(Path(folder) / "prompts.txt"), "text")) from None
        if prompts.world != world:
            prompts = prompts.model_copy(update={"world": world})
            prompts.check()
        return _outputs(prompts)


class LoadPromptSet(Node):
    """Reads a saved prompt set, or a file in ComfyUI's input folder."""

    TITLE = "Load Prompt Set"
    DESCRIPTION = "Reads a saved prompt set, or your own .csv, .txt or .json file in ComfyUI's input folder."
    SEARCH_ALIASES = ("import prompts", "csv prompts", "open prompt set")
    RETURN_TYPES = DiversePromptSet.RETURN_TYPES
    RETURN_NAMES = DiversePromptSet.RETURN_NAMES
    OUTPUT_IS_LIST = DiversePromptSet.OUTPUT_IS_LIST
    OUTPUT_TOOLTIPS = DiversePromptSet.OUTPUT_TOOLTIPS

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The files that exist now."""
        return {
            "required": {
                "file": (
                    sorted(_prompt_files()) or ["none found"],
                    {"tooltip": "A saved prompt set, or a .json, .csv or .txt file in ComfyUI's input folder."},
                ),
            },
            "optional": {
                "concept": (
                    "STRING",
                    {
                        "default": "",
                        "tooltip": "The concept of the prompts. Needed for .csv and .txt files, which don't name it.",
                    },
                ),
            },
        }

    @classmethod
    def IS_CHANGED(cls, file: str, **_: Any) -> Any:
        """Read the file again after a change."""
        path = _prompt_files().get(file)
        return path.stat().st_mtime_ns if path else file

    @classmethod
    def VALIDATE_INPUTS(cls, file: str) -> bool | str:
        """Refuse a file that is gone, before the graph runs."""
        return file in _prompt_files() or _gone(file)

    def work(self, file: str, concept: str = "") -> Any:  # noqa: D102
        from ..pipeline.prompts import PromptSet

        path = _prompt_files().get(file)
        if path is None:
            raise UserError(_gone(file))
        return _outputs(PromptSet.load(path, concept=concept.strip() or None))


class SavePromptSet(Node):
    """Writes a prompt set below ComfyUI's output folder."""

    TITLE = "Save Prompt Set"
    DESCRIPTION = "Writes a prompt set to output/turpentine/prompts, where Load Prompt Set finds it."
    SEARCH_ALIASES = ("export prompts", "keep prompts")
    OUTPUT_NODE = True
    RETURN_TYPES = ("STRING",)
    RETURN_NAMES = ("path",)
    OUTPUT_TOOLTIPS = ("The path of the file that was written.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """A set, a name and a format."""
        return {
            "required": {
                "prompts": (TYPE, {"tooltip": "From Diverse Prompt Set."}),
                "name": ("STRING", {"default": "my prompts", "tooltip": "File name without its ending."}),
                "format": (
                    ["json", "csv", "txt"],
                    {"tooltip": "json: everything. csv: the pairs with their split. txt: the pairs only."},
                ),
            }
        }

    def work(self, prompts: Any, name: str, format: str) -> Any:  # noqa: D102
        path = host.output_folder(*_OUT) / f"{host.safe_name(name)}.{format}"
        prompts.save(path)
        return shown(str(path), str(path))


def _as_rows(text: str) -> str:
    """Write pairs with tabs; a bar in braces or brackets, as in {red|blue}, belongs to the prompt."""
    rows = []
    for line in text.splitlines():
        place = _CHOICE.sub(lambda choice: " " * len(choice[0]), line).find("|")
        rows.append(line if place < 0 else f"{line[:place].strip()}\t{line[place + 1 :].strip()}")
    return "".join(f"{row}\n" for row in rows)


def _gone(file: str) -> str:
    return f"no prompt set {file!r}: save one, or put a file into ComfyUI's input folder."


def _outputs(prompts: Any) -> tuple[Any, list[str], list[str], str]:
    return prompts, prompts.forget_train, prompts.retain_train, prompts.preview()


def _prompt_files() -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in (host.input_folder(), host.output_folder(*_OUT)):
        if folder.is_dir():
            found |= {path.name: path for path in folder.iterdir() if path.suffix in (".json", ".csv", ".txt")}
    return found
