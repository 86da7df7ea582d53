"""Watch: a run while it is at work, as a page on this machine or in the terminal. It reads the run folder only."""

import json
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from potstill.errors import UserError
from potstill.pipeline.live import look
from potstill.pipeline.run_folder import Run
from potstill.report.live import page, terminal_view

HOST = "127.0.0.1"
SECONDS_BETWEEN_LOOKS = 2.0
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; connect-src 'self'"


def watch(folder: Path, port: int, *, terminal: bool) -> None:
    """Show a run until Ctrl-C.

    Args:
        folder: the run folder.
        port: the port of the page; 0: a free one.
        terminal: show it here instead.

    Raises:
        UserError: the folder is no run, or the port is taken.
    """
    look(folder)
    try:
        if terminal:
            _in_terminal(folder)
            return
        with make_server(folder, port) as server:
            print(
                f"watch {folder} at http://{HOST}:{server.server_port}/ (Ctrl-C ends it; the run goes on)", flush=True
            )
            server.serve_forever()
    except KeyboardInterrupt:
        return


def make_server(folder: Path, port: int) -> ThreadingHTTPServer:
    """A server of the page and of what it polls, for this machine alone.

    Raises:
        UserError: the port is taken, or may not be used.
    """

    class OfThisRun(_PageHandler):
        run = folder

    try:
        return ThreadingHTTPServer((HOST, port), OfThisRun)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UserError(
            f"port {port} cannot be used ({reason}); choose another `--port`, or 0 for a free one"
        ) from error


class _PageHandler(BaseHTTPRequestHandler):
    run: Path
    server: ThreadingHTTPServer

    def do_GET(self) -> None:
        # A page of another origin can make its own name mean this machine. The browser then sends that name.
        if self.headers.get("Host") not in {f"{name}:{self.server.server_port}" for name in (HOST, "localhost")}:
            self._send(HTTPStatus.FORBIDDEN, "text/plain", "this page is for this machine alone")
        elif self.path == "/":
            self._send(HTTPStatus.OK, "text/html", page(self.run.resolve().name))
        elif self.path == "/state.json":
            self._send(*_state(self.run))
        elif self.path == "/report" and (report := Run(self.run).path("report") / "index.html").is_file():
            self._send(HTTPStatus.OK, "text/html", report.read_text(encoding="utf-8"))
        else:
            self._send(HTTPStatus.NOT_FOUND, "text/plain", "there is no such page")

    def _send(self, status: HTTPStatus, kind: str, text: str) -> None:
        content = text.encode()
        self.send_response(status)
        for name, value in {
            "Content-Type": f"{kind}; charset=utf-8",
            "Content-Length": str(len(content)),
            "Content-Security-Policy": POLICY,
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing: the page asks every two seconds."""


def _state(folder: Path) -> tuple[HTTPStatus, str, str]:
    """The answer to the page: the run, or a sentence that says why it cannot be read now."""
    try:
        return HTTPStatus.OK, "application/json", json.dumps(look(folder).to_dict())
    except UserError as error:
        return HTTPStatus.SERVICE_UNAVAILABLE, "application/json", json.dumps({"error": str(error)})


def _in_terminal(folder: Path) -> None:
    from rich.live import Live

    with Live(terminal_view(look(folder).to_dict()), auto_refresh=False) as live:
        while True:
            try:
                live.update(terminal_view(look(folder).to_dict()), refresh=True)
            except UserError as error:
                live.update(str(error), refresh=True)
            time.sleep(SECONDS_BETWEEN_LOOKS)
