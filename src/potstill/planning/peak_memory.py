"""Peak memory: the most bytes that a piece of work had, on the host and on the accelerator."""

import ctypes
import gc
import resource
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from potstill.device import device

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"
"""Sets the greatest resident size to the present one (proc_pid_clear_refs(5))."""

WORTH_COLLECTING = 2 * 2**30
"""Bytes of a process in which models may still be held by cycles of objects."""


@dataclass
class PeakMemory:
    """Bytes; None where they cannot be measured. They are known once the work has ended."""

    host: int | None = None
    device: int | None = None

    def to_dict(self) -> dict[str, int | None]:
        """Plain JSON types."""
        return dict(vars(self))

    @classmethod
    def largest(cls, peaks: Sequence["PeakMemory"]) -> "PeakMemory":
        """The greatest of the processes that did one piece of work together."""

        def most(name: str) -> int | None:
            return max((size for peak in peaks if (size := getattr(peak, name)) is not None), default=None)

        return cls(most("host"), most("device"))


@contextmanager
def measured() -> Iterator[PeakMemory]:
    """Measure the work of a block, in this process. What earlier work has freed is given back first."""
    _give_back()
    found, resets = PeakMemory(), False
    with suppress(OSError):
        RESET.write_text(RESET_PEAK)
        resets = True
    before = _greatest()
    on_gpu = device().type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    try:
        yield found
    finally:
        now = _greatest()
        # Without a reset, the greatest size of the whole process is that of this work only if it grew.
        found.host = now if resets or (before is not None and now is not None and now > before) else None
        found.device = _of_gpu() if on_gpu else None


def held() -> dict[str, int | None]:
    """The bytes that this process holds now, on the host and on the accelerator; None where that cannot be measured."""
    host = None
    with suppress(OSError, StopIteration):
        line = next(one for one in STATUS.read_text().splitlines() if one.startswith("VmRSS"))
        host = int(line.split()[1]) * 1024
    return {"host": host, "device": torch.cuda.memory_reserved() if torch.cuda.is_initialized() else None}


def _give_back() -> None:
    """Return freed memory to the system, which C libraries keep for later."""
    # To look for cycles takes a third of a second.
    if (_greatest() or 0) > WORTH_COLLECTING:
        gc.collect()
    # Only glibc has it.
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _greatest() -> int | None:
    """The greatest resident size of this process, in bytes."""
    with suppress(OSError, StopIteration):
        line = next(one for one in STATUS.read_text().splitlines() if one.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found if sys.platform == "darwin" else found * 1024


def _of_gpu() -> int:
    """What torch held at most, and what its libraries and other processes hold."""
    free, total = torch.cuda.mem_get_info()
    return torch.cuda.max_memory_reserved() + max(0, total - free - torch.cuda.memory_reserved())
