"""`turpentine ui`, `python -m turpentine.ui`: start the app."""

import argparse
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..pipeline.commands.options import path_of
from ..pipeline.support.errors import UserError

DEFAULT_PORT = 7860


EXAMPLES = """examples:
  turpentine ui
  turpentine ui --port 8000 --models path/to/models --export-to ComfyUI=path/to/ComfyUI/models/loras
  turpentine ui --listen --auth name:password"""


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="turpentine ui",
        description="Open the app in a browser.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_arguments(parser)
    try:
        run(parser.parse_args(argv))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def run(arguments: argparse.Namespace) -> None:
    """Serve until Ctrl-C.

    Raises:
        UserError: the options contradict each other, or the port is taken.
    """
    settings = launch_settings(arguments)
    try:
        serve(arguments, settings)
    except OSError as error:
        raise UserError(f"can't serve on port {arguments.port}: {error}. Choose another with --port.") from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the app."""
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help=f"default {DEFAULT_PORT}")
    parser.add_argument(
        "--runs", type=path_of, default=Path("runs"), metavar="DIR", help="folder of all runs; default runs/"
    )
    parser.add_argument(
        "--models",
        type=path_of,
        action="append",
        default=[],
        metavar="DIR",
        help="a folder whose models visitors may choose; repeatable",
    )
    parser.add_argument(
        "--export-to",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="a folder that weights may be copied into, e.g. ComfyUI=~/ComfyUI/models/diffusion_models; repeatable",
    )
    parser.add_argument(
        "--allow-hub", action="store_true", help="let visitors name models by hub id, which downloads them"
    )
    parser.add_argument("--llm-url", metavar="URL", help="OpenAI-compatible server that suggests sub-concepts")
    parser.add_argument("--llm-model", metavar="NAME", help="the model of that server")
    parser.add_argument("--quota", type=float, default=50.0, metavar="GB", help="disk space for all runs; default 50")
    parser.add_argument("--listen", action="store_true", help="serve other computers too; needs --auth or --no-auth")
    parser.add_argument(
        "--auth",
        metavar="USER:PASSWORD",
        default=os.environ.get("TURPENTINE_AUTH"),
        help="ask visitors for this name and password; safer in the environment variable TURPENTINE_AUTH",
    )
    parser.add_argument("--no-auth", action="store_true", help="with --listen: let everybody in")
    parser.add_argument(
        "--host-name", action="append", default=[], metavar="NAME", help="another name of this server; repeatable"
    )
    parser.add_argument("--open", action="store_true", help="open the page in the browser of this computer")


def launch_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Choose the address and the password of the web server.

    Raises:
        UserError: the options contradict each other.
    """
    if arguments.listen and not arguments.auth and not arguments.no_auth:
        raise UserError(
            "--listen opens the app to the network. Add --auth USER:PASSWORD, or --no-auth to let everybody in."
        )
    if arguments.auth and arguments.no_auth:
        raise UserError("--auth and --no-auth contradict each other. Give one of them.")
    user, colon, password = (arguments.auth or "").partition(":")
    if arguments.auth and not (user and colon and len(password) >= 8):
        raise UserError("expected --auth USER:PASSWORD with a password of at least 8 characters.")
    if arguments.quota <= 0:
        raise UserError(f"expected a --quota above 0 GB, got {arguments.quota:g}.")
    return {
        "server_name": "0.0.0.0" if arguments.listen else "127.0.0.1",  # noqa: S104 - asked for, with a guard
        "auth": (user, password) if arguments.auth else None,
    }


def serve(arguments: argparse.Namespace, settings: dict[str, Any]) -> None:
    """Build the app and serve it until Ctrl-C.

    Raises:
        UserError: a folder is missing, or gradio is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import gradio  # noqa: F401
    except ModuleNotFoundError:
        from ..pipeline.support.errors import MissingExtra

        raise MissingExtra("gradio", "ui", "The app") from None
    from .access import Access
    from .app import build_app
    from .launch import launch
    from .runner import Runner

    runs = arguments.runs.resolve()
    runs.mkdir(parents=True, exist_ok=True)
    access = Access(
        runs=runs,
        models=tuple(_folder(path) for path in arguments.models),
        exports=dict(_export(text) for text in arguments.export_to),
        hub=arguments.allow_hub,
        quota=int(arguments.quota * 1e9),
        llm_url=arguments.llm_url,
        llm_model=arguments.llm_model,
    )
    runner = Runner(access)
    names = [*arguments.host_name, *([socket.gethostname()] if arguments.listen else [])]
    app = build_app(access, runner)
    runner.start()
    print(f"Turpentine: http://127.0.0.1:{arguments.port}/  (Ctrl-C to stop; runs go on)", flush=True)
    try:
        launch(app, names, arguments.listen, server_port=arguments.port, inbrowser=arguments.open, **settings)
    finally:
        runner.close()


def _folder(path: Path) -> Path:
    if not path.expanduser().is_dir():
        raise UserError(f"expected a folder, got {path}.")
    return path.expanduser().resolve()


def _export(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise UserError(f"expected --export-to NAME=DIR, got {text!r}.")
    return name, _folder(Path(path))


if __name__ == "__main__":
    sys.exit(main())
