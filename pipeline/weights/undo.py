"""Taking one removal back: bit for bit where nothing came after it, and its own change alone where something did.

A removal is known by the hashes of the weights before and after it. A model holds it if its weights are what that run
ended with, or if its header lists it. Everything else is refused.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ..models.lineage import Lineage, Removal, header_of, lineage_in
from ..prompts.concepts import join_concepts, same_concept
from ..support.errors import Caution, UserError, given
from ..support.places import user_path
from ..support.text import listed
from .apply import change, denoiser_of, holds_applied
from .change import Change, check_fit
from .formats import FORMATS
from .provenance import BaseHashes, check_tensors, kinship, read_header, taken_back_in, tensors_sha256
from .read import read_changes
from .rest import read_rest, rest_of

_EXPORT = "turpentine export RUN --formats delta"


@dataclass(frozen=True)
class TakenBack:
    """What a removal's undoing gave.

    Attributes:
        concepts: what is back.
        lineage: the model's history now.
        inexact: why the weights are not bit for bit those before the removal; empty if they are.
    """

    concepts: tuple[str, ...]
    lineage: Lineage
    inexact: str

    def as_written(self, files: Sequence[Path], base: BaseHashes, dtype: str) -> "TakenBack":
        """The same, said of files with the weights: they may be rounded.

        Args:
            files: that hold the network together.
            base: the weights before the removal.
            dtype: in which number format they were written.
        """
        written = {name: tensor for file in files for name, tensor in load_file(file).items()}
        if base.sha256 in (tensors_sha256(written), tensors_sha256(written, torch.float32)):
            return replace(self, inexact="")
        return replace(self, inexact=self.inexact or f"not bit for bit: {dtype} rounds the weights before its removal")

    @property
    def told(self) -> str:
        """What is back and what is not, in two sentences."""
        how = self.inexact or "bit for bit: the weights are those before its removal"
        return (
            f"Taken back: {join_concepts(self.concepts)}; {how}. "
            f"Still removed: {_named(self.lineage.forgotten) or 'nothing'}."
        )


@dataclass(frozen=True)
class Difference:
    """A removal as it is taken back.

    Attributes:
        name: of its file or run, for messages.
        metadata: the header of its weights.
        changes: gives what it added to a network's tensors.
        rest: gives the values that subtracting that would miss, see `rest_of`.
    """

    name: str
    metadata: Mapping[str, str]
    changes: Callable[[nn.Module], Iterable[Change]]
    rest: Callable[[], Mapping[str, Tensor]]

    @classmethod
    def of_file(cls, path: Path) -> "Difference":
        """A delta or LoRA file.

        Raises:
            UserError: another file, or one that was damaged.
        """
        metadata = read_header(path)
        kind = metadata.get("turpentine.format")
        if kind not in FORMATS or not FORMATS[kind].of_difference:
            raise UserError(
                f"expected a delta, or a LoRA, that Turpentine wrote, got {path}, which is "
                f"{f'of the format {kind!r}' if kind else 'none'}. Write one with: {_EXPORT}"
            )
        if check_tensors(path) is False:
            raise UserError(f"the tensors of {path} are not those that its header was written for. Get the file again.")
        return cls(str(path), metadata, lambda module: read_changes(path, module), lambda: read_rest(path))

    @classmethod
    def between(
        cls, name: str, metadata: Mapping[str, str], after: Mapping[str, Tensor], before: Mapping[str, Tensor]
    ) -> "Difference":
        """The difference of a run's weights, both of which are at hand."""
        return cls(
            name,
            metadata,
            lambda _: (Change(key, after[key].float() - before[key].float()) for key in before),
            lambda: rest_of(after, before),
        )

    @property
    def base(self) -> BaseHashes:
        """The weights before."""
        return BaseHashes.from_header(self.metadata)

    @property
    def result(self) -> BaseHashes:
        """The weights afterwards; empty in files of earlier versions."""
        return BaseHashes.of_result(self.metadata)

    @property
    def lineage(self) -> Lineage:
        """The history of the weights afterwards.

        Raises:
            UserError: the header tells none.
        """
        found = lineage_in(self.metadata)
        if found is None:
            raise UserError(f"{self.name} does not say what was removed.")
        return found

    @property
    def concepts(self) -> tuple[str, ...]:
        """What was removed.

        Raises:
            UserError: see `lineage`.
        """
        lineage = self.lineage
        if lineage.removals:
            return lineage.removals[-1].concepts
        joined = self.metadata.get("turpentine.concept", "")
        ends = (lineage.forgotten[start:] for start in range(len(lineage.forgotten)))
        return next((end for end in ends if join_concepts(end) == joined), (joined,))


def undo(pipe: Any, path: str | Path, *, any_base: bool = False) -> Any:
    """Take the removal of a delta or LoRA file out of an unlearned diffusers pipeline, in place.

    If the pipeline's weights are those that the run ended with, in float32, a delta gives those before it bit for
    bit. If more was removed since, the file's change is subtracted and later ones stay; a warning says so. `remove`
    brings back what `undo` took out; it is also what takes out what `apply` put in.

    Args:
        pipe: a pipeline with a `unet` or `transformer`, from which the file's concept was removed.
        path: a .safetensors file of the formats delta, lora or lora_diffusers.
        any_base: go on, with a warning, if nothing shows that this pipeline holds the removal.

    Returns:
        The same pipeline.

    Raises:
        UserError: a pipeline that doesn't hold the removal, or a file that is none of these.

    Example:
        >>> pipe = undo(pipe, "weights/sd-without-cat-delta.safetensors")  # doctest: +SKIP
    """
    if not isinstance(path, str | Path):
        raise UserError(f"expected the path of a .safetensors file, got {given(path)}.")
    name = getattr(getattr(pipe, "config", None), "_name_or_path", None) or ""
    found = take_back(denoiser_of(pipe), Difference.of_file(user_path(path)), header_of(name) if name else {}, any_base)
    if found.inexact:
        warnings.warn(f"{join_concepts(found.concepts)} is back, but {found.inexact}.", Caution, stacklevel=2)
    return pipe


@torch.no_grad()
def take_back(
    module: nn.Module, difference: Difference, header: Mapping[str, str], any_base: bool = False
) -> TakenBack:
    """Take a removal out of a network, in place; it stays as it is where anything is refused.

    Args:
        module: the network.
        difference: the removal.
        header: of the file that the network's weights came from.
        any_base: go on, with a warning, if nothing shows that the network holds the removal.

    Raises:
        UserError: it doesn't, or a change was put onto it at another strength than 1.
    """
    doubt, strength = "", header.get("turpentine.strength", "1.0")
    if float(strength) != 1:
        raise UserError(
            f"{header.get('turpentine.applied')} was put onto this model at strength {strength}, so taking it back "
            "whole would go too far. Put it onto its base at the strength that you want, with turpentine apply."
        )
    state = module.state_dict()
    concepts, lineage = difference.concepts, difference.lineage
    kin = kinship(difference.result, state)
    later: tuple[Removal, ...] = ()
    if kin is None:
        found = _holding(state, difference, header)
        if found:
            lineage, later = found
        else:
            check_fit(difference.changes(module), module, difference.name)  # else going on would not help
            if not any_base:
                raise UserError(f"{_refusal(difference, header)}. {_remedy(module, difference)}")
            doubt, lineage = _refusal(difference, header), lineage_in(header) or lineage
    change(module, difference.changes(module), -1.0, difference.rest() if kin == "same" else None)
    if doubt:
        warnings.warn(f"{doubt}; taken back all the same.", Caution, stacklevel=3)
    exact = bool(difference.base.sha256) and tensors_sha256(module.state_dict()) == difference.base.sha256
    return TakenBack(concepts, _without(lineage, difference), "" if exact else _why(kin, later, difference, header))


def _holding(
    state: Mapping[str, Tensor], difference: Difference, header: Mapping[str, str]
) -> tuple[Lineage, tuple[Removal, ...]] | None:
    """The history of a model in which a removal is, by its header, and what came after it; None if it isn't."""
    lineage = lineage_in(header)
    if lineage is None:
        return None
    now = BaseHashes.of_result(header)
    if not now.sha256:  # of an earlier version, which wrote down its last removal only
        same = all(
            header.get(f"turpentine.{key}") == difference.metadata.get(f"turpentine.{key}")
            for key in ("base_sha256", "concept", "recipe")
        )
        return (lineage, ()) if same and difference.base.sha256 else None
    if kinship(now, state) is None:
        return None
    for place, removal in enumerate(lineage.removals):
        hashes = (removal.base, removal.result)
        if hashes == (difference.base.sha256, difference.result.sha256) and removal.concepts == difference.concepts:
            return lineage, lineage.removals[place + 1 :]
    return None


def _without(lineage: Lineage, difference: Difference) -> Lineage:
    """A history without a removal."""
    hashes = (difference.base.sha256, difference.result.sha256)
    removals = tuple(each for each in lineage.removals if (each.base, each.result) != hashes)
    held = [name for removal in removals for name in removal.concepts]
    gone = [name for name in difference.concepts if not any(same_concept(name, other) for other in held)]
    forgotten = tuple(name for name in lineage.forgotten if not any(same_concept(name, other) for other in gone))
    return replace(lineage, forgotten=forgotten, removals=removals)


def _refusal(difference: Difference, header: Mapping[str, str]) -> str:
    lineage = lineage_in(header)
    known = f", from which {_they_were(lineage.forgotten)} removed" if lineage and lineage.forgotten else ""
    return (
        f"{difference.name} removed {join_concepts(difference.concepts)!r} from other weights than those of this "
        f"model{known}: nothing shows that the model holds that removal"
    )


def _remedy(module: nn.Module, difference: Difference) -> str:
    if holds_applied(module, difference.base):
        return "It came with turpentine.apply, and turpentine.remove(pipe) takes out what was applied."
    return "Use the model that holds it, or go on all the same with any_base=True (--any-base)."


def _why(kin: str | None, later: Sequence[Removal], difference: Difference, header: Mapping[str, str]) -> str:
    """Why taking back was not bit-exact."""
    if later:
        after = _named([name for removal in later for name in removal.concepts])
        return f"not bit for bit: later removals ({after}) were made on top of it, and stay"
    if kin in ("half copy", "original"):
        return "not bit for bit: the model is in another number format than the run's weights"
    before = taken_back_in(header)
    if kin is None and before:
        return f"not bit for bit: {_they_were(before)} taken back before"
    kind, dtype = (difference.metadata.get(f"turpentine.{key}") for key in ("format", "dtype"))
    if kind != "delta":
        return f"not bit for bit: the file is a {'LoRA' if 'lora' in str(kind) else kind}, not a delta"
    if dtype != "fp32":
        return f"not bit for bit: the delta is in {dtype}"
    if kin == "same" or not difference.result.sha256:
        return f"not bit for bit: the delta is of an earlier version. Write it again with: {_EXPORT}"
    return "not bit for bit: the model's weights are not quite those that the run ended with"


def _named(names: Sequence[str]) -> str:
    return ", ".join(names)


def _they_were(names: Sequence[str]) -> str:
    return f"{listed(names)} {'were' if len(names) > 1 else 'was'}"
