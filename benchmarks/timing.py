"""Timing: all compared actions run in the same rounds, and each round has a new random order.

The clock on a CPU is the process's own time, which other processes disturb least. On a GPU it is CUDA's events. A ratio
is formed within each round, and the median over rounds counts: a slow minute slows both sides of its ratio.
"""

import gc
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch

Action = Callable[[], object]


@dataclass(frozen=True)
class Ratio:
    """A time over another time."""

    median: float
    best: float

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.best:.3f})"


@dataclass(frozen=True)
class Times:
    """Seconds by name, round by round."""

    seconds: Mapping[str, Sequence[float]]

    def median(self, name: str) -> float:
        """The median over rounds."""
        return median(self.seconds[name])

    def fastest(self, names: Sequence[str]) -> str:
        """The name with the least median."""
        return min(names, key=self.median)

    def ratio(self, name: str, over: Sequence[str]) -> Ratio:
        """``name`` over the sum of ``over``: the median of the rounds' ratios, and the ratio of the best times."""
        bases = [sum(parts) for parts in zip(*(self.seconds[other] for other in over), strict=True)]
        ratios = [mine / base for mine, base in zip(self.seconds[name], bases, strict=True)]
        return Ratio(median(ratios), min(self.seconds[name]) / sum(min(self.seconds[other]) for other in over))


def measure(actions: Mapping[str, Action], rounds: int, device: torch.device, seed: int = 0) -> Times:
    """Run every action ``rounds`` times, after one run each that is not counted."""
    order, shuffle = list(actions), random.Random(seed).shuffle
    clock = _cuda_seconds if device.type == "cuda" else _cpu_seconds
    for name in order:
        clock(actions[name])
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            shuffle(order)
            for name in order:
                seconds[name].append(clock(actions[name]))
            gc.collect()
    finally:
        gc.enable()
    return Times(seconds)


def _cpu_seconds(action: Action) -> float:
    start = time.process_time()
    action()
    return time.process_time() - start


def _cuda_seconds(action: Action) -> float:
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    action()
    stop.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(stop)) / 1000
