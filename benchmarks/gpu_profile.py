"""A real training, some steps of which run under torch.profiler: its speed, its largest operations, the device's idle
time and its reads."""

import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from transformers import TrainerCallback, TrainingArguments

from benchmarks.models import Pair, Shape
from potstill import DistilTrainer

WARM_UP = 3
"""Steps before any figure counts: the first compiles, and memory is allocated."""
WINDOWS, PROFILED = 3, 5
"""How many times the profiler runs in a training, and for how many steps."""
SECONDS = 60.0
"""Of training after the warm-up, at most."""
READING = 10.0
"""Seconds that are kept for reading what the profiler recorded last."""
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "Memcpy DtoH", "aten::_local_scalar_dense", "aten::nonzero")
"""The profiler's names of what makes the host wait, or shows that it did."""


def profiled_training(device: torch.device, small: bool, seconds: float) -> dict[str, Any]:
    """Train for a minute, or for what is left of so many seconds; the profiler runs at times that are evenly spaced."""
    end = time.monotonic() + seconds
    shape = Shape(300, 64, 1, 1, 2, 32) if small else Shape(49152, 1024, 12, 24, rows=16, length=1024)
    pair = Pair(shape, torch.float32 if small else torch.bfloat16, device)
    rows = [{"input_ids": torch.randint(0, shape.vocabulary, (shape.length,)).tolist()} for _ in range(4096)]
    watch = _Watch(device, 1.0 if small else SECONDS, end - READING)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            max_steps=100_000,
            per_device_train_batch_size=shape.rows,
            bf16=pair.autocast,
            use_cpu=device.type == "cpu",
            dataloader_num_workers=0 if small else 2,
            dataloader_pin_memory=device.type == "cuda",
            logging_steps=10,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        DistilTrainer(
            model=pair.student,
            teacher=pair.teacher,
            args=arguments,
            train_dataset=rows,
            callbacks=[watch],
            compile=not small,
        ).train()
    return {"title": pair.title, **watch.figures(shape.rows * shape.length)}


class _Watch(TrainerCallback):
    """Times the steps after the warm-up, runs the profiler several times among them, and then stops the training.

    Args:
        device: that of the training.
        seconds: of training after the warm-up.
        latest: when the last run of the profiler must begin, by the monotonic clock.
    """

    def __init__(self, device: torch.device, seconds: float, latest: float) -> None:
        self._device, self._seconds, self._latest = device, seconds, latest
        self._due: list[float] = []
        self._profile: Any = None
        self._began = 0.0
        self._first = 0
        self._steps, self._alone, self._under = 0, 0.0, 0.0
        self._found: list[dict[str, Any]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Start the profiler when it is due, read it after its steps, and stop after the last time."""
        if state.global_step == WARM_UP:
            self._plan()
        elif state.global_step > WARM_UP:
            if self._profile is not None and state.global_step == self._first + PROFILED:
                self._read()
                control.should_training_stop = not self._due
            elif self._profile is None and time.monotonic() >= self._due[0]:
                self._start(state.global_step)
        return control

    def _plan(self) -> None:
        """The times at which the profiler starts: its last time is at the end of the training."""
        now = time.monotonic()
        whole = max(0.0, min(self._seconds, self._latest - now))
        self._due = [now + whole * (number + 1) / WINDOWS for number in range(WINDOWS)]
        self._began, self._first = self._now(), WARM_UP

    def _start(self, step: int) -> None:
        self._due.pop(0)
        now = self._now()
        self._steps, self._alone = self._steps + step - self._first, self._alone + now - self._began
        kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (self._device.type == "cuda")
        self._profile, self._first = profile(activities=kinds), step
        self._profile.start()
        self._began = self._now()

    def _read(self) -> None:
        seconds = self._now() - self._began
        self._profile.stop()
        self._under += seconds
        self._found.append(summary(self._profile, seconds, self._device))
        self._profile, self._first = None, self._first + PROFILED
        self._began = self._now()

    def _now(self) -> float:
        """The time when the device has done all its work."""
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def figures(self, tokens: int) -> dict[str, Any]:
        """The speed without the profiler, for so many tokens a step; and the means of what the profiler recorded."""
        times = len(self._found)
        waits = sum((Counter(one["waits_a_step"]) for one in self._found), Counter[str]())
        return {
            "seconds": self._alone + self._under,
            "steps": self._steps + PROFILED * times,
            "tokens_per_second": tokens * self._steps / self._alone,
            "seconds_a_step": self._under / (PROFILED * times),
            "idle": sum(one["idle"] for one in self._found) / times,
            "waits_a_step": {name: waits[name] / times for name in WAITS},
            "top": self._found[-1]["top"],
        }


def summary(done: Any, seconds: float, device: torch.device) -> dict[str, Any]:
    """What ran on the device: the operations that took the most time, the share of time without any, and the waits a
    step.

    On a GPU these are its kernels and copies. An operator of the CPU has the time of its kernels too, and would count
    them again.
    """
    on_gpu = device.type == "cuda"
    kind = DeviceType.CUDA if on_gpu else DeviceType.CPU
    # A user's annotation spans whole steps.
    own = [one for one in done.events() if one.device_type == kind and not one.is_user_annotation]
    busy = covered((one.time_range.start, one.time_range.end) for one in own) / 1e6
    spent, count = Counter[str](), Counter[str]()
    for one in own:
        # What a CPU's operator calls has events of its own; a kernel calls nothing.
        spent[one.name] += one.time_range.elapsed_us() if on_gpu else one.self_cpu_time_total
        count[one.name] += 1
    called = Counter[str]()
    for one in done.events():
        called.update(name for name in WAITS if name in one.name)
    return {
        "idle": 1 - busy / seconds,
        "waits_a_step": {name: called[name] / PROFILED for name in WAITS},
        "top": [{"name": name[:80], "seconds": us / 1e6, "count": count[name]} for name, us in spent.most_common(25)],
    }


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """The length that spans cover together. Those of several streams overlap."""
    total, reached = 0.0, float("-inf")
    for first, last in sorted(spans):
        total += max(0.0, last - max(first, reached))
        reached = max(reached, last)
    return total
