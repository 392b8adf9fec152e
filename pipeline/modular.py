"""Modular Diffusers blocks: prompt set, unlearning and audit, to be put among other blocks.

They are thin: every block calls the function that the rest of the package calls. Which components a
block expects is read from the diffusers pipeline class that stands for the family; the blocks train and
measure the very objects that the modular pipeline holds.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from inspect import Parameter, signature
from typing import Any, get_type_hints

import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from diffusers.modular_pipelines import ModularPipelineBlocks, PipelineState, SequentialPipelineBlocks
from diffusers.modular_pipelines.modular_pipeline_utils import ComponentSpec, InputParam, OutputParam
from typing_extensions import override

from .api import recipe_for
from .models import Denoiser, borrowed
from .models.stages import Stages
from .prompts import PromptSet
from .run.audit import audit_anchors, audit_prompts, draw, measure, subject_of
from .run.preflight import preflight, preflight_model
from .run.prompts import prompts_of
from .run.repeatable import repeatable
from .run.samples import samples_of
from .run.stages import drawing_stages, stages_of
from .schema.recipe import Recipe
from .schema.resolve import resolve
from .schema.results import AuditResult, TrainingResult
from .support.errors import UserError
from .support.progress import Progress, Silent
from .training.base import frozen_base
from .training.edit import edit
from .training.train import train

_RECIPE = InputParam("recipe", Recipe, required=True, description="what to do, from the prompt set block")
_PROMPTS = InputParam("prompts", PromptSet, required=True, description="the paired forget/retain prompts")
_PROGRESS = InputParam("progress", Progress, description="told how far the work has come; may cancel it")


class PromptSetBlock(ModularPipelineBlocks):
    """Makes a recipe and its paired forget/retain prompts; expects no components."""

    @property
    @override
    def description(self) -> str:
        return "Makes the paired forget/retain prompts of a concept."

    @property
    @override
    def inputs(self) -> list[InputParam]:
        return [
            InputParam("concept", str, required=True, description="what to remove, for example 'cat'"),
            InputParam(
                "model",
                str,
                default="diffusers-components",
                description="folder or hub id that the components came from; decides the recipe's defaults",
            ),
            InputParam("options", dict, description="recipe fields as turpentine.unlearn takes them, {'steps': 50}"),
        ]

    @property
    @override
    def intermediate_outputs(self) -> list[OutputParam]:
        return [
            OutputParam("recipe", Recipe, description="what to do, whole"),
            OutputParam("prompts", PromptSet, description="training and test pairs"),
        ]

    def __call__(self, components: Any, state: PipelineState) -> tuple[Any, PipelineState]:
        """Run as a part of a modular pipeline."""
        block = self.get_block_state(state)
        block.recipe = recipe_for(block.concept, block.model, block.options or {})
        block.prompts = prompts_of(resolve(block.recipe))
        self.set_block_state(state, block)
        return components, state


class _ModelBlock(ModularPipelineBlocks):
    """A block that works on a text-to-image model.

    Args:
        pipeline_class: a supported diffusers pipeline; its components are expected.
    """

    def __init__(self, pipeline_class: type[DiffusionPipeline] = StableDiffusionPipeline) -> None:
        super().__init__()
        self.pipeline_class = pipeline_class

    @property
    def expected_components(self) -> list[ComponentSpec]:
        """The components of `pipeline_class`."""
        hints = get_type_hints(self.pipeline_class.__init__)
        return [
            ComponentSpec(name, hints[name] if isinstance(hints.get(name), type) else None)
            for name, parameter in signature(self.pipeline_class).parameters.items()
            if parameter.default is Parameter.empty or self._optional(name)
        ]

    def denoiser(
        self, components: Any, name: str, stages: Callable[[torch.device], Stages]
    ) -> AbstractContextManager[Denoiser]:
        """The model over the components that a modular pipeline holds, for a while; see `borrowed`.

        Raises:
            UserError: one is missing, or the adapter can't take them.
        """
        held = {spec.name: getattr(components, spec.name, None) for spec in self.expected_components}
        lacking = [part for part, value in held.items() if value is None and not self._optional(part)]
        if lacking:
            raise UserError(
                f"{type(self).__name__} expected the components of a {self.pipeline_class.__name__}, and {lacking} are "
                "missing. Give them with pipeline.update_components(**pipe.components)."
            )
        return borrowed(self.pipeline_class(**held), name, stages)

    def _optional(self, component: str) -> bool:
        return component in self.pipeline_class._optional_components


class UnlearnBlock(_ModelBlock):
    """Lets the model draw its training images and fine-tunes its UNet or transformer, or edits it, in place."""

    @property
    @override
    def description(self) -> str:
        return "Removes a concept from the UNet or transformer, in place."

    @property
    @override
    def inputs(self) -> list[InputParam]:
        return [_RECIPE, _PROMPTS, _PROGRESS]

    @property
    @override
    def intermediate_outputs(self) -> list[OutputParam]:
        return [OutputParam("training", TrainingResult, description="steps, losses, conflicts, seconds")]

    def __call__(self, components: Any, state: PipelineState) -> tuple[Any, PipelineState]:
        """Run as a part of a modular pipeline."""
        block: Any = self.get_block_state(state)
        recipe, progress = block.recipe, block.progress or Silent()
        with self.denoiser(components, recipe.model, partial(stages_of, recipe)) as denoiser:
            _check(block, denoiser, progress, trains=True)
            with repeatable(recipe.training.deterministic, denoiser.device), frozen_base(denoiser, recipe.training):
                if recipe.method.closed_form:
                    block.training = edit(denoiser, block.prompts.rows, recipe.method, progress)
                else:
                    samples = samples_of(denoiser, block.prompts, recipe, progress)
                    trained = train(denoiser, samples, recipe.method, recipe.training, recipe.seed, progress=progress)
                    block.training, _ = trained
        self.set_block_state(state, block)
        return components, state


class AuditBlock(_ModelBlock):
    """Draws the audit images and measures them.

    Args:
        pipeline_class: a supported diffusers pipeline; its components are expected.
        output: name of the result, so that a sequence may hold several audits.
    """

    def __init__(
        self, pipeline_class: type[DiffusionPipeline] = StableDiffusionPipeline, output: str = "audit"
    ) -> None:
        super().__init__(pipeline_class)
        self.output = output

    @property
    @override
    def description(self) -> str:
        return "Measures what the model draws with the audits of the recipe."

    @property
    @override
    def inputs(self) -> list[InputParam]:
        return [_RECIPE, _PROMPTS, _PROGRESS]

    @property
    @override
    def intermediate_outputs(self) -> list[OutputParam]:
        return [OutputParam(self.output, AuditResult, description="every figure")]

    def __call__(self, components: Any, state: PipelineState) -> tuple[Any, PipelineState]:
        """Run as a part of a modular pipeline."""
        block: Any = self.get_block_state(state)
        recipe, progress, subject = block.recipe, block.progress or Silent(), subject_of(resolve(block.recipe))
        texts = audit_prompts(block.prompts, recipe.audits, subject)
        anchors = audit_anchors(block.prompts, recipe.audits)
        with self.denoiser(components, recipe.model, partial(drawing_stages, recipe.samples)) as denoiser:
            _check(block, denoiser, progress, trains=False)
            images = draw(denoiser, texts, recipe.samples.sampling(), recipe.seed, progress, self.output)
            found = measure(images, texts, recipe.audits, subject, progress, denoiser.device, anchors)
        setattr(block, self.output, found)
        self.set_block_state(state, block)
        return components, state


def _check(block: Any, denoiser: Denoiser, progress: Progress, trains: bool) -> None:
    """Find out, before anything is drawn, what would stop the block later; tell warnings."""
    setting = resolve(block.recipe)
    checked = preflight(setting, block.prompts, denoiser, trains=trains)
    for warning in (*checked.warnings, *preflight_model(setting, block.prompts, denoiser, trains=trains)):
        progress.warn(warning)


def unlearning_blocks(
    pipeline_class: type[DiffusionPipeline] = StableDiffusionPipeline,
) -> SequentialPipelineBlocks:
    """Prompt set, audit, unlearning and audit again, one after another.

    Args:
        pipeline_class: a supported diffusers pipeline, whose components are expected.

    Example:
        >>> from diffusers import StableDiffusionPipeline
        >>> blocks = unlearning_blocks(StableDiffusionPipeline)
        >>> [output.name for output in blocks.intermediate_outputs]
        ['recipe', 'prompts', 'before', 'training', 'after']
    """
    return SequentialPipelineBlocks.from_blocks_dict(
        {
            "prompts": PromptSetBlock(),
            "before": AuditBlock(pipeline_class, "before"),
            "unlearn": UnlearnBlock(pipeline_class),
            "after": AuditBlock(pipeline_class, "after"),
        }
    )
