"""`turpentine plan`: memory while training, computed from the architecture."""

import argparse
import math
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ..support.errors import UserError
from ..support.text import GB
from .terminal import console

if TYPE_CHECKING:
    from ..run.cost import Plan

EXAMPLES = """examples:
  turpentine plan --model sd14 --vram 12
  turpentine plan --model path/to/diffusers-folder --batch-size 4"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the model and the device's memory."""
    known = "a diffusers folder, or a public model such as sd14 or sdxl; an unknown name lists them; default sd14"
    parser.add_argument("--model", default="sd14", help=known)
    parser.add_argument("--vram", type=float, metavar="GB", help="memory of your device: shows which settings fit")
    parser.add_argument("--batch-size", type=int, default=1, metavar="N", help="pairs that pass at once; default 1")


def run(arguments: argparse.Namespace) -> None:
    """Show a table of the settings that save memory."""
    from ..run.cost import plan  # heavy: torch and diffusers

    if arguments.batch_size < 1:
        raise UserError(f"--batch-size must be at least 1, got {arguments.batch_size}.")
    if arguments.vram is not None and not 0 < arguments.vram < math.inf:
        raise UserError(f"--vram must be above 0 GB, got {arguments.vram:g}.")
    plans = plan(arguments.model, batch_size=arguments.batch_size)
    console.print(plan_table(arguments.model, plans, arguments.vram))


def plan_table(model: str, plans: "list[Plan]", vram: float | None = None) -> Table:
    """Gigabytes of each setting; with `vram` (GB) also which of them fit, a tenth left free."""
    title = f"{model}: GB while training" + (f", and what fits in {vram:g} GB" if vram else "")
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("setting")
    for heading in ("weights", "Adam", "gradients", "activations", "total", *(["fits"] if vram else [])):
        table.add_column(heading, justify="right", no_wrap=True, min_width=len(heading))
    for plan in plans:
        parts = (plan.weights, plan.optimizer, plan.gradients, plan.activations, plan.total)
        cells = [f"{part / GB:.1f}" for part in parts]
        fits = ["yes" if plan.total < 0.9 * vram * GB else "no"] if vram else []
        table.add_row(plan.name, *cells, *fits)
    return table
