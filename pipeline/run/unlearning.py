"""The main job, whole: recipe -> prompts -> samples -> training -> weights -> audits -> report."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..audits import interference
from ..data.samples import SampleSet
from ..methods import build_method
from ..models import Denoiser, load_denoiser
from ..prompts import PromptSet
from ..report import write_report
from ..schema.image_sets import AFTER, BEFORE, TEST_SETS
from ..schema.recipe import Recipe
from ..schema.results import AuditResult, Audits, ModelInfo, Results, Timings, TrainingResult, WeightsFile
from ..support.processes import ALONE, Processes
from ..support.progress import Progress, Silent
from ..training.lora import as_adapter, injected
from ..training.optimizers import check_optimizer
from ..training.parallel import shared_out
from ..training.trainer import Trainer, check_processes
from ..weights import (
    Adapter,
    Factors,
    Job,
    base_hashes,
    check_formats,
    needs_base,
    snapshot,
    versions,
    write_weights,
)
from .audit import audit_prompts, draw, measure, subject_of, undrawable
from .folder import PREVIEWS, RunFolder, preview_name
from .prompts import prompts_of
from .samples import samples_of
from .weights import run_header, weights_name


@dataclass(frozen=True)
class Unlearned:
    """What a run gives back.

    Attributes:
        pipeline: the diffusers pipeline, of the class that came in, with unlearned weights.
        results: every figure.
        run: the run folder.
    """

    pipeline: Any
    results: Results
    run: Path


@dataclass
class _Clock:
    """Seconds of each stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - began


def run_recipe(
    recipe: Recipe,
    out: Path | None = None,
    *,
    denoiser: Denoiser | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    processes: Processes = ALONE,
) -> Unlearned:
    """Carry out a recipe in a run folder.

    Args:
        recipe: what to do.
        out: the run folder; None makes a new one under `runs/`.
        denoiser: a model that is already loaded, in place of `recipe.model`; trained in place.
        resume: continue the run in `out`.
        progress: told how far the work has come; may cancel it.
        processes: who else carries out the same recipe, see `launched`; the first one writes the run folder.

    Raises:
        UserError: something that the user can mend.
        Cancelled: the progress asked to stop; `--resume` goes on from there.
    """
    progress, clock = progress or Silent(), _Clock()
    began = time.perf_counter()
    check_optimizer(recipe.training)
    check_processes(build_method(recipe.method), recipe.training, processes)
    run = processes.on_main(lambda: RunFolder.open(out) if resume and out else RunFolder.create(recipe, out))
    with clock("prompts"):
        prompts = processes.on_main(lambda: _prompts(run, recipe, denoiser))
    denoiser = denoiser or load_denoiser(recipe.model, recipe.device, recipe.model_config_folder)
    output = recipe.output
    check_formats(denoiser, output.formats)
    hashes = processes.on_main(lambda: base_hashes(denoiser.module.state_dict()))
    base = snapshot(denoiser.module) if processes.main and needs_base(output.formats) else None
    with clock("samples"):
        samples = _samples(run, denoiser, prompts, recipe, progress, processes)
    with clock("audits"):
        kept = processes.on_main(lambda: run.audit(BEFORE))
        before = kept or _audit(BEFORE, run, denoiser, prompts, recipe, progress, processes)
    warnings = [*prompts.warnings, *denoiser.warnings, *undrawable(subject_of(recipe), before)]
    with clock("training"):
        after_step = _previews(run, denoiser, prompts, recipe, processes) if recipe.training.preview_every else None
        training, trained = train(denoiser, samples, recipe, run.path, resume, progress, processes, after_step)
    with clock("audits"):
        after = _audit(AFTER, run, denoiser, prompts, recipe, progress, processes)
    with clock("weights"):

        def write() -> list[WeightsFile]:
            job = Job(
                denoiser,
                run.path / "weights",
                weights_name(recipe),
                output.dtype,
                run_header(denoiser, recipe, hashes, after),
                base=base,
                rank=output.lora_rank,
                energy=output.lora_energy,
                trained=trained,
                progress=progress,
            )
            return write_weights(job, output.formats)

        written = processes.on_main(write)
    stages = {stage: clock.seconds.get(stage, 0.0) for stage in Timings.model_fields if stage != "total"}
    results = Results(
        concept=recipe.concept,
        kind=recipe.kind,
        method=recipe.method.name,
        recipe=recipe.model_dump(mode="json"),
        model=ModelInfo(name=recipe.model, family=denoiser.family, sha256=hashes.sha256),
        training=training,
        audits=Audits(before=before, after=after),
        interference=interference(before.accuracy, after.accuracy),
        timings=Timings(**stages, total=time.perf_counter() - began),
        weights=written,
        versions=versions(),
        warnings=warnings,
    )
    processes.on_main(lambda: _finish(run, results))
    return Unlearned(denoiser.pipeline, results, run.path)


def _prompts(run: RunFolder, recipe: Recipe, denoiser: Denoiser | None) -> PromptSet:
    prompts = run.prompts() or prompts_of(recipe, denoiser)
    prompts.save(run.path / "prompts.json")
    return prompts


def _finish(run: RunFolder, results: Results) -> None:
    results.save(run.path / "results.json")
    write_report(run.path)
    run.samples.unlink(missing_ok=True)


def _audit(
    when: str,
    run: RunFolder,
    denoiser: Denoiser,
    prompts: PromptSet,
    recipe: Recipe,
    progress: Progress,
    processes: Processes,
) -> AuditResult:
    subject = subject_of(recipe)
    texts = audit_prompts(prompts, recipe.audits, subject)
    images = draw(denoiser, texts, recipe.samples.sampling(), recipe.seed, progress, when, processes)

    def measured() -> AuditResult:
        run.save_images(when, images, texts)
        result = measure(images, texts, recipe.audits, subject, progress, denoiser.device)
        run.save_audit(when, result)
        return result

    return processes.on_main(measured)


def _samples(
    run: RunFolder, denoiser: Denoiser, prompts: PromptSet, recipe: Recipe, progress: Progress, processes: Processes
) -> SampleSet:
    if processes.on_main(run.samples.exists):
        return SampleSet.load(run.samples)
    samples = samples_of(denoiser, prompts, recipe, progress, processes)
    processes.on_main(lambda: samples.save(run.samples))
    return samples


def _previews(
    run: RunFolder, denoiser: Denoiser, prompts: PromptSet, recipe: Recipe, processes: Processes
) -> Callable[[int, Progress], None]:
    """Draws a few audit images every so many steps."""
    audited = audit_prompts(prompts, recipe.audits, subject_of(recipe))
    texts = {name: audited[name][:PREVIEWS] for name in TEST_SETS}

    def preview(done: int, progress: Progress) -> None:
        if done % recipe.training.preview_every == 0:
            images = draw(denoiser, texts, recipe.samples.sampling(), recipe.seed, progress, "preview", processes)
            processes.on_main(lambda: run.save_images(preview_name(done), images, None))

    return preview


def train(
    denoiser: Denoiser,
    samples: SampleSet,
    recipe: Recipe,
    folder: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    processes: Processes = ALONE,
    after_step: Callable[[int, Progress], None] | None = None,
) -> tuple[TrainingResult, Adapter | None]:
    """Train a denoiser's network in place, as a recipe says; gives also the LoRA if one was trained.

    See `Trainer` for the arguments.
    """
    method, spec = build_method(recipe.method), recipe.training
    with training_lora(denoiser.module, recipe) as layers, shared_out(denoiser, processes):
        trainer = Trainer(denoiser, method, samples, spec, recipe.seed, folder, progress, after_step, processes)
        if (
            after_step is None
        ):  # which needs the whole pipeline; and not before the trainer has embedded the empty prompt
            denoiser.release()
        try:
            result = trainer.train(resume=resume)
        finally:
            denoiser.restore()
    return result, as_adapter(layers) if layers else None


def training_lora(module: Any, recipe: Recipe) -> AbstractContextManager[dict[str, Factors]]:
    """The LoRA that a recipe trains, in the network while the block runs; nothing for other recipes."""
    spec = recipe.training
    if spec.parameters != "lora":
        return nullcontext({})
    return injected(module, spec.adapter_rank, spec.adapter_alpha, spec.adapter_targets, recipe.seed)
