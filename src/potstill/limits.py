"""Limits: how much time and memory the work on a text of the user's may take, such as a template or a recipe.

They hold on Linux. Elsewhere only the time is limited.
"""

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MEMORY = Path("/proc/self/statm")


class LimitError(Exception):
    """Work that took too much time or memory."""


@contextmanager
def limited(seconds: float, memory: int) -> Iterator[None]:
    """Stop the block where it takes too much. Only the main thread may call this.

    Args:
        seconds: of this process's computing time, so that a busy machine changes nothing.
        memory: bytes in addition to those that the process has already.

    Raises:
        LimitError: the block took longer, or asked for more memory.
    """

    def stop(*_: Any) -> None:
        raise LimitError(f"takes longer than {seconds:g} seconds")

    handler = signal.signal(signal.SIGVTALRM, stop)
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_allowed(memory, before), before[1]))
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    except MemoryError:
        raise LimitError(f"takes more than {memory / 2**20:,.0f} MiB of memory") from None
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.signal(signal.SIGVTALRM, handler)


def _allowed(memory: int, before: tuple[int, int]) -> int:
    """The greatest size of the address space, in bytes: no more than the process may have anyway."""
    if not MEMORY.exists():
        return before[0]
    now = int(MEMORY.read_text().split()[0]) * resource.getpagesize()
    return min(one for one in (now + memory, *before) if one != resource.RLIM_INFINITY)
