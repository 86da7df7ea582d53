"""A stand-in of the Hugging Face hub that takes uploads: repositories, modes of files, large files, commits."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

LARGE = 64
"""Bytes from which a file is stored apart from the repository."""


@dataclass
class Hub:
    """What the hub has, what it was asked, and how it fails."""

    address: str = ""
    token: str = "hf_right"
    may_write: bool = True
    repositories: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By name: `private`, `tags`, and `files` with their contents."""
    stored: dict[str, bytes] = field(default_factory=dict)
    """Large files by their SHA-256."""
    asked: list[str] = field(default_factory=list)
    uploads: list[int] = field(default_factory=list)
    """The bytes of each large file that was sent."""
    breaks_from: int | None = None
    """The connection breaks at every upload of a large file from this one on."""
    answers: dict[str, int] = field(default_factory=dict)
    """By a part of the path, an error that the hub answers."""


@contextmanager
def serve() -> Iterator[Hub]:
    """A hub on this machine, until the block ends."""
    hub = Hub()

    class Handler(_Handler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    state: Hub

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    def do_PUT(self) -> None:
        hub, content = self.state, self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if hub.breaks_from is not None and len(hub.uploads) >= hub.breaks_from:
            self.close_connection = True
            self.connection.close()
            return
        hub.uploads.append(len(content))
        hub.stored[hashlib.sha256(content).hexdigest()] = content
        self._send(200, {})

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, sent: bytes) -> None:
        hub, path = self.state, self.path.split("?")[0]
        hub.asked.append(path)
        for part, status in hub.answers.items():
            if part in path:
                self._send(status, {"error": "no"})
                return
        if self.headers.get("Authorization") != f"Bearer {hub.token}":
            self._send(401, {"error": "Invalid credentials in Authorization header"})
        elif path == "/api/validate-yaml":
            wrong = [] if "pipeline_tag: text-generation" in json.loads(sent)["content"] else [{"message": "no tag"}]
            self._send(400 if wrong else 200, {"errors": wrong, "warnings": []})
        elif path == "/api/repos/create":
            self._create(json.loads(sent))
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(preupload|commit)/main)?", path):
            self._of_repository(found[1], found[2], sent)
        elif path.endswith("/info/lfs/objects/batch"):
            self._batch(json.loads(sent))
        else:
            self._send(404, {})

    def _create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted['organization']}/{wanted['name']}"
        if not self.state.may_write:
            self._send(403, {"error": "You don't have the rights to create a model under this namespace"})
            return
        status = 409 if name in self.state.repositories else 200
        private = wanted.get("visibility") == "private"
        self.state.repositories.setdefault(name, {"private": private, "tags": [], "files": {".gitattributes": b""}})
        self._send(status, {"url": f"{self.state.address}/{name}"})

    def _of_repository(self, name: str, what: str | None, sent: bytes) -> None:
        repository = self.state.repositories.get(name)
        if repository is None:
            self._send(404, {}, {"X-Error-Code": "RepoNotFound"})
        elif what is None:
            files = [{"rfilename": file} for file in repository["files"]]
            facts = {"private": repository["private"], "tags": repository["tags"], "siblings": files}
            self._send(200, {"id": name, "sha": "0" * 40} | facts)
        elif not self.state.may_write:
            self._send(403, {"error": "Forbidden"})
        elif what == "preupload":
            files = json.loads(sent)["files"]
            modes = [("lfs" if file["size"] >= LARGE and file["path"] != "README.md" else "regular") for file in files]
            told = [{"path": file["path"], "shouldIgnore": False} for file in files]
            self._send(200, {"files": [one | {"uploadMode": mode} for one, mode in zip(told, modes, strict=True)]})
        else:
            self._commit(name, repository, sent)

    def _batch(self, wanted: dict[str, Any]) -> None:
        found = []
        for one in wanted["objects"]:
            action = {"upload": {"href": f"{self.state.address}/store/{one['oid']}"}}
            found.append(one if one["oid"] in self.state.stored else one | {"actions": action})
        self._send(200, {"transfer": "basic", "objects": found})

    def _commit(self, name: str, repository: dict[str, Any], sent: bytes) -> None:
        for line in map(json.loads, sent.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                repository["files"][value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                repository["files"][value["path"]] = self.state.stored[value["oid"]]
        if b"- potstill\n" in repository["files"].get("README.md", b""):
            repository["tags"] = ["potstill"]
        self._send(
            200, {"success": True, "commitOid": "1" * 40, "commitUrl": f"{self.state.address}/{name}/commit/main"}
        )

    def _send(self, code: int, value: Any, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(value).encode()
        self.send_response(code)
        for name, said in {
            "Content-Type": "application/json",
            "Content-Length": str(len(content)),
            **(headers or {}),
        }.items():
            self.send_header(name, said)
        self.end_headers()
        self.wfile.write(content)
