"""Congestion: how many requests are in flight at a time, and how many begin in a second."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class RequestWindow:
    """Lets at most so many requests be in flight as the server bears.

    It grows by one for each window of answers, and halves when the server is overloaded, as TCP's does (Chiu and Jain
    1989). The requests that are in flight when it halves do not halve it again.

    Args:
        most: the greatest number of requests in flight.
    """

    def __init__(self, most: int) -> None:
        self._most, self._open, self._in_flight = most, float(min(4, most)), 0
        self._begun = self._begun_before_the_cut = 0
        self._free = threading.Condition()

    @property
    def width(self) -> int:
        """The number of requests that may be in flight now."""
        return int(self._open)

    @contextmanager
    def place(self) -> Iterator[int]:
        """Wait for a place, and hold it while a request is in flight; gives the request's number."""
        with self._free:
            self._free.wait_for(lambda: self._in_flight < self.width)
            self._in_flight += 1
            self._begun += 1
            number = self._begun
        try:
            yield number
        finally:
            with self._free:
                self._in_flight -= 1
                self._free.notify_all()

    def grow(self) -> None:
        """A request was answered."""
        with self._free:
            self._open = min(self._most, self._open + 1 / self.width)
            self._free.notify_all()

    def shrink(self, number: int) -> None:
        """The server was too busy for the request with this number."""
        with self._free:
            if number > self._begun_before_the_cut:
                self._open, self._begun_before_the_cut = max(1.0, self._open / 2), self._begun


class RequestRate:
    """Lets at most so many requests begin in a second.

    Args:
        per_second: None for any number.
        pause: waits for some seconds.
    """

    def __init__(self, per_second: float | None, pause: Callable[[float], object]) -> None:
        self._between = 0.0 if per_second is None else 1 / per_second
        self._pause, self._next, self._lock = pause, 0.0, threading.Lock()

    def wait(self) -> None:
        """Wait until the next request may begin."""
        if not self._between:
            return
        with self._lock:
            now = time.monotonic()
            begin = max(now, self._next)
            self._next = begin + self._between
        self._pause(begin - now)
