"""Puts the page on a port: the loopback's unless told otherwise, and nothing from elsewhere."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lavi_bridge.errors import BridgeError
from lavi_bridge.page.studio import Studio
from lavi_bridge.train.finding import Runs

if TYPE_CHECKING:
    from fastapi import FastAPI

POLICY = (
    "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; frame-ancestors 'self'; "
    "object-src 'none'; base-uri 'self'; form-action 'self'"
)
"""What a browser may load: this server's files and what is inside the page."""


def web(
    studio: Studio, *, host: str, port: int, waiting: int = 16, runs: Runs | None = None
) -> FastAPI:
    """The page as an ASGI application.

    Raises:
        BridgeError: Gradio is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    try:
        import gradio as gr
        from fastapi import FastAPI
    except ImportError as error:
        raise BridgeError("the page needs Gradio: pip install 'lavi-bridge[page]'") from error
    from lavi_bridge.page.app import App
    from lavi_bridge.page.looks import HEAD, css, theme

    app = App(studio, waiting=waiting, runs=runs)
    # Gradio looks at what a form names only where it has started the server itself
    app.blocks.has_launched = True
    for block in app.blocks.blocks.values():
        block.async_move_resource_to_block_cache = _only_sent
    server = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @server.middleware("http")
    async def guarded(request: Any, call_next: Any) -> Any:
        answer = await call_next(request)
        answer.headers["Content-Security-Policy"] = POLICY
        answer.headers["X-Content-Type-Options"] = "nosniff"
        return answer

    return gr.mount_gradio_app(
        server,
        app.blocks,
        path="",
        server_name=host,
        server_port=port,
        footer_links=[],
        theme=theme(),
        css=css(),
        head=HEAD,
        show_error=False,
        max_file_size="1mb",
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
    )


async def _only_sent(path: Any) -> str | None:
    """A file that a form names, if it was sent: no other file, and nothing from elsewhere."""
    import gradio as gr
    from gradio.utils import get_upload_folder

    if path is None:
        return None
    sent = Path(get_upload_folder()).resolve()
    if not Path(path).resolve().is_relative_to(sent):
        raise gr.Error("that file was not sent")
    return str(path)


def serve(
    studio: Studio, *, host: str, port: int, waiting: int = 16, runs: Runs | None = None
) -> None:
    """Serve the page until interrupted.

    Raises:
        BridgeError: Gradio is not installed, or the port is taken.
    """
    server = web(studio, host=host, port=port, waiting=waiting, runs=runs)
    import uvicorn

    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise BridgeError(
            f"cannot listen on {host}, port {port} ({error.strerror}): give another --port"
        ) from error
    with listening:
        print(f"http://{host}:{listening.getsockname()[1]}  (Ctrl-C ends it)", flush=True)
        config = uvicorn.Config(server, log_level="warning", timeout_graceful_shutdown=2)
        uvicorn.Server(config).run(sockets=[listening])
