"""`turpentine demo`: the whole experience on the bundled model."""

import argparse
from typing import Any

from ..schema.defaults import build_recipe
from .options import path_of
from .unlearn import carry_out

EXAMPLES = """examples:
  turpentine demo
  turpentine demo --concept "pop art" --kind style
  turpentine demo --quick"""

_SEEN: dict[str, Any] = {
    "training": {"preview_every": 25},
    "audits": {"images": 60, "retain_train_images": 20},
}
"""Pictures while the model trains, and fewer of them measured than in a run for its own sake."""

_QUICK: dict[str, Any] = {
    "prompts": {"n": 8, "n_test": 8},
    "training": {"steps": 4, "preview_every": 2},
    "samples": {"num_inference_steps": 8},
    "audits": {"images": 8, "retain_train_images": 4},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--concept", default="astronaut", help="what to remove instead; default astronaut")
    parser.add_argument("--kind", default="object", metavar="object|style", help="sort of concept; default object")
    parser.add_argument("--method", default="rgd", help="unlearning method; default rgd")
    parser.add_argument("--out", type=path_of, metavar="DIR", help="run folder; default a new one under runs/")
    parser.add_argument(
        "--quick", action="store_true", help="a few steps and images, to see it work; the figures mean little"
    )


def run(arguments: argparse.Namespace) -> None:
    """Carry out the demo."""
    chosen: dict[str, Any] = {
        "concept": arguments.concept,
        "kind": arguments.kind,
        "method": {"name": arguments.method},
        "model": "tiny-canvas",
    }
    carry_out(build_recipe(chosen | (_QUICK if arguments.quick else _SEEN)), arguments.out)
