"""Serve the page, with every feature of gradio off that it does not need."""

from collections.abc import Sequence
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from .app import CSS, theme
from .guard import LOOPBACK, Guard

LARGEST_UPLOAD = "5mb"


def launch(app: gr.Blocks, host_names: Sequence[str] = (), any_address: bool = False, **settings: Any) -> Any:
    """Serve an app behind its guard.

    Args:
        app: from `build_app`.
        host_names: additional names of this server.
        any_address: whether visitors may call it by any of its IP addresses.
        **settings: for gradio's `launch`.
    """
    guard = Middleware(Guard, hosts=[*LOOPBACK, *host_names], any_address=any_address)
    return app.queue(default_concurrency_limit=8, max_size=200, api_open=False).launch(
        app_kwargs={"middleware": [guard], "docs_url": None, "redoc_url": None, "openapi_url": None},
        theme=theme(),
        css_paths=CSS,
        footer_links=[],
        share=False,
        max_file_size=LARGEST_UPLOAD,
        strict_cors=True,
        enable_monitoring=False,
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        show_error=False,
        allowed_paths=[],
        quiet=True,
        **settings,
    )
