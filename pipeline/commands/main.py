"""`turpentine`: every arrow of the data flow as a command, each in a file of its own.

Only the module of the command that was called is imported, so that help and mistakes come at once.
"""

import argparse
import logging
import os
import re
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from ..support.errors import Cancelled, Caution, UserError
from ..support.text import meant
from ..support.version import __version__
from .terminal import errors, escaped, warn

USER_MISTAKE, CANCELLED = 2, 130

COMMANDS = {
    "demo": "remove 'astronaut' from the bundled model and show the result",
    "unlearn": "remove a concept: prompts, samples, training, weights, audits, report",
    "prompts": "make the paired forget and retain prompts",
    "generate": "draw images with a model",
    "audit": "measure a model with the audits of a recipe",
    "report": "write report.html and MODEL_CARD.md of a run again",
    "export": "write more weights formats of a finished run",
    "apply": "put a denoiser, LoRA or delta file onto a model",
    "undo": "take one concept back from an unlearned model",
    "info": "show where weights came from and check their hashes, or show what a run gave",
    "plan": "compute how much memory training needs, from the architecture alone",
    "bench": "measure the tables of the paper and write their pages; a stopped bench goes on",
    "ui": "open the app in a browser",
}
"""Each is a module of this folder with `add_arguments(parser)`, `run(arguments)` and, where they help, `EXAMPLES`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; gives the exit code (2 for the user's mistakes, 130 when cancelled)."""
    _quieten()
    words = list(sys.argv[1:] if argv is None else argv)
    parser = build_parser(words[0] if words else "")
    arguments = parser.parse_args(words)
    if not hasattr(arguments, "run"):
        parser.print_help()
        return USER_MISTAKE
    rank = os.environ.get("RANK", "0")  # set by torchrun and accelerate
    who = f"process {rank}: " if rank != "0" else ""
    try:
        arguments.run(arguments)
    except UserError as error:
        errors.print(f"{who}[red]error:[/red] {escaped(error)}", soft_wrap=True)
        return USER_MISTAKE
    except Cancelled as stop:
        errors.print(f"{who}{escaped(stop)}", soft_wrap=True)
        return CANCELLED
    except KeyboardInterrupt:
        errors.print("Stopped at once.")
        return CANCELLED
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        errors.print(f"[red]error:[/red] {escaped(error)}", soft_wrap=True)
        return USER_MISTAKE
    return 0


class Parser(argparse.ArgumentParser):
    """Names the option of the command that comes nearest to one that it doesn't know."""

    command: argparse.ArgumentParser | None = None

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and leave."""
        strange = re.search(r"unrecognized arguments:.*?(--[\w-]+)", message)
        known = re.findall(r"--[\w-]+", self.command.format_help()) if self.command else []
        near = meant(strange[1], known) if strange else ""
        super().error(f"{message}; did you mean {near}?" if near else message)


def build_parser(command: str = "") -> Parser:
    """The parser. Options are added only for `command`, the one that was called."""
    parser = Parser(
        prog="turpentine",
        description="Remove a concept from a text-to-image model and leave the rest as it was.",
        epilog="`turpentine COMMAND --help` lists the options of a command, with examples.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"turpentine {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, text in COMMANDS.items():
        chosen = commands.add_parser(
            name,
            help=text,
            description=_sentence(text),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        if name == command:
            module = import_module(f".{name}", __package__)
            module.add_arguments(chosen)
            chosen.set_defaults(run=module.run)
            chosen.epilog = getattr(module, "EXAMPLES", None)
            parser.command = chosen
    return parser


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _quieten() -> None:
    """Keep the libraries' chatter off the terminal, not our own warnings; TURPENTINE_DEBUG=1 brings it back."""
    if os.environ.get("TURPENTINE_DEBUG"):
        return
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    logging.getLogger().setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    warnings.filterwarnings("default", category=Caution)
    warnings.showwarning = lambda message, *_, **__: warn(str(message))


if __name__ == "__main__":
    sys.exit(main())
