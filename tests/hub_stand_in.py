"""A stand-in of the Hugging Face hub on this machine: it serves the files of folders as `huggingface_hub` asks."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any


@contextmanager
def hub(repositories: Mapping[str, Path]) -> Iterator[str]:
    """Serve each repository (`datasets/OWNER/NAME` or `models/OWNER/NAME`) from a folder, the same at any commit.

    Gives the address for the environment variable HF_ENDPOINT.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def log_message(self, *_: Any) -> None:
            pass

        def _answer(self, *, body: bool) -> None:
            path = self.path.split("?")[0].strip("/")
            if asked := re.fullmatch(r"api/((?:datasets|models)/[^/]+/[^/]+)/(revision|tree)/([^/]+)", path):
                self._describe(*asked.groups(), body=body)
            elif asked := re.fullmatch(r"((?:datasets/)?[^/]+/[^/]+)/resolve/([^/]+)/(.*)", path):
                name = asked[1] if asked[1].startswith("datasets/") else f"models/{asked[1]}"
                self._send_file(repositories.get(name, Path("/nowhere")) / asked[3], asked[2], body=body)
            else:
                self._send(404, b"", {}, body=body)

        def _describe(self, name: str, what: str, commit: str, *, body: bool) -> None:
            if name not in repositories:
                self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body=body)
                return
            folder = repositories[name]
            files = {str(file.relative_to(folder)): file for file in folder.rglob("*") if file.is_file()}
            tree = [
                {"type": "file", "path": path, "size": file.stat().st_size, "oid": commit}
                for path, file in files.items()
            ]
            about = {"id": name.split("/", 1)[1], "sha": commit, "siblings": [{"rfilename": path} for path in files]}
            found = tree if what == "tree" else about | {"tags": [], "private": False}
            self._send(200, json.dumps(found).encode(), {"Content-Type": "application/json"}, body=body)

        def _send_file(self, file: Path, commit: str, *, body: bool) -> None:
            if not file.is_file():
                self._send(404, b"", {"X-Error-Code": "EntryNotFound"}, body=body)
                return
            data = file.read_bytes()
            etag = f'"{hashlib.sha256(data).hexdigest()}"'
            self._send(200, data, {"ETag": etag, "X-Repo-Commit": commit}, body=body)

        def _send(self, code: int, data: bytes, headers: dict[str, str], *, body: bool) -> None:
            self.send_response(code)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
