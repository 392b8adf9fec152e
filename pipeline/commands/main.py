"""`turpentine`: every arrow of the data flow as a command."""

import argparse
import json
import logging
import os
import runpy
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..support.errors import Cancelled, UserError
from ..support.version import __version__

USER_MISTAKE, CANCELLED = 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; gives the exit code (2 for the user's mistakes, 130 when cancelled)."""
    _quieten()
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["ui"]:
        return _ui(words[1:])
    parser = build_parser(words[0] if words else "")
    arguments = parser.parse_args(words)
    if not hasattr(arguments, "run"):
        parser.print_help()
        return USER_MISTAKE
    from ..support.processes import launched_rank
    from .terminal import errors

    who = f"process {launched_rank()}: " if launched_rank() else ""
    try:
        arguments.run(arguments)
    except UserError as error:
        errors.print(f"{who}[red]error:[/red] {_escaped(error)}", soft_wrap=True)
        return USER_MISTAKE
    except Cancelled as stop:
        errors.print(f"{who}{_escaped(stop)}", soft_wrap=True)
        return CANCELLED
    except KeyboardInterrupt:
        errors.print("Stopped at once.")
        return CANCELLED
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        errors.print(f"[red]error:[/red] {_escaped(error)}", soft_wrap=True)
        return USER_MISTAKE
    return 0


def build_parser(command: str = "") -> argparse.ArgumentParser:
    """The parser. The recipe's options are added only for the command that needs them."""
    parser = argparse.ArgumentParser(
        prog="turpentine", description="Remove a concept from a text-to-image model and leave the rest as it was."
    )
    parser.add_argument("--version", action="version", version=f"turpentine {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    def add(
        name: str, run: Any, text: str, sections: tuple[str, ...] | None = None, trains: bool = True
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        if sections is not None and command == name:
            from ..schema.fields import TRAINING_IMAGES
            from .options import add_recipe_options

            add_recipe_options(sub, *sections, skip=() if trains else TRAINING_IMAGES)
            sub.add_argument(
                "--recipe",
                type=Path,
                metavar="FILE",
                help="a recipe file, or the name of a shipped one; options win over it",
            )
        return sub

    demo = add("demo", _demo, "unlearn 'astronaut' from the bundled model and show the result")
    demo.add_argument("--concept", default="astronaut", help="what to remove instead; default astronaut")
    demo.add_argument("--kind", default="object", metavar="object|style", help="what sort of concept it is")
    demo.add_argument("--method", default="rgd", help="how to unlearn; default rgd")
    demo.add_argument("--out", type=Path, metavar="DIR", help="run folder; default a new one under runs/")
    demo.add_argument(
        "--quick", action="store_true", help="a few steps and images, to see it work (figures mean little)"
    )

    unlearn = add("unlearn", _unlearn, "unlearn a concept: prompts, samples, training, weights, audits, report", ())
    unlearn.epilog = (
        "Defaults shown are the recipe's own; tiny-canvas and each method have theirs in pipeline/schema/recipes/."
    )
    unlearn.add_argument("--out", type=Path, metavar="DIR", help="run folder; default a new one under runs/")
    unlearn.add_argument("--resume", type=Path, metavar="DIR", help="continue the run in this folder")
    _add_progress_file(unlearn)

    prompts = add(
        "prompts",
        _prompts,
        "make the paired forget/retain prompts",
        ("concept", "kind", "model", "seed", "method", "prompts"),
    )
    prompts.add_argument("--out", type=Path, metavar="FILE", help=".json, .csv or .txt; default: show some")

    model = ("model", "model_config_folder", "seed", "device")
    generate = add("generate", _generate, "draw images with a model", (*model, "samples"), trains=False)
    generate.add_argument("prompt", nargs="*", help="what to draw")
    generate.add_argument("--from", dest="prompt_file", type=Path, metavar="FILE", help="prompts, .txt, .csv or .json")
    generate.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the images")

    audit = add("audit", _audit, "measure a model with the audits of a recipe",
                ("concept", "kind", *model, "method", "prompts", "samples", "audits"), trains=False)  # fmt: skip
    audit.add_argument("--out", type=Path, metavar="FILE", help="write the figures as JSON")
    _add_progress_file(audit)

    bench = add("bench", _bench, "measure the tables of the paper and write their pages; a stopped run goes on")
    bench.add_argument("table", nargs="+", help="names of tables, or 'all'")
    bench.add_argument("--quick", action="store_true", help="a few cells, steps and images, to see it work")
    bench.add_argument("--seeds", default="0", metavar="N,…", help="measure every cell once for each; default 0")
    bench.add_argument("--results", type=Path, metavar="DIR", help="measured cells; default benchmarks/results")
    bench.add_argument("--pages", type=Path, metavar="DIR", help="pages and figures; default docs/results")

    report = add("report", _report, "write report.html and MODEL_CARD.md of a run again")
    report.add_argument("folder", type=Path, metavar="RUN", help="run folder")

    plan = add("plan", _plan, "tell what fits in how much memory while it trains, from the architecture alone")
    plan.add_argument("--model", default="sd14", help="a diffusers folder, or sd14, sd21, sdxl, sd3-medium, flux-dev")
    plan.add_argument("--vram", type=float, metavar="GB", help="memory of your device: tells which settings fit")
    plan.add_argument("--batch-size", type=int, default=1, help="pairs that pass at once; default 1")

    export = add("export", _export, "write more weights formats of a run that has ended")
    if command == "export":
        from .options import add_recipe_options

        add_recipe_options(export, "output")
    export.add_argument("folder", type=Path, metavar="RUN", help="run folder")
    export.add_argument("--base", metavar="MODEL", help="the model that the run started from, if it has moved")

    apply = add("apply", _apply, "put a denoiser, LoRA or delta file onto a model", ("model", "device"))
    apply.add_argument("weights", type=Path, metavar="WEIGHTS", help="a .safetensors file")
    apply.add_argument("--strength", type=float, default=1.0, metavar="X", help="0 = nothing, 1 = as unlearned")
    apply.add_argument("--out", type=Path, required=True, metavar="DIR", help="new diffusers folder")
    apply.add_argument(
        "--dtype", default="fp32", choices=("fp32", "fp16", "bf16"), help="numbers on disk; default fp32"
    )
    apply.add_argument("--any-base", action="store_true", help="go on if the weights were made from another model")

    info = add("info", _info, "show where weights came from and check their hashes, or what a run gave")
    info.add_argument("file", type=Path, metavar="FILE|RUN", help="a .safetensors file or a run folder")
    add("ui", lambda arguments: _ui([]), "open the app in a browser; `turpentine ui --help` lists its options")
    return parser


def _add_progress_file(parser: argparse.ArgumentParser) -> None:
    text = "keep a JSON file that says how far the work has come, for a program that follows it"
    parser.add_argument("--progress-file", type=Path, metavar="FILE", help=text)


def _ui(words: list[str]) -> int:
    """Hand over to the app, which is a program of its own: nothing here imports it."""
    command = f"{(__package__ or '').removesuffix('.pipeline.commands')}.ui"
    before, sys.argv = sys.argv, [command, *words]
    try:
        runpy.run_module(command, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    finally:
        sys.argv = before
    return 0


def _recipe(arguments: argparse.Namespace, extra: dict[str, Any] | None = None) -> Any:
    from ..schema.defaults import build_recipe, merge, read_yaml
    from .options import chosen

    base = read_yaml(arguments.recipe) if getattr(arguments, "recipe", None) else {}
    return build_recipe(merge(merge(base, extra or {}), chosen(arguments)))


def _run(recipe: Any, out: Path | None, resume: bool = False, progress_file: Path | None = None) -> None:
    from ..run.unlearning import run_recipe
    from ..support.processes import launched
    from .terminal import TerminalProgress, before_after_table, console

    processes = launched(recipe.device)
    with TerminalProgress(quiet=not processes.main, file=progress_file if processes.main else None)() as progress:
        try:
            unlearned = run_recipe(recipe, out, resume=resume, progress=progress, processes=processes)
        except Cancelled as stop:
            where = f" Continue with: turpentine unlearn --resume {out}" if out else ""
            raise Cancelled(f"{stop}{where}") from None
    if not processes.main:
        return
    results = unlearned.results
    console.print(before_after_table(results))
    for warning in results.warnings:
        console.print(f"[yellow]warning:[/yellow] {_escaped(warning)}", soft_wrap=True)
    console.print(
        f"{results.training.steps} steps in {results.training.seconds:.0f} s, all in {results.timings.total:.0f} s"
    )
    _show_weights(results.weights, unlearned.run)
    console.print(f"report: {_escaped(unlearned.run / 'report.html')}", soft_wrap=True)


def _demo(arguments: argparse.Namespace) -> None:
    from ..run.folder import new_run_path
    from ..schema.defaults import build_recipe

    chosen: dict[str, Any] = {
        "concept": arguments.concept,
        "kind": arguments.kind,
        "method": {"name": arguments.method},
        "model": "tiny-canvas",
    }
    if arguments.quick:
        chosen |= {
            "prompts": {"n": 8, "n_test": 8},
            "training": {"steps": 4},
            "samples": {"num_inference_steps": 8},
            "audits": {"images": 8, "retain_train_images": 4},
        }
    recipe = build_recipe(chosen)
    _run(recipe, arguments.out or new_run_path(recipe))


def _unlearn(arguments: argparse.Namespace) -> None:
    from ..run.folder import RunFolder, new_run_path
    from .options import chosen

    if arguments.resume:
        if chosen(arguments) or arguments.recipe or arguments.out:
            raise UserError("--resume takes its recipe from the run folder; give no other option beside it.")
        recipe = RunFolder.open(arguments.resume).recipe()
        return _run(recipe, arguments.resume, True, arguments.progress_file)
    recipe = _recipe(arguments)
    return _run(recipe, arguments.out or new_run_path(recipe), False, arguments.progress_file)


def _prompts(arguments: argparse.Namespace) -> None:
    from ..run.unlearning import make_prompts
    from .terminal import console

    prompts = make_prompts(_recipe(arguments))
    for warning in prompts.warnings:
        console.print(f"[yellow]warning:[/yellow] {_escaped(warning)}", soft_wrap=True)
    if arguments.out:
        prompts.save(arguments.out)
        console.print(f"{len(prompts.train)} training and {len(prompts.test)} test pairs: {_escaped(arguments.out)}")
    else:
        console.print(_escaped(prompts.preview()), soft_wrap=True)


def _generate(arguments: argparse.Namespace) -> None:
    from PIL import Image

    from ..data.samples import draw_latents
    from ..models import load_denoiser
    from ..prompts import load_prompts
    from ..support.files import replacing
    from .terminal import TerminalProgress, console

    texts = list(arguments.prompt)
    if arguments.prompt_file:
        texts += [row.prompt for row in load_prompts(arguments.prompt_file)]
    if not texts:
        raise UserError("expected prompts: write some behind the command, or name a file with --from.")
    recipe = _recipe(arguments, {"concept": "none"})
    denoiser = load_denoiser(recipe.model, recipe.device, recipe.model_config_folder)
    with TerminalProgress()() as progress:
        latents = draw_latents(denoiser, texts, recipe.samples.sampling(), recipe.seed, progress, "drawing")
    images = denoiser.decode(latents)
    for index, image in enumerate(images.numpy()):
        with replacing(arguments.out / f"{index:05d}.png") as partial:
            Image.fromarray(image).save(partial)
    console.print(f"{len(images)} images: {_escaped(arguments.out)}", soft_wrap=True)


def _audit(arguments: argparse.Namespace) -> None:
    from ..models import load_denoiser
    from ..run.audit import audit_prompts, draw_audit_images, measure
    from ..run.unlearning import make_prompts
    from ..support.files import write_text
    from .terminal import TerminalProgress, console

    recipe = _recipe(arguments)
    texts = audit_prompts(make_prompts(recipe), recipe)
    denoiser = load_denoiser(recipe.model, recipe.device, recipe.model_config_folder)
    with TerminalProgress(file=arguments.progress_file)() as progress:
        images = draw_audit_images(denoiser, texts, recipe, progress, "")
        result = measure(images, texts, recipe, progress, denoiser.device)
    text = result.model_dump_json(indent=2, exclude_none=True)
    if arguments.out:
        write_text(arguments.out, text + "\n")
    console.print_json(text)


def _bench(arguments: argparse.Namespace) -> None:
    from ...benchmarks.bench import bench
    from ...benchmarks.table import Options
    from .terminal import TerminalProgress, console

    try:
        seeds = tuple(int(seed) for seed in arguments.seeds.split(","))
    except ValueError:
        raise UserError(f"expected whole numbers joined by commas for --seeds, got {arguments.seeds!r}.") from None
    with TerminalProgress()() as progress:
        pages = bench(arguments.table, Options(arguments.quick, seeds), progress, arguments.results, arguments.pages)
    for page in pages:
        console.print(f"page: {_escaped(page)}", soft_wrap=True)


def _report(arguments: argparse.Namespace) -> None:
    from ..report import write_report
    from .terminal import console

    console.print(f"report: {_escaped(write_report(arguments.folder))}", soft_wrap=True)


def _plan(arguments: argparse.Namespace) -> None:
    from ..run.cost import plan
    from .terminal import console, plan_table

    if arguments.batch_size < 1:
        raise UserError(f"--batch-size must be at least 1, got {arguments.batch_size}.")
    plans = plan(arguments.model, batch_size=arguments.batch_size)
    console.print(plan_table(arguments.model, plans, arguments.vram))


def _export(arguments: argparse.Namespace) -> None:
    from ..run.export import export_run
    from ..run.folder import RunFolder
    from ..schema.defaults import build_recipe, merge
    from .options import chosen
    from .terminal import TerminalProgress

    wanted = chosen(arguments)
    if not wanted.get("output", {}).get("formats"):
        raise UserError("expected the formats to write, for example --formats single_file,lora.")
    recipe = RunFolder.open(arguments.folder).recipe()
    output = build_recipe(merge(recipe.model_dump(mode="json"), wanted)).output
    with TerminalProgress()() as progress:
        records = export_run(arguments.folder, output, arguments.base, progress)
    _show_weights(records, arguments.folder)


def _show_weights(records: Sequence[Any], run: Path) -> None:
    from .terminal import console

    for record in records:
        console.print(f"weights ({record.format}): {_escaped(run / record.path)}", soft_wrap=True)
        if record.lora:
            fit = record.lora
            missing = ", ".join(f"{count} {kind}" for kind, count in fit.left_out.items()) or "nothing"
            console.print(
                f"  rank {fit.rank}, relative residual {fit.residual:.3f}; left out: {missing} "
                f"({fit.left_out_share:.1%} of the squared change)",
                soft_wrap=True,
            )


def _apply(arguments: argparse.Namespace) -> None:
    from ..run.export import apply_to_folder
    from .terminal import console

    recipe = _recipe(arguments, {"concept": "none"})
    folder = apply_to_folder(
        arguments.weights,
        recipe.model,
        recipe.device,
        arguments.out,
        arguments.strength,
        arguments.dtype,
        arguments.any_base,
    )
    console.print(f"weights (diffusers): {_escaped(folder)}", soft_wrap=True)


def _info(arguments: argparse.Namespace) -> None:
    from ..run.export import check_run_files
    from ..schema.results import Results
    from ..weights import check_tensors, read_header
    from .terminal import before_after_table, console

    if arguments.file.is_dir():
        results = Results.load(arguments.file / "results.json")
        console.print(before_after_table(results))
        for path, state in check_run_files(arguments.file, results).items():
            console.print(f"{_escaped(path)}: {state}", soft_wrap=True)
        return
    metadata = read_header(arguments.file)
    if not any(key.startswith("turpentine.") for key in metadata):
        raise UserError(f"{arguments.file} was not written by Turpentine; its metadata: {json.dumps(metadata)[:200]}")
    for key, value in metadata.items():
        console.print(f"[bold]{key}[/bold] {_escaped(value)}", soft_wrap=True)
    match check_tensors(arguments.file):
        case False:
            raise UserError(f"the tensors of {arguments.file} are not those that its header was written for.")
        case True:
            console.print("The tensors are those that the header was written for (sha256).")
        case None:
            console.print("The header holds no hash of the tensors, so they could not be checked.")


def _escaped(text: object) -> str:
    from rich.markup import escape

    return escape(str(text))


def _quieten() -> None:
    """Keep the libraries' chatter off the terminal; TURPENTINE_DEBUG=1 brings it back."""
    if os.environ.get("TURPENTINE_DEBUG"):
        return
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    logging.getLogger().setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")


if __name__ == "__main__":
    sys.exit(main())
