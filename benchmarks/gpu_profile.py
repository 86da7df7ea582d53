"""A real training under torch.profiler: its speed, its largest operations, the device's idle time and its reads."""

import tempfile
import time
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from transformers import TrainerCallback, TrainingArguments

from benchmarks.models import Pair, Shape
from potstill import DistilTrainer

PROFILED, WARM_UP = 5, 3
"""Steps under the profiler, and steps before any figure counts."""
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "Memcpy DtoH", "aten::_local_scalar_dense", "aten::nonzero")
"""The profiler's names of what makes the host wait, or shows that it did."""


def profiled_training(device: torch.device, small: bool, seconds: float) -> dict[str, Any]:
    """Train for at most so many seconds, the last steps of them under the profiler."""
    shape = Shape(300, 64, 1, 1, 2, 32) if small else Shape(49152, 1024, 12, 24, rows=16, length=1024)
    pair = Pair(shape, torch.float32 if small else torch.bfloat16, device)
    rows = [{"input_ids": torch.randint(0, shape.vocabulary, (shape.length,)).tolist()} for _ in range(256)]
    watch = _Watch(time.monotonic() + seconds * 0.6, device)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            max_steps=WARM_UP + PROFILED + (4 if small else 10_000),
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
            model=pair.student, teacher=pair.teacher, args=arguments, train_dataset=rows, callbacks=[watch]
        ).train()
    return {"title": pair.title, "tokens_per_second": watch.rate(shape.rows * shape.length), **watch.profiled}


class _Watch(TrainerCallback):
    """Times the steps after the warm-up, profiles the steps after them, and then stops the training."""

    def __init__(self, until: float, device: torch.device) -> None:
        self._until, self._device = until, device
        self._ends: list[float] = []
        self._profile: Any = None
        self._first = 0
        self.profiled: dict[str, Any] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Note the time, start the profiler when it is due, and stop after its steps."""
        if self._profile is None:
            self._ends.append(time.perf_counter())
            if time.monotonic() > self._until or state.global_step >= state.max_steps - PROFILED:
                kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (self._device.type == "cuda")
                self._profile, self._first = profile(activities=kinds), state.global_step
                self._ends[-1] = self._now()
                self._profile.start()
        elif state.global_step == self._first + PROFILED:
            seconds = self._now() - self._ends[-1]
            self._profile.stop()
            self.profiled = summary(self._profile, seconds, self._device)
            control.should_training_stop = True
        return control

    def _now(self) -> float:
        """The time when the device has done all its work."""
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def rate(self, tokens: int) -> float:
        """Tokens a second over the steps between the warm-up and the profiler."""
        timed = self._ends[WARM_UP - 1 :]
        return tokens * (len(timed) - 1) / (timed[-1] - timed[0]) if len(timed) > 1 else 0.0


def summary(done: Any, seconds: float, device: torch.device) -> dict[str, Any]:
    """The operations that took the most time, the share of time in which the device ran none, and the waits a step."""
    averages = done.key_averages()
    on_device = device.type == "cuda"

    def spent(one: Any) -> float:
        return float(one.self_device_time_total if on_device else one.self_cpu_time_total) / 1e6

    top = sorted(averages, key=spent, reverse=True)[:25]
    busy = sum(spent(one) for one in averages)
    waits = {name: sum(one.count for one in averages if name in one.key) / PROFILED for name in WAITS}
    return {
        "seconds_a_step": seconds / PROFILED,
        "idle": max(0.0, 1 - busy / seconds),
        "waits_a_step": waits,
        "top": [{"name": one.key[:80], "seconds": spent(one), "count": one.count} for one in top],
    }
