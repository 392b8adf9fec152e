"""`turpentine info`: where weights came from and whether they are whole, or what a run gave."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from ..support.errors import UserError
from ..support.places import existing
from ..support.text import listed
from .options import path_of
from .terminal import console, escaped

if TYPE_CHECKING:
    from ..run.folder import RunFolder

EXAMPLES = """examples:
  turpentine info cat-delta.safetensors
  turpentine info path/to/diffusers-folder
  turpentine info runs/cat-rgd-20260101-120000"""

_EXPECTED = "a .safetensors file, a diffusers folder or a run folder"

_LONG = ("turpentine.audits", "turpentine.recipe")
"""Fields of a header that are whole documents; they are shown last, as YAML."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the file or folder."""
    parser.add_argument("file", type=path_of, metavar="FILE|FOLDER|RUN", help=_EXPECTED)


def run(arguments: argparse.Namespace) -> None:
    """Show it; weights that are not as they were written are an error."""
    from ..models.lineage import denoiser_files
    from ..run.folder import RESULTS, RunFolder  # heavy: torch and diffusers

    path = existing(arguments.file, _EXPECTED)
    folder = RunFolder(path)
    if path.is_file():
        _show_weights([path])
    elif folder.is_there or (path / RESULTS).exists():
        _show_run(folder)
    elif files := denoiser_files(path):
        _show_weights(files)
    else:
        raise UserError(f"expected {_EXPECTED}, and {path} is none of them.")


def _show_run(run: "RunFolder") -> None:
    from .figures import show_figures  # heavy: torch and diffusers

    results = run.finished()
    show_figures(results)
    states = run.states(results)
    for path, state in states.items():
        console.print(f"{escaped(path)}: {state}", soft_wrap=True)
    if lost := [f"{run.path / path} ({state})" for path, state in states.items() if state != "unchanged"]:
        raise UserError(f"not as the run wrote {'it' if len(lost) == 1 else 'them'}: {', '.join(lost)}.")


def _show_weights(files: list[Path]) -> None:
    """Show the header of a network's first file, and check all of them."""
    from ..weights import check_tensors, read_header  # heavy: torch

    metadata = read_header(files[0])
    if not any(key.startswith("turpentine.") for key in metadata):
        raise UserError(f"{files[0]} was not written by Turpentine; its metadata: {json.dumps(metadata)[:200]}")
    for line in summary(metadata):
        console.print(escaped(line), soft_wrap=True)
    console.print()
    for key in sorted(set(metadata) - set(_LONG)):
        console.print(f"[bold]{escaped(key)}[/bold] {escaped(metadata[key])}", soft_wrap=True)
    for key in _LONG:
        if key in metadata:
            console.print(f"[bold]{key}[/bold]\n{escaped(_document(metadata[key]))}", soft_wrap=True)
    states = {file: check_tensors(file) for file in files}
    if wrong := [str(file) for file, whole in states.items() if whole is False]:
        raise UserError(f"the tensors of {', '.join(wrong)} are not those that the header was written for.")
    if None in states.values():
        console.print("The header holds no hash of the tensors, so they could not be checked.")
    else:
        console.print("The tensors are those that the header was written for (sha256).")


def summary(metadata: Mapping[str, str]) -> list[str]:
    """What was removed from weights, and by what, in a few lines.

    Args:
        metadata: of a file that Turpentine wrote.
    """
    from ..models.lineage import lineage_in
    from ..weights.provenance import taken_back_in  # heavy: torch

    ours = (key for key in metadata if key.startswith("turpentine."))
    field = {key.removeprefix("turpentine."): metadata[key] for key in ours}
    lineage, concept = lineage_in(metadata), field.get("concept")
    lines = [f"{metadata.get('modelspec.title', 'Weights')}: {field.get('format', '?')}, {field.get('dtype', '?')}"]
    if concept:
        lines.append(f"Removed: {concept}, with {field.get('method', '?')}, seed {field.get('seed', '?')}")
    if lineage:
        lines.append(f"Removed so far: {listed(lineage.forgotten) if lineage.forgotten else 'nothing'}")
    if back := taken_back_in(metadata):
        lines.append(f"Taken back: {listed(back)}")
    if "applied" in field:
        lines.append(f"Put onto its base: {field['applied']}, at strength {field.get('strength', '?')}")
    sha256 = field.get("base_sha256", "")
    lines.append(f"Made from: {field.get('base_model', '?')}{f' (sha256 {sha256[:12]}…)' if sha256 else ''}")
    return lines


def _document(text: str) -> str:
    """A recipe or figures, as YAML."""
    try:
        return yaml.safe_dump(yaml.safe_load(text), sort_keys=False, allow_unicode=True).rstrip()
    except yaml.YAMLError:
        return text
