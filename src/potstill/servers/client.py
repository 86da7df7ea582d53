"""Client: sends requests to a server of a teacher, many at a time, and sends those again that a busy server dropped."""

import json
import os
import random
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import httpx2

from potstill.errors import UserError, first_line
from potstill.servers.congestion import RequestRate, RequestWindow
from potstill.servers.traffic import Traffic, TrafficFile

ATTEMPTS = 8
"""How often a request is sent at most."""
SHORTEST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
"""Seconds before a request is sent again: the shortest one doubles with each attempt."""
BUSY = (429, 500, 502, 503, 504)
"""Answers of a server, or of what lies before it, that is overloaded or restarts."""
AHEAD = 4
"""How many windows of requests are asked for ahead of the one that is read, so that one slow answer stops no other."""

ToAsk = TypeVar("ToAsk")
Replied = TypeVar("Replied")


@dataclass(frozen=True)
class Connection:
    """Where a server is, and how it may be asked."""

    name: str
    """The teacher's name, for messages."""
    url: str
    key: str | None = None
    """The name of the environment variable with its key. The key itself is never kept, written or shown."""
    concurrency: int = 16
    """The most requests in flight."""
    timeout: float = 600.0
    """Seconds."""
    requests_per_second: float | None = None

    @property
    def root(self) -> str:
        """The address without the path of the OpenAI-style routes."""
        return self.url.rstrip("/").removesuffix("/v1")

    @property
    def setting(self) -> str:
        """The recipe's key of the address, for messages."""
        return f"`teachers.{self.name}.server`"


class RefusedError(UserError):
    """An answer of the server that would be the same if the request were sent again.

    Attributes:
        status: the status of HTTP.
        said: the server's own words.
    """

    def __init__(self, message: str, status: int, said: str) -> None:
        super().__init__(message)
        self.status, self.said = status, said


class Client:
    """Sends requests to one server over connections that it keeps. Its methods may be called from any thread.

    Args:
        connection: where the server is.
        pause: waits for some seconds; tests do not wait.

    Raises:
        UserError: the environment variable with the key is not set.
    """

    def __init__(self, connection: Connection, pause: Callable[[float], object] | None = None) -> None:
        self.connection, self._traffic = connection, Traffic()
        self._kept: TrafficFile | None = None
        self._stopped, self._lock = threading.Event(), threading.Lock()
        self._given_pause = pause
        self._window = RequestWindow(connection.concurrency)
        self._pace = RequestRate(connection.requests_per_second, lambda seconds: self._pause(seconds, self._stopped))
        self._secret = _secret(connection)
        # Until a server has answered once, a wrong address is likelier than a short failure.
        self._has_answered = False
        self._http = self._connections()

    @property
    def traffic(self) -> Traffic:
        """What was asked and answered so far, in earlier attempts too if they kept it."""
        return self._traffic if self._kept is None else self._kept.total(self._traffic)

    def keep_traffic(self, file: Path) -> None:
        """Keep the traffic in a file, and add what earlier attempts left there."""
        self._kept = TrafficFile(file)

    def count_tokens(self, read: int, written: int = 0) -> None:
        """Count tokens that the server's model has read and written for a request."""
        self._count(tokens_read=read, tokens_written=written)

    def get(self, path: str) -> Any:
        """The JSON at a path below the server's root."""
        return self._json(lambda: self._answer("GET", path))

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The JSON that answers a JSON body."""
        return self._json(lambda: self._answer("POST", path, json=body))

    def request(self, method: str, path: str, **what: Any) -> httpx2.Response:
        """The answer to any request, whole.

        Args:
            method: GET or POST.
            path: below the server's root.
            what: the body and headers, as httpx takes them.

        Raises:
            RefusedError: the server refuses the request.
            UserError: the server cannot be reached, or fails again and again.
        """
        return self._repeated(lambda: self._answer(method, path, **what))

    def in_order(self, ask: Callable[[ToAsk], Replied], items: Iterable[ToAsk]) -> Iterator[Replied]:
        """``ask`` each item, many at a time, and give the answers in the order of the items.

        Items are taken only some windows ahead. If one fails, the others are not asked any more.
        """
        most = self.connection.concurrency
        pending: deque[Future[Replied]] = deque()
        pool = ThreadPoolExecutor(most, thread_name_prefix="potstill-request")
        try:
            for item in items:
                pending.append(pool.submit(ask, item))
                if len(pending) >= AHEAD * most:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BaseException:
            self.close()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """End all connections and pauses; requests in flight fail. The next request opens a connection again."""
        with self._lock:
            if self._kept is not None:
                self._kept.save(self._traffic)
            stopped, http = self._stopped, self._http
            self._stopped, self._http = threading.Event(), self._connections()
        stopped.set()
        http.close()

    def _connections(self) -> httpx2.Client:
        here = self.connection
        return httpx2.Client(
            headers={} if self._secret is None else {"Authorization": f"Bearer {self._secret}"},
            timeout=here.timeout,
            limits=httpx2.Limits(max_connections=here.concurrency),
        )

    def _pause(self, seconds: float, stopped: threading.Event) -> None:
        (stopped.wait if self._given_pause is None else self._given_pause)(seconds)

    def _json(self, ask: Callable[[], httpx2.Response]) -> Any:
        return self._repeated(lambda: _parsed(ask()))

    def _repeated(self, ask: Callable[[], Replied]) -> Replied:
        """The result of a request, which is sent again as long as the server is only busy or broken."""
        stopped = self._stopped
        for attempt in range(1, ATTEMPTS + 1):
            self._pace.wait()
            with self._window.place() as number:
                try:
                    found = ask()
                except (_BusyError, httpx2.TransportError) as error:
                    failure = error
                else:
                    self._window.grow()
                    self._has_answered = True
                    return found
            self._check_reachable(failure)
            if isinstance(failure, _BusyError | httpx2.TimeoutException):
                self._window.shrink(number)
            if attempt < ATTEMPTS:
                self._count(repeated=1)
                self._pause(_seconds_before(attempt, getattr(failure, "wait", None)), stopped)
            if attempt == ATTEMPTS or stopped.is_set():
                raise UserError(self._gave_up(failure)) from failure
        raise AssertionError("the last attempt returns or raises")

    def _answer(self, method: str, path: str, **what: Any) -> httpx2.Response:
        try:
            answer = self._http.request(method, self.connection.root + path, **what)
        except httpx2.InvalidURL as error:
            raise UserError(f"{self.connection.setting} is no address ({error}); correct it") from error
        self._count(requests=1, bytes_received=len(answer.content))
        if answer.status_code in BUSY:
            raise _BusyError(answer, _said(answer))
        if not answer.is_success:
            raise self._refusal(answer)
        return answer

    def _refusal(self, answer: httpx2.Response) -> RefusedError:
        said, status, here = self._without_secret(_said(answer)), answer.status_code, self.connection
        if status in (401, 403) and here.key is None:
            message = f"`teachers.{here.name}.key` is missing: {here.url} asks for a key ({status}); name the "
            message += "environment variable that holds it"
        elif status in (401, 403):
            message = f"`teachers.{here.name}.key`: {here.url} refuses the key in {here.key} ({status}); correct the "
            message += "environment variable"
        else:
            message = f"{here.setting}: {answer.request.url} answers {status}: {said}"
        return RefusedError(message, status, said)

    def _check_reachable(self, failure: Exception) -> None:
        """Refuse at once what no repetition mends."""
        here = self.connection
        if _is_certificate(failure):
            raise UserError(
                f"{here.setting}: the certificate of {here.url} cannot be verified ({first_line(failure)}); correct "
                "the address, or name the file of its authority in the environment variable SSL_CERT_FILE"
            ) from failure
        if isinstance(failure, httpx2.UnsupportedProtocol):
            raise UserError(f"{here.setting} is {here.url!r}; begin the address with http:// or https://") from failure
        if isinstance(failure, httpx2.ConnectError | httpx2.ConnectTimeout) and not self._has_answered:
            raise UserError(
                f"{here.setting}: no server answers at {here.url} ({first_line(failure)}); start it, or correct the "
                "address"
            ) from failure

    def _gave_up(self, failure: Exception) -> str:
        here = self.connection
        said = self._without_secret(first_line(failure))
        advice = "what was captured so far is kept, so start the run again when the server is well"
        if isinstance(failure, httpx2.TimeoutException):
            advice = f"raise `teachers.{here.name}.timeout`, or lower `teachers.{here.name}.concurrency`"
        return f"{here.setting}: {here.url} failed {ATTEMPTS} times in a row, at last with: {said}; {advice}"

    def _without_secret(self, text: str) -> str:
        return text if self._secret is None else text.replace(self._secret, "...")

    def _count(self, **more: int) -> None:
        with self._lock:
            now = self._traffic
            self._traffic = replace(now, **{name: getattr(now, name) + count for name, count in more.items()})
            if self._kept is not None:
                self._kept.note(self._traffic)


class _BusyError(Exception):
    """The server answered that it cannot answer now, or its answer broke off."""

    def __init__(self, answer: httpx2.Response, said: str) -> None:
        super().__init__(f"{answer.status_code}: {said}")
        given = answer.headers.get("Retry-After", "")
        self.wait = float(given) if given.isdigit() else None


def _secret(connection: Connection) -> str | None:
    if connection.key is None:
        return None
    found = os.environ.get(connection.key, "").strip()
    if not found:
        raise UserError(
            f"`teachers.{connection.name}.key`: the environment variable {connection.key} is not set; let it hold the "
            f"key of {connection.url}"
        )
    return found


def _parsed(answer: httpx2.Response) -> Any:
    try:
        return json.loads(answer.content)
    except ValueError as error:
        raise _BusyError(answer, f"an answer that is no whole JSON ({error})") from error


def _said(answer: httpx2.Response) -> str:
    """The server's own words in an answer that is none: `message` of the usual kinds of JSON, or the beginning."""
    try:
        found = answer.json()
    except ValueError:
        found = answer.text
    for name in ("error", "message", "detail"):
        found = found.get(name, found) if isinstance(found, dict) else found
    return " ".join(str(found).split())[:300] or answer.reason_phrase


def _seconds_before(attempt: int, asked: float | None) -> float:
    """The pause after a failed attempt: as long as the server asks, or else drawn around a time that doubles."""
    if asked is not None:
        return min(asked, LONGEST_PAUSE)
    # Clients that failed together do not come back together. No result depends on this random number.
    return min(LONGEST_PAUSE, SHORTEST_PAUSE * 2 ** (attempt - 1)) * random.uniform(0.5, 1.5)


def _is_certificate(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
