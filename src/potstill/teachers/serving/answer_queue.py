"""The queue of requests: those that wait are read together, equal ones once, and those that nobody awaits never."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from potstill.servers.hidden_states_format import HiddenRequest, answer_bytes

ReadRequests = Callable[[Sequence[HiddenRequest]], list[Float[Tensor, "N H"]]]
"""Reads requests in one forward; returns the hidden states of each, in the host's memory."""

MOST_ADDED = 0.25
"""A batch may have so many more tokens, by its pads, than its requests have if they are read one after the other."""
KEPT_BYTES = 2**28
"""Of answers that are given again, to a client that asks twice or to several that train on the same samples."""


@dataclass(eq=False)
class _Waiting:
    request: HiddenRequest
    answer: "asyncio.Future[bytes]"
    askers: int = 0


class AnswerQueue:
    """Answers requests by a teacher that reads one batch at a time, in a thread of its own.

    Args:
        read: the teacher.
        most_tokens: the most tokens of a batch, pads included.
        kept_bytes: the bytes of recent answers that are kept.
    """

    def __init__(self, read: ReadRequests, most_tokens: int, kept_bytes: int = KEPT_BYTES) -> None:
        self._read, self._most_tokens, self._kept_bytes = read, most_tokens, kept_bytes
        self._waiting: dict[str, _Waiting] = {}
        self._being_read: dict[str, _Waiting] = {}
        self._recent: OrderedDict[str, bytes] = OrderedDict()
        self._recent_bytes = 0
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "teacher")

    async def answer(self, digest: str, request: HiddenRequest) -> bytes:
        """The answer to a request, which its digest identifies. If every asker is cancelled before, it is not read."""
        if digest in self._recent:
            self._recent.move_to_end(digest)
            return self._recent[digest]
        one = self._being_read.get(digest) or self._waiting.get(digest)
        if one is None:
            one = self._waiting[digest] = _Waiting(request, asyncio.get_running_loop().create_future())
            self._arrived.set()
        one.askers += 1
        try:
            return await asyncio.shield(one.answer)
        finally:
            one.askers -= 1
            if not one.askers and self._waiting.get(digest) is one:
                del self._waiting[digest]

    async def run(self) -> None:
        """Read batches until cancelled."""
        async with asyncio.TaskGroup() as deliveries:
            while True:
                await self._arrived.wait()
                batch = self._next_batch()
                if not batch:
                    self._arrived.clear()
                    continue
                requests = [one.request for one in batch.values()]
                try:
                    found = await asyncio.get_running_loop().run_in_executor(self._thread, self._read, requests)
                except Exception as error:  # noqa: BLE001 (the server outlives any failure of one batch)
                    self._fail(batch, error)
                else:
                    # The next batch is read while this one is packed.
                    deliveries.create_task(self._deliver(batch, found))

    def _next_batch(self) -> dict[str, _Waiting]:
        """The request that has waited longest, and those that are best read with it."""
        batch = read_together({digest: one.request for digest, one in self._waiting.items()}, self._most_tokens)
        chosen = {digest: self._waiting.pop(digest) for digest in batch}
        self._being_read |= chosen
        return chosen

    def _fail(self, batch: dict[str, _Waiting], error: Exception) -> None:
        for digest, one in batch.items():
            del self._being_read[digest]
            one.answer.set_exception(error)
            # If its askers have gone, asyncio would complain that nobody looked at it.
            one.answer.exception()

    async def _deliver(self, batch: dict[str, _Waiting], found: list[Float[Tensor, "N H"]]) -> None:
        try:
            bodies = await asyncio.to_thread(lambda: [answer_bytes(hidden) for hidden in found])
        except MemoryError as error:
            self._fail(batch, error)
            return
        for (digest, one), body in zip(batch.items(), bodies, strict=True):
            del self._being_read[digest]
            one.answer.set_result(body)
            self._keep(digest, body)

    def _keep(self, digest: str, body: bytes) -> None:
        self._recent[digest] = body
        self._recent_bytes += len(body)
        while self._recent_bytes > self._kept_bytes:
            self._recent_bytes -= len(self._recent.popitem(last=False)[1])


def read_together(waiting: dict[str, HiddenRequest], most_tokens: int) -> list[str]:
    """The names of the first request and of those that are read with it, the nearest in length first.

    Args:
        waiting: the requests, the oldest first.
        most_tokens: the most tokens of them together, pads included. The first may have more.
    """
    if not waiting:
        return []
    oldest, first = next(iter(waiting.items()))
    chosen, rows, longest, apart = [oldest], len(first.lengths), first.longest, first.padded_tokens
    for name, one in sorted(list(waiting.items())[1:], key=lambda item: abs(item[1].longest - first.longest)):
        together = (rows + len(one.lengths)) * max(longest, one.longest)
        separate = apart + one.padded_tokens
        if together <= min(most_tokens, (1 + MOST_ADDED) * separate):
            chosen.append(name)
            rows, longest, apart = rows + len(one.lengths), max(longest, one.longest), separate
    return chosen
