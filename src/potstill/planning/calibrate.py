"""Calibrate: some real steps of each kind on this machine, with random weights in the models' real shapes.

A plan then scales its seconds by what they took, and has the memory that they needed.
"""

import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PrinterCallback, TrainerCallback

from potstill.device import device, run_dtype
from potstill.losses.loss import Loss
from potstill.models.head_extraction import hidden_states
from potstill.planning import peak_memory
from potstill.planning.duration import Scales, of_body, of_update, one_step
from potstill.planning.jobs import Job, ReadingJob, TrainingJob
from potstill.planning.machine import Machine
from potstill.planning.memory import memory_of
from potstill.planning.trace import quiet
from potstill.recipe.no_effect import ACCUMULATION, BATCH
from potstill.students.adapters import with_adapter
from potstill.training.arguments import training_arguments
from potstill.training.trainer import DistilTrainer

STEPS = 3
"""The first is not counted: it makes the optimizer's state, and warms up the kernels."""
MOST_BATCHES = 4
"""Micro-batches of a step that are tried."""


def calibrate(jobs: Iterable[Job], machine: Machine) -> Scales:
    """Try each kind of forward and of training of a plan, as far as this machine has room for it."""
    scales = Scales()
    for job in jobs:
        if isinstance(job, ReadingJob) and job.model.name not in scales.reading and _has_room(job, machine):
            _say(f"trying a forward of {job.model.name}")
            ratio = _seconds_of_forward(job) / of_body(job, machine).expected
            scales = replace(scales, reading={**scales.reading, job.model.name: ratio})
        elif isinstance(job, TrainingJob) and job.key not in scales.training and _has_room(job, machine):
            _say(f"trying {STEPS} steps of {job.key}")
            with peak_memory.measured() as peak:
                seconds = _seconds_of_step(job)
            foreseen = one_step(job, machine).expected * _batches(job) + of_update(job, machine).expected
            needed = peak.host if machine.kind == "cpu" else peak.device
            scales = replace(
                scales,
                training={**scales.training, job.key: seconds / foreseen},
                memory={**scales.memory, job.key: needed} if needed else scales.memory,
            )
    return scales


def _say(text: str) -> None:
    # The plan itself, which may be JSON, is on the standard output.
    print(text, file=sys.stderr, flush=True)


def _has_room(job: Job, machine: Machine) -> bool:
    """Whether a job can be tried: it fits, and its models are neither quantised nor of another engine."""
    needed = memory_of([job], machine)
    most = needed.on_device if machine.kind == "cuda" else needed.on_host
    models = (job, *getattr(job, "teachers", ()))
    plain = all(one.weights.is_exact for one in models)
    return plain and machine.memory is not None and most.high < machine.memory


def _model(config: Any, precision: str) -> PreTrainedModel:
    with quiet(), torch.device(device()):
        return AutoModelForCausalLM.from_config(config, dtype=run_dtype(precision))


def _ids(config: Any, rows: int, length: int) -> torch.Tensor:
    return torch.randint(config.get_text_config().vocab_size, (rows, length), device=device())


def _seconds_of_forward(job: ReadingJob) -> float:
    model = _model(job.model.config, job.precision).eval()
    ids = _ids(job.model.config, job.batch.rows, job.batch.length)
    found = []
    with torch.no_grad():
        for _ in range(STEPS):
            began = _now()
            hidden_states(model, input_ids=ids, use_cache=False)
            found.append(_now() - began)
    return min(found[1:])


def _now() -> float:
    if device().type != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter()


class _Clock(TrainerCallback):
    """The seconds of each step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._began = 0.0

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self._began = _now()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.seconds.append(_now() - self._began)


def _batches(job: TrainingJob) -> int:
    return min(int(job.fields.get(ACCUMULATION, 1)), MOST_BATCHES)


def _seconds_of_step(job: TrainingJob) -> float:
    """The seconds of one optimizer step of a real training, with fewer micro-batches where there are many."""
    student: Any = _model(job.student.config, "bf16" if job.in_half else "fp32")
    if job.adapter is not None:
        student = with_adapter(student, job.adapter, seed=0)
    if job.how.checkpointing and job.adapter is not None:
        student.enable_input_require_grads()
    teachers = [_model(one.model.config, one.precision) for one in job.teachers]
    times = _batches(job)
    fields = {**job.fields, "max_steps": STEPS, "save_strategy": "no", ACCUMULATION: times, BATCH: job.batch.rows}
    fields.pop("save_steps", None)
    ids = _ids(job.student.config, STEPS * times * job.batch.rows, job.batch.length).tolist()
    losses = (
        [Loss("forward_kl", weight=0.5), Loss("cross_entropy", weight=0.5)] if teachers else [Loss("cross_entropy")]
    )
    clock = _Clock()
    with tempfile.TemporaryDirectory() as folder, quiet():
        trainer = DistilTrainer(
            model=student,
            args=training_arguments(fields, job.key, Path(folder), seed=0),
            train_dataset=[{"input_ids": one, "labels": one} for one in ids],
            losses=losses,
            teacher=teachers or None,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(clock)
        trainer.train()
    return min(clock.seconds[1:])
