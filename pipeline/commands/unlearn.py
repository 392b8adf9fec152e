"""`turpentine unlearn`: the main job, from a recipe to a report."""

import argparse
from pathlib import Path

from ..schema.defaults import build_recipe
from ..schema.recipe import Recipe
from ..support.errors import Cancelled, UserError
from .options import add_progress_file, add_recipe_file, add_recipe_options, chosen, nested_options, path_of
from .terminal import TerminalProgress, console, escaped, warn

EXAMPLES = """examples:
  turpentine unlearn --concept cat
  turpentine unlearn --concept "pop art" --kind style --method esd-x
  turpentine unlearn --recipe nudity-sd14 --device cuda
  turpentine unlearn --resume runs/cat-rgd-20260101-120000

The defaults shown are those of rgd on tiny-canvas, or of the method that has the option; models and methods have
theirs in pipeline/schema/recipes/."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options: the whole recipe, and where the run goes."""
    add_recipe_options(parser)
    add_recipe_file(parser)
    parser.add_argument("--out", type=path_of, metavar="DIR", help="run folder; default a new one under runs/")
    parser.add_argument("--resume", type=path_of, metavar="DIR", help="continue the run in this folder")
    add_progress_file(parser)


def run(arguments: argparse.Namespace) -> None:
    """Start a run, or continue one."""
    from ..run.folder import REPORT, RunFolder  # heavy: torch and diffusers

    if arguments.resume:
        if chosen(arguments) or arguments.recipe is not None or arguments.out:
            raise UserError("--resume takes its recipe from the run folder; give no other option beside it.")
        folder = RunFolder.open(arguments.resume)
        recipe = folder.recipe(warn)
        missing = folder.missing(warn)
        if missing is not None and set(missing) <= set(REPORT):
            with folder.locked():
                if missing:
                    folder.write_report()
                folder.forget_samples()
            console.print(
                f"{escaped(folder.path)} is finished: its weights are in {escaped(folder.path / 'weights')}. "
                "`turpentine export` writes more formats.",
                soft_wrap=True,
            )
            return
        carry_out(recipe, arguments.resume, resume=True, progress_file=arguments.progress_file)
    else:
        carry_out(build_recipe(nested_options(arguments)), arguments.out, progress_file=arguments.progress_file)


def carry_out(recipe: Recipe, out: Path | None, *, resume: bool = False, progress_file: Path | None = None) -> None:
    """Run a recipe with a bar for each stage, and show what it gave."""
    from ..run.folder import new_run_path  # heavy: torch and diffusers
    from ..run.unlearning import run_recipe
    from ..support.processes import launched
    from .figures import show_course, show_figures, show_weights

    out = out or new_run_path(recipe)
    processes = launched(recipe.device)
    with TerminalProgress(quiet=not processes.main, file=progress_file if processes.main else None)() as progress:
        try:
            unlearned = run_recipe(recipe, out, resume=resume, progress=progress, processes=processes)
        except Cancelled as stop:
            raise Cancelled(f"{stop} Continue with: turpentine unlearn --resume {out}") from None
    if not processes.main:
        return
    results = unlearned.results
    show_figures(results)
    for warning in results.warnings:
        if warning not in progress.told:
            warn(warning)
    show_course(results)
    show_weights(results.weights, unlearned.run)
    console.print(f"report: {escaped(unlearned.run / 'report.html')}", soft_wrap=True)
