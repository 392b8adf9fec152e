"""The main job, whole: recipe -> prompts -> samples -> training -> weights -> audits -> report."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from ..audits import interference, to_uint8
from ..data.pictures import find_pictures, read_pictures
from ..data.samples import SampleSet
from ..models import Denoiser, load_denoiser
from ..models.placing import staged
from ..prompts import PromptSet
from ..report.images import LARGEST
from ..schema.image_sets import AFTER, BEFORE, FORGET_TEST, GIVEN, NEAREST, TEST_SETS, TRAINING
from ..schema.recipe import Recipe
from ..schema.resolve import Setting, resolve
from ..schema.results import AuditResult, Audits, ModelInfo, ResemblanceResult, Results, Timings, TrainingResult
from ..support.errors import Tell
from ..support.processes import ALONE, Processes
from ..support.progress import Progress, Silent
from ..training.base import frozen_base
from ..training.edit import edit
from ..training.parallel import check_processes
from ..training.train import train
from ..weights import (
    Adapter,
    base_hashes,
    needs_base,
    snapshot,
    versions,
    write_weights,
)
from .audit import audit_anchors, audit_prompts, draw, measure, subject_of, undrawable
from .folder import PREVIEWS, RESULTS, RunFolder, preview_name
from .preflight import preflight, preflight_model
from .repeatable import repeatable
from .samples import samples_of
from .stages import stages_of
from .weights import run_job


@dataclass(frozen=True)
class Unlearned:
    """The outcome of a run.

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
    """Seconds of each stage, with those of earlier sittings of the same run; kept once this one has begun."""

    run: RunFolder
    processes: Processes
    begun: bool = False
    spent: dict[str, float] = field(default_factory=dict)
    since: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        self.spent = self.run.seconds()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self._add(stage, time.perf_counter() - began)
            self._add("total", time.perf_counter() - self.since)
            self.since = time.perf_counter()
            if self.processes.main and self.begun:
                self.run.save_seconds(self.spent)

    def timings(self) -> Timings:
        """The seconds of every stage, and of the whole run so far."""
        self._add("total", time.perf_counter() - self.since)
        return Timings(**{stage: self.spent.get(stage, 0.0) for stage in Timings.model_fields})

    def _add(self, stage: str, seconds: float) -> None:
        self.spent[stage] = self.spent.get(stage, 0.0) + seconds


def run_recipe(
    recipe: Recipe,
    out: Path | None = None,
    *,
    denoiser: Denoiser | None = None,
    prompts: PromptSet | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    processes: Processes = ALONE,
) -> Unlearned:
    """Carry out a recipe in a run folder.

    Args:
        recipe: what to do.
        out: the run folder; None makes a new one under `runs/`.
        denoiser: a model that is already loaded, instead of `recipe.model`; its weights are trained in place.
        prompts: those of the run, if they are made already; the recipe is not asked for them then.
        resume: continue the run in `out`.
        progress: told how far the work has come; may cancel it.
        processes: who else carries out the same recipe, see `launched`; the first one writes the run folder.

    Raises:
        UserError: something that the user can mend.
        Cancelled: the progress asked to stop; `--resume` goes on from there.
    """
    setting, progress = resolve(recipe), progress or Silent()
    recipe = setting.recipe
    check_processes(recipe.method, recipe.training, processes)
    where = denoiser.device if denoiser else recipe.device
    with repeatable(recipe.training.deterministic, where):
        folder = RunFolder.resume(recipe, out) if resume and out else RunFolder.begin(recipe, out)
        with processes.holding(folder) as run:
            return _carry_out(setting, run, denoiser, prompts, progress, processes, resume)


def _carry_out(
    setting: Setting,
    run: RunFolder,
    denoiser: Denoiser | None,
    given: PromptSet | None,
    progress: Progress,
    processes: Processes,
    resume: bool,
) -> Unlearned:
    """Every stage of a run, in a folder that is held for it."""
    recipe, clock = setting.recipe, _Clock(run, processes)
    warnings: list[str] = []
    with clock("prompts"):
        checked = processes.on_main(lambda: preflight(setting, run.prompts(warnings.append) or given, denoiser))
    warnings += checked.warnings
    prompts = checked.prompts
    stages = stages_of(recipe, denoiser.device if denoiser else None)
    model = denoiser or load_denoiser(recipe.model, recipe.device, recipe.model_config_folder, stages)
    with staged(model, stages if denoiser else model.stages):  # what was loaded may have had to take another device
        results = _worked(setting, run, model, prompts, progress, processes, resume, clock, warnings)
    processes.on_main(lambda: _finish(run, results))
    return Unlearned(model.pipeline, results, run.path)


def _worked(
    setting: Setting,
    run: RunFolder,
    denoiser: Denoiser,
    prompts: PromptSet,
    progress: Progress,
    processes: Processes,
    resume: bool,
    clock: _Clock,
    warnings: list[str],
) -> Results:
    """The stages from the loaded model to its weights, each in its number format and place."""
    recipe = setting.recipe
    warnings += preflight_model(setting, prompts, denoiser, run.path)
    for warning in warnings:
        progress.warn(warning)
    processes.on_main(lambda: run.start(recipe, prompts, denoiser))
    clock.begun = True
    hashes = processes.on_main(lambda: base_hashes(denoiser.module.state_dict()))
    base = snapshot(denoiser.module) if processes.main and needs_base(recipe.output.formats) else None
    work = _Work(setting, run, denoiser, prompts, progress, processes, warnings.append)
    own = next(denoiser.module.parameters()).dtype
    with frozen_base(denoiser, recipe.training):
        with clock("samples"):
            samples = None if recipe.method.closed_form else work.samples()
        with clock("audits"):
            before = processes.on_main(lambda: run.audit(BEFORE, warnings.append)) or work.audit(BEFORE)
        with clock("training"):
            training, trained = work.train(samples, resume) if samples else (work.edit(), None)
        with clock("audits"):
            after = work.audit(AFTER)
    with clock("weights"):
        job = run_job(denoiser, run.path, setting, recipe.output, hashes, after, base, trained, progress)
        written = processes.on_main(lambda: write_weights(job, recipe.output.formats))
    nn.Module.to(denoiser.module, own)  # what a frozen base that came in half precision was worked into is in float32
    return Results(
        concept=recipe.concept,
        kind=recipe.kind,
        method=recipe.method.name,
        instead=prompts.replace_with if recipe.method.redirects else None,
        recipe=recipe.model_dump(mode="json"),
        model=ModelInfo(name=recipe.model, family=denoiser.family, sha256=hashes.sha256),
        training=training,
        audits=Audits(before=before, after=after),
        interference=interference(before.accuracy, after.accuracy),
        timings=clock.timings(),
        weights=written,
        versions=versions(),
        warnings=[*warnings, *undrawable(subject_of(setting), before)],
    )


@dataclass(frozen=True)
class _Work:
    """Everything that the stages of a run share."""

    setting: Setting
    run: RunFolder
    denoiser: Denoiser
    prompts: PromptSet
    progress: Progress
    processes: Processes
    tell: Tell

    def samples(self) -> SampleSet:
        """D_f and D_r: those that the run made before it was stopped, else new ones."""
        run, processes = self.run, self.processes
        kept = run.samples(self.tell)
        if kept and processes.on_main(lambda: kept is not None):
            return kept
        made = samples_of(
            self.denoiser, self.prompts, self.setting.recipe, self.progress, processes, self.show_training_images
        )
        processes.on_main(lambda: run.save_samples(made))
        return made

    def train(self, samples: SampleSet, resume: bool) -> tuple[TrainingResult, Adapter | None]:
        """Fine-tune the model; gives the LoRA, too, if one was trained."""
        recipe = self.setting.recipe
        return train(
            self.denoiser,
            samples,
            recipe.method,
            recipe.training,
            recipe.seed,
            folder=self.run.path,
            resume=resume,
            progress=self.progress,
            processes=self.processes,
            after_step=self.draw_preview if recipe.training.preview_every else None,
            tell=self.tell,
        )

    def edit(self) -> TrainingResult:
        """Edit the model in closed form, every process its own copy."""
        return edit(self.denoiser, self.prompts.rows, self.setting.recipe.method, self.progress)

    def show_training_images(self, term: str, first: int, latents: Tensor) -> None:
        """Keep the first of the images that the model draws for its training, as they come."""
        shown = latents[: max(0, PREVIEWS - first)]
        if self.processes.main and len(shown):
            self.run.save_images(TRAINING, {term: self.denoiser.decode(shown).numpy()}, first=first)

    def audit(self, when: str) -> AuditResult:
        """Draw the audit images of the model as it is now, and measure them."""
        recipe, subject = self.setting.recipe, subject_of(self.setting)
        texts = audit_prompts(self.prompts, recipe.audits, subject)
        images = self._draw(texts, self.progress, when)

        def measured() -> AuditResult:
            self.run.save_images(when, images, texts)
            anchors = audit_anchors(self.prompts, recipe.audits)
            result = measure(images, texts, recipe.audits, subject, self.progress, self.denoiser.device, anchors)
            self.run.save_audit(when, result)
            if result.resemblance is not None:
                self._keep_nearest(when, images[FORGET_TEST], result.resemblance)
            return result

        return self.processes.on_main(measured)

    def _keep_nearest(self, when: str, drawn: np.ndarray, found: ResemblanceResult) -> None:
        """Keep thumbnails of the first pictures to forget, and the drawn pictures that are nearest to them."""
        pictures = find_pictures(self.setting.recipe.data.forget_images or "")[: len(found.nearest)]
        side = min(drawn.shape[1], LARGEST)
        given = np.asarray(to_uint8(read_pictures([each.path for each in pictures], side, side)))
        self.run.save_images(GIVEN, {NEAREST: given}, None)
        self.run.save_images(when, {NEAREST: drawn[[each.image for each in found.nearest]]}, None)

    def draw_preview(self, done: int, progress: Progress) -> None:
        """Draw the first images of the test sets, every so many steps."""
        recipe = self.setting.recipe
        if done % recipe.training.preview_every:
            return
        audited = audit_prompts(self.prompts, recipe.audits, subject_of(self.setting))
        images = self._draw({name: audited[name][:PREVIEWS] for name in TEST_SETS}, progress, "preview")
        self.processes.on_main(lambda: self.run.save_images(preview_name(done), images))

    def _draw(self, texts: Mapping[str, Sequence[str]], progress: Progress, when: str) -> dict[str, np.ndarray]:
        recipe = self.setting.recipe
        return draw(self.denoiser, texts, recipe.samples.sampling(), recipe.seed, progress, when, self.processes)


def _finish(run: RunFolder, results: Results) -> None:
    results.save(run.path / RESULTS)
    run.write_report()
    run.forget_samples()
