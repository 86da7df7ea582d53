"""Memory: the greatest memory of each step of a training, and whether it grows with the steps."""

import json
import resource
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

LOG = "memory.jsonl"
SETTLED = 1 / 3
"""The share of a training's steps after which memory does not grow any more, if nothing is kept."""
MOST_GROWTH = 0.05
"""The growth from the middle third to the last third that counts as growth. Allocators keep some more or less."""
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class MemoryOfTraining:
    """The memory of a training's middle and last steps."""

    training: str
    steps: int
    middle: float
    """The median of the greatest memory of each step of the middle third, in bytes."""
    last: float
    """The same of the last third."""

    @property
    def grows(self) -> bool:
        """Whether memory grows with the steps."""
        return self.last > self.middle * (1 + MOST_GROWTH)


def peak_since_last_call() -> int:
    """The greatest memory of this process in bytes since the last call, or else since its start."""
    try:
        peak = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        CLEAR.write_text("5")
    except (OSError, StopIteration):
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return 1024 * int(peak.split()[1])


def memory_of_trainings(file: Path, *runs: Path) -> list[MemoryOfTraining]:
    """The memory of each training, by the log of its steps.

    Args:
        file: the log.
        *runs: the runs; trainings are named by their folders in them. Of a training that was done again, only the last
            time counts: the first training of a process may fill caches that stay.
    """
    # A training that was stopped goes on in another process, whose memory is another.
    found: dict[tuple[str, int, Path], list[int]] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        place = Path(entry["training"])
        for run in runs:
            if run in place.parents:
                name = str(place.parent.relative_to(run))
                found.setdefault((name, entry["process"], run), []).append(entry["bytes"])
    last = {name: peaks for (name, _, _), peaks in found.items()}
    return [_of_training(name, peaks) for name, peaks in last.items() if len(peaks) >= 3]


def _of_training(name: str, peaks: Sequence[int]) -> MemoryOfTraining:
    third = max(1, round(len(peaks) * SETTLED))
    return MemoryOfTraining(name, len(peaks), median(peaks[third : 2 * third]), median(peaks[-third:]))
