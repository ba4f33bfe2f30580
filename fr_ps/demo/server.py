"""Serves the page on this computer only: no analytics, no shared link, no fonts or scripts of other servers."""

import os
import socket
import tempfile
from importlib.util import find_spec

from fr_ps.demo.demonstrator import Demonstrator
from fr_ps.errors import InputError, one_line
from fr_ps.progress import echo

HOST = "127.0.0.1"
_MAX_FILE_SIZE = "1gb"
_SHUTDOWN_SECONDS = 1
"""An open page keeps a connection. It is closed after this time."""


def check_extra() -> None:
    """Raise an InputError if Gradio is not installed."""
    if find_spec("gradio") is None:
        raise InputError("the demonstrator needs Gradio, which is not installed; pip install 'fr-ps[demo]'")


def bind_port(port: int) -> socket.socket:
    """A socket of this computer only at `port`.

    Raises:
        InputError: another process uses the port, or it is not allowed.
    """
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((HOST, port))
    except OSError as error:
        bound.close()
        raise InputError(f"--port {port}: cannot be opened on {HOST} ({one_line(error)}); give another --port") from None
    return bound


def serve(demonstrator: Demonstrator, bound: socket.socket) -> None:
    """Serve the page on the socket of `bind_port` until SIGINT or SIGTERM. Uploads are deleted then.

    Raises:
        KeyboardInterrupt, SystemExit: always, at the signal.
    """
    port = bound.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="fr_ps_demo_") as uploads:
        # Gradio reads these when it is imported or builds a page.
        os.environ |= {"GRADIO_TEMP_DIR": uploads, "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
        import gradio as gr
        import uvicorn
        from fastapi import FastAPI
        from fastapi.middleware.trustedhost import TrustedHostMiddleware

        from fr_ps.demo.page import STYLE_FILE, build_page

        app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        # Pages of other sites cannot read this one under a name of their own that they point to this address.
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
        gr.mount_gradio_app(
            app,
            build_page(demonstrator),
            path="/",
            server_name=HOST,
            server_port=port,
            footer_links=[],
            run_history=False,
            show_error=False,
            max_file_size=_MAX_FILE_SIZE,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            theme=gr.themes.Default(
                primary_hue="indigo", font=("system-ui", "sans-serif"), font_mono=("ui-monospace", "monospace")
            ),
            css=STYLE_FILE.read_text(encoding="utf-8"),
        )
        echo(f"demo: http://{HOST}:{port} (Ctrl-C ends it)")
        # At the end, connections of open pages are cut, which uvicorn logs as errors. Gradio prints those of the page itself.
        config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=_SHUTDOWN_SECONDS)
        uvicorn.Server(config).run([bound])
        raise KeyboardInterrupt  # the server ended by SIGINT, which asyncio swallows if it comes at certain moments
