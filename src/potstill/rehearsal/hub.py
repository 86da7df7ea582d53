"""Hub: a stand-in of the Hugging Face hub on this machine. It serves the files of folders as the hub's clients ask."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

COMMIT = "0" * 40
"""The commit of every repository, whatever branch or tag is asked for."""
API = re.compile(r"api/((?:datasets|models)/[^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?")
FILE = re.compile(r"((?:datasets/)?[^/]+/[^/]+)/resolve/([^/]+)/(.*)")
IS_COMMIT = re.compile(r"[0-9a-f]{40}")


@contextmanager
def hub(repositories: Mapping[str, Path]) -> Iterator[str]:
    """Serve each repository (`datasets/OWNER/NAME` or `models/OWNER/NAME`) from a folder, the same at any revision.

    Gives the address for the environment variable HF_ENDPOINT. It is reached from this machine only.
    """

    class Handler(_Handler):
        folders = repositories

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    folders: Mapping[str, Path]

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self) -> None:
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.split("?")[0].strip("/").replace("%2F", "/")
        if asked := API.fullmatch(path):
            self._describe(asked, sent)
        elif asked := FILE.fullmatch(path):
            name = asked[1] if asked[1].startswith("datasets/") else f"models/{asked[1]}"
            self._send_file(self.folders.get(name, Path("/nowhere")) / asked[3], _commit(asked[2]))
        else:
            self._send(404, b"", {})

    def _describe(self, asked: "re.Match[str]", sent: bytes) -> None:
        name, what, revision, below = asked.groups()
        if name not in self.folders:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            return
        every, commit = _entries(self.folders[name]), _commit(revision)
        found: Any = {"id": name.split("/", 1)[1], "sha": commit, "tags": [], "private": False}
        found["siblings"] = [{"rfilename": one["path"]} for one in every if one["type"] == "file"]
        if what == "paths-info":
            wanted = set(json.loads(sent)["paths"])
            found = [one for one in every if one["path"] in wanted]
        elif what == "tree":
            found = [one for one in every if _is_below(one["path"], below or "", "recursive=true" in self.path.lower())]
            if not found:
                self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
                return
        self._send(200, json.dumps(found).encode(), {"Content-Type": "application/json"})

    def _send_file(self, file: Path, commit: str) -> None:
        if not file.is_file():
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        data = file.read_bytes()
        headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if part is None:
            self._send(200, data, headers)
            return
        first, last = int(part[1]), min(int(part[2] or len(data)), len(data) - 1)
        self._send(206, data[first : last + 1], headers | {"Content-Range": f"bytes {first}-{last}/{len(data)}"})

    def _send(self, code: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _commit(revision: str | None) -> str:
    return revision if revision and IS_COMMIT.fullmatch(revision) else COMMIT


def _entries(folder: Path) -> list[dict[str, Any]]:
    """The files and folders of a repository, as the hub lists them."""
    found = []
    for path in sorted(folder.rglob("*")):
        kind, size = ("directory", 0) if path.is_dir() else ("file", path.stat().st_size)
        found.append({"type": kind, "path": path.relative_to(folder).as_posix(), "size": size, "oid": COMMIT})
    return found


def _is_below(path: str, folder: str, recursive: bool) -> bool:
    inside = path.removeprefix(f"{folder}/") if folder else path
    return (not folder or inside != path) and (recursive or "/" not in inside)
