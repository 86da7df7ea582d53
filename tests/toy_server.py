"""`potstill serve` in a thread of a test, with a tiny teacher."""

import asyncio
import json
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.error import HTTPError

from aiohttp import web
from transformers import PreTrainedModel

from potstill.recipe.teachers import ModelTeacher
from potstill.teachers.prepare import prepare
from potstill.teachers.prepared import PreparedTeacher
from potstill.teachers.serving.hosted_model import HostedModel
from potstill.teachers.serving.server import running
from tiny import save_model


def prepared(model: PreTrainedModel, folder: Path) -> PreparedTeacher:
    """A teacher as the `teachers` stage prepares it, in float32."""
    teacher = ModelTeacher(model=str(save_model(model, folder / "model")), dtype="float32")
    return PreparedTeacher.load(prepare("big", teacher, folder / "big"))


def served(model: PreTrainedModel, folder: Path, batch_tokens: int = 4096) -> HostedModel:
    """A teacher as the server has it."""
    return HostedModel.load(prepared(model, folder), batch_tokens)


@contextmanager
def serving(app: web.Application) -> Iterator[str]:
    """The URL of a server that runs in a thread; at the end, the requests in flight are finished."""
    started: Future[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def main() -> None:
        ended = asyncio.Event()
        async with running(app, "127.0.0.1", 0) as url:
            started.set_result((url, asyncio.get_running_loop(), ended))
            await ended.wait()

    thread = Thread(target=asyncio.run, args=(main(),))
    thread.start()
    url, loop, ended = started.result()
    try:
        yield url
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()


def asked(url: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes, Any]:
    """What a server answers: its status, its body and its headers."""
    request = urllib.request.Request(url, body, {name.replace("_", "-"): value for name, value in headers.items()})
    try:
        with urllib.request.urlopen(request) as found:
            return found.status, found.read(), found.headers
    except HTTPError as error:
        return error.code, error.read(), error.headers


def refusal(url: str, body: bytes | None = None, **headers: str) -> tuple[int, str]:
    """The status and the sentence of a refusal."""
    status, content, _ = asked(url, body, **headers)
    return status, json.loads(content)["error"]
