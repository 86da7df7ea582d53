"""The HTTP server of `potstill serve`: its addresses, its refusals, and how it starts and ends."""

import asyncio
import hmac
import ipaddress
import logging
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from potstill.errors import UserError, is_out_of_memory
from potstill.models.head_bytes import bytes_digest
from potstill.servers.hidden_states_format import HiddenRequest, RequestError
from potstill.teachers.serving.answer_queue import AnswerQueue
from potstill.teachers.serving.hosted_model import HostedModel

BYTES_PER_TOKEN, BYTES_BESIDE = 9, 4096
"""The size of a request: 4 bytes for an id, 4 for the length of its row and 1 for its mask; and the names of all."""
MOST_REQUESTS = 64
"""How many are worked on or wait. A client that gets 429 waits and asks again."""
ENDING = (signal.SIGTERM, signal.SIGINT)
SECONDS_TO_FINISH = 600.0
"""For the requests in flight, once the server is told to end."""
BINARY = "application/octet-stream"

logger = logging.getLogger(__name__)


def application(model: HostedModel, key: str | None) -> web.Application:
    """The server of a teacher.

    Args:
        model: the teacher.
        key: what each request must carry (`Authorization: Bearer KEY`); None: nothing.
    """
    most_bytes = BYTES_BESIDE + BYTES_PER_TOKEN * model.facts.most_tokens
    app = web.Application(middlewares=[_refusals(key, most_bytes)], client_max_size=most_bytes)
    routes = _Routes(model)
    app.cleanup_ctx.append(routes.reading)
    app.add_routes(
        [
            web.get("/v1/facts", routes.facts),
            web.get("/v1/head", routes.head),
            web.get("/v1/tokenizer", routes.tokenizer),
            web.post("/v1/hidden", routes.hidden),
        ]
    )
    return app


class _Routes:
    """The answers to requests that are allowed."""

    def __init__(self, model: HostedModel) -> None:
        self._model = model
        self._queue = AnswerQueue(model.read, model.facts.most_tokens)
        self._open = 0

    async def reading(self, app: web.Application) -> AsyncIterator[None]:
        """The teacher reads from the server's start to its end."""
        task = asyncio.create_task(self._queue.run())
        yield
        task.cancel()

    async def facts(self, request: web.Request) -> web.Response:
        return web.json_response(asdict(self._model.facts))

    async def tokenizer(self, request: web.Request) -> web.Response:
        return web.json_response(self._model.tokenizer)

    async def head(self, request: web.Request) -> web.Response:
        digest = self._model.facts.teacher.head.fingerprint
        headers = {"ETag": f'"{digest}"'}
        if any(tag.value == digest for tag in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        return web.Response(body=self._model.head, content_type=BINARY, headers=headers)

    async def hidden(self, request: web.Request) -> web.Response:
        if self._open >= MOST_REQUESTS:
            return _refusal(429, f"{MOST_REQUESTS} requests wait already; ask again later", {"Retry-After": "1"})
        meant, teacher = request.query.get("teacher"), self._model.facts.teacher
        if meant not in (None, teacher.fingerprint):
            return _refusal(
                409, f"this server's teacher is {teacher.model} {teacher.fingerprint}, and not {meant[:99]}"
            )
        self._open += 1
        try:
            body = await request.read()
            asked = HiddenRequest.from_bytes(body)
            asked.check(self._model.facts)
            digest = bytes_digest(body)
            found = await self._queue.answer(digest, asked)
        finally:
            self._open -= 1
        return web.Response(body=found, content_type=BINARY, headers={"ETag": f'"{digest}"'})


def _refusals(key: str | None, most_bytes: int) -> Middleware:
    @web.middleware
    async def answered(request: web.Request, handler: Handler) -> web.StreamResponse:
        if key is not None and not _carries(request, key):
            return _refusal(401, "the request does not carry this server's key", {"WWW-Authenticate": "Bearer"})
        if (request.content_length or 0) > most_bytes:
            return _too_large(most_bytes)
        try:
            return await handler(request)
        except web.HTTPRequestEntityTooLarge:
            return _too_large(most_bytes)
        except web.HTTPException as error:
            return _refusal(error.status, f"{request.method} {request.path} is not served ({error.reason.lower()})")
        except RequestError as error:
            return _refusal(400, str(error))
        except Exception as error:
            if is_out_of_memory(error):
                return _refusal(503, "the teacher's memory is full; start the server with fewer `--batch-tokens`")
            logger.exception("%s %s", request.method, request.path)
            return _refusal(500, f"the server failed ({type(error).__name__}); its log says why")

    return answered


def _carries(request: web.Request, key: str) -> bool:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    return hmac.compare_digest(given.strip().encode(errors="replace"), key.encode()) and scheme.lower() == "bearer"


def _too_large(most_bytes: int) -> web.Response:
    return _refusal(413, f"the body has more than {most_bytes:,} bytes, the most of a request; send fewer rows")


def _refusal(status: int, sentence: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"error": sentence}, status=status, headers=headers)


def check_host(host: str, key: str | None) -> None:
    """Refuse to be reached from other machines without a key.

    Raises:
        UserError: the host is not only this machine, or there is no such host.
    """
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError) as error:
        raise UserError(f"`--host {host}`: there is no such host; give an address of this machine") from error
    if key is None and not all(ipaddress.ip_address(str(one).partition("%")[0]).is_loopback for one in found):
        raise UserError(
            f"`--host {host}` can be reached from other machines; name the environment variable of a key with `--key`, "
            "or leave `--host` out"
        )


def serve(app: web.Application, host: str, port: int, tell: Callable[[str], None]) -> None:
    """Serve until SIGTERM or Ctrl-C, and then finish the requests in flight.

    Args:
        app: the server.
        host: the address to bind.
        port: its port; 0: a free one.
        tell: is called with the server's URL once it answers.

    Raises:
        UserError: the address cannot be bound.
    """
    asyncio.run(_serve(app, host, port, tell))


async def _serve(app: web.Application, host: str, port: int, tell: Callable[[str], None]) -> None:
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    for name in ENDING:
        loop.add_signal_handler(name, told.set)
    async with running(app, host, port) as url:
        tell(url)
        await told.wait()
        # A second signal does not wait for the requests in flight.
        for name in ENDING:
            loop.remove_signal_handler(name)


@asynccontextmanager
async def running(app: web.Application, host: str, port: int) -> AsyncIterator[str]:
    """The URL of a server that answers within it. At its end, the requests in flight are finished.

    Raises:
        UserError: the address cannot be bound.
    """
    # A client that goes away cancels what is done for it.
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=SECONDS_TO_FINISH)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise UserError(f"`--host {host}` and `--port {port}` cannot be used ({why}); choose others") from error
        name = f"[{host}]" if ":" in host else host
        yield f"http://{name}:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()
