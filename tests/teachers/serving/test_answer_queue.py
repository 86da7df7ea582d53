"""The queue: what is read together, what is read once and what is not read at all."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from potstill.servers.hidden_states_format import HiddenRequest, answer_bytes, hidden_of_answer
from potstill.teachers.serving.answer_queue import AnswerQueue, read_together


def request(*lengths: int, first: int = 0) -> HiddenRequest:
    """Rows of these lengths; every token but the first of a row is asked for."""
    ids = [np.arange(first, first + length, dtype=np.int32) for length in lengths]
    return HiddenRequest.of_rows(ids, [np.arange(length) > 0 for length in lengths])


class Teacher:
    """Answers each request with its own ids; waits before it reads, until it may."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.may_read, self.fails = Event(), False

    def read(self, requests: Sequence[HiddenRequest]) -> list[Tensor]:
        self.batches.append([int(one.ids[0]) for one in requests])
        self.may_read.wait()
        if self.fails:
            raise RuntimeError("broken")
        return [torch.from_numpy(one.ids[one.supervised].astype(np.float32))[:, None] for one in requests]


def with_queue(test: Callable[[AnswerQueue, Teacher], Awaitable[None]], **how: Any) -> None:
    """Run a test with a queue whose teacher waits."""

    async def main() -> None:
        teacher = Teacher()
        queue = AnswerQueue(teacher.read, **{"most_tokens": 100} | how)
        running = asyncio.create_task(queue.run())
        try:
            await test(queue, teacher)
        finally:
            teacher.may_read.set()
            running.cancel()

    asyncio.run(main())


async def until(holds: Callable[[], Any]) -> None:
    while not holds():
        await asyncio.sleep(0)


def ask(queue: AnswerQueue, number: int, length: int = 4) -> "asyncio.Task[bytes]":
    return asyncio.create_task(queue.answer(str(number), request(length, first=number)))


def test_requests_that_wait_are_read_together_and_each_gets_its_own():
    async def test(queue, teacher):
        first = ask(queue, 10)
        await until(lambda: teacher.batches)
        others = [ask(queue, number) for number in (20, 30)]
        await until(lambda: len(queue._waiting) == 2)
        teacher.may_read.set()
        found = [hidden_of_answer(await one)[:, 0].tolist() for one in (first, *others)]
        assert found == [[11, 12, 13], [21, 22, 23], [31, 32, 33]]
        assert teacher.batches == [[10], [20, 30]]

    with_queue(test)


def test_equal_requests_are_read_once_while_they_wait_while_they_are_read_and_later():
    async def test(queue, teacher):
        first = ask(queue, 10)
        await until(lambda: teacher.batches)
        same = [ask(queue, 10), ask(queue, 20), ask(queue, 20)]
        await until(lambda: queue._waiting and queue._waiting["20"].askers == 2)
        teacher.may_read.set()
        assert await first == await same[0]
        assert await same[1] == await same[2]
        await ask(queue, 10)
        assert teacher.batches == [[10], [20]]

    with_queue(test)


def test_a_request_that_nobody_awaits_any_more_is_not_read():
    async def test(queue, teacher):
        first = ask(queue, 10)
        await until(lambda: teacher.batches)
        gone, half_gone, stays = ask(queue, 20), ask(queue, 30), ask(queue, 30)
        await until(lambda: len(queue._waiting) == 2 and queue._waiting["30"].askers == 2)
        gone.cancel()
        half_gone.cancel()
        await until(lambda: gone.done() and half_gone.done())
        teacher.may_read.set()
        await first, await stays
        assert teacher.batches == [[10], [30]]

    with_queue(test)


def test_who_goes_away_while_its_request_is_read_does_not_disturb_the_others():
    async def test(queue, teacher):
        gone = ask(queue, 10)
        await until(lambda: teacher.batches)
        gone.cancel()
        await until(gone.done)
        teacher.may_read.set()
        assert hidden_of_answer(await ask(queue, 20)).shape == (3, 1)

    with_queue(test)


@pytest.mark.parametrize("alone", [True, False])
def test_a_batch_that_fails_is_told_to_its_askers_and_the_next_one_is_read(alone):
    async def test(queue, teacher):
        teacher.fails = True
        failing = ask(queue, 10)
        await until(lambda: teacher.batches)
        if alone:
            failing.cancel()
            await until(failing.done)
        teacher.may_read.set()
        if not alone:
            with pytest.raises(RuntimeError, match="broken"):
                await failing
        await until(lambda: not queue._being_read)
        teacher.fails = False
        assert await ask(queue, 10)
        assert teacher.batches == [[10], [10]]

    with_queue(test)


def test_the_oldest_answers_are_forgotten_when_they_are_too_many():
    async def test(queue, teacher):
        teacher.may_read.set()
        for number in (10, 20, 10, 30):  # 10 is asked again, so that 20 is the oldest
            await ask(queue, number)
        assert list(queue._recent) == ["10", "30"]
        assert teacher.batches == [[10], [20], [30]]

    with_queue(test, kept_bytes=2 * len(answer_bytes(torch.zeros(3, 1))))


@pytest.mark.parametrize(
    ("waiting", "together"),
    [
        ({}, ""),
        ({"a": request(200)}, "a"),  # one row that is longer than a batch is read all the same
        ({"a": request(10), "b": request(10), "c": request(10)}, "abc"),
        ({"a": request(40), "b": request(40), "c": request(40)}, "ab"),
        ({"a": request(10), "b": request(60), "c": request(11)}, "ac"),
        ({"a": request(10, 10), "b": request(2), "c": request(9)}, "ac"),
        ({"a": request(50), "b": request(5), "c": request(50)}, "ac"),
    ],
)
def test_requests_of_like_lengths_are_put_together_up_to_the_most_tokens(waiting, together):
    assert "".join(read_together(waiting, 100)) == together
