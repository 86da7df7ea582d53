"""Calibrate: some real steps of each kind on this machine, with random weights in the models' real shapes.

A plan then scales its seconds by what they took, and has the memory that they needed.
"""

import json
import math
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Hashable, Iterable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PrinterCallback, TrainerCallback

from potstill.device import device, run_dtype
from potstill.generation.continuous_batches import ContinuousBatches
from potstill.generation.decoding import Decoding, Task, TokenChoice
from potstill.generation.fixed_batches import FixedBatches
from potstill.generation.row_batch import continues_rows
from potstill.losses.loss import Loss
from potstill.losses.token_scores import score_tokens
from potstill.models.forward import forward
from potstill.models.head_extraction import head_of
from potstill.planning import peak_memory
from potstill.planning.duration import Scales, of_update, one_batch, one_step, one_token
from potstill.planning.jobs import Job, ReadingJob, TrainingJob, WritingJob
from potstill.planning.machine import Machine
from potstill.planning.memory import memory_of
from potstill.planning.trace import BatchShape, quiet
from potstill.recipe.no_effect import ACCUMULATION, BATCH
from potstill.students.adapters import with_adapter
from potstill.training.arguments import training_arguments
from potstill.training.trainer import DistilTrainer

STEPS, MOST_STEPS, SECONDS_TRIED = 3, 30, 5.0
"""The least and the greatest number of steps of a training or forwards that are tried, and the seconds that they take
together as far as the numbers allow. The first is not counted: it makes the optimizer's state, and warms up the
kernels."""
LENGTHS, SECONDS_OF_LENGTHS = 16, 15.0
"""The steps with batches of other lengths, and the seconds that they take together as far as the numbers allow: no
fewer than those that are timed, and no more than the run has."""
TOKENS = 8
"""Of each answer that is written, beside the first, which waits for the prompts."""
MOST_BATCHES = 4
"""Micro-batches of a step that are tried."""


def calibrate(jobs: Iterable[Job], machine: Machine) -> Scales:
    """Try each kind of forward and of training of a plan, as far as this machine has room for it."""
    scales, trained = Scales(), dict[Hashable, tuple[float, int | None]]()
    for job in jobs:
        if isinstance(job, ReadingJob) and _key(job) not in scales.reading and has_room(job, machine):
            _say(f"trying forwards of {job.model.name}, {job.batch.rows} × {job.batch.length} tokens")
            foreseen = one_batch(job, machine).expected
            ratio = _seconds_of_forward(job, _times(foreseen)) / foreseen
            scales = replace(scales, reading={**scales.reading, _key(job): ratio})
        elif isinstance(job, WritingJob) and job.name not in scales.writing and can_write(job, machine):
            _say(f"trying {TOKENS} tokens of {job.rows} answers of {job.name}")
            ratio = seconds_of_token(job) / one_token(job, machine).expected
            scales = replace(scales, writing={**scales.writing, job.name: ratio})
        elif isinstance(job, TrainingJob) and job.key not in scales.training and has_room(job, machine):
            same = _same_trial(job)
            if same not in trained:
                trained[same] = _try_training(job, machine)
            ratio, needed = trained[same]
            scales = replace(
                scales,
                training={**scales.training, job.key: ratio},
                memory=scales.memory if needed is None else {**scales.memory, job.key: needed},
            )
    return scales


def _same_trial(job: TrainingJob) -> Hashable:
    """What the trial of a training depends on."""
    beside = tuple((one.model.name, one.precision, one.batch) for one in job.teachers)
    fields = tuple(sorted((name, str(value)) for name, value in job.fields.items()))
    return job.micro_batch, beside, fields, job.steps


def _try_training(job: TrainingJob, machine: Machine) -> tuple[float, int | None]:
    """How many times as long as forecast a step took, and the bytes that the training needed, where they are known: of
    a device, or on a CPU beside the process itself."""
    foreseen = one_step(job, machine).expected * _batches(job) + of_update(job, machine).expected
    timed, untimed = _times(foreseen), _steps_of_other_lengths(job, foreseen)
    _say(f"trying {timed + untimed} steps of {job.key}")
    with peak_memory.measured() as peak:
        before = peak_memory.held()["host"]
        seconds = _seconds_of_step(job, timed, untimed)
    if machine.kind != "cpu":
        return seconds / foreseen, peak.device
    # This process has libraries and earlier trials, which a run has not.
    return seconds / foreseen, None if peak.host is None or before is None else max(0, peak.host - before)


def _key(job: ReadingJob) -> tuple[str, BatchShape]:
    return job.model.name, job.batch


def _times(foreseen: float) -> int:
    """How often something is tried whose seconds are foreseen."""
    return max(STEPS, min(MOST_STEPS, math.ceil(SECONDS_TRIED / foreseen)))


def _say(text: str) -> None:
    # The plan itself, which may be JSON, is on the standard output.
    print(text, file=sys.stderr, flush=True)


def has_room(job: Job, machine: Machine) -> bool:
    """Whether a job can be tried: it fits, and its models are neither quantised nor of another engine."""
    needed = memory_of([job], machine)
    most = needed.on_device if machine.kind == "cuda" else needed.on_host
    models = (job, *getattr(job, "teachers", ()))
    plain = all(one.weights.is_exact for one in models)
    return plain and machine.memory is not None and most.high < machine.memory


def can_write(job: WritingJob, machine: Machine) -> bool:
    """Whether transformers will write here, and the job fits."""
    chosen = job.engine == "transformers" or (job.engine == "auto" and machine.kind == "cpu")
    return chosen and has_room(job, machine)


def random_model(config: Any, precision: str) -> PreTrainedModel:
    """A model on this machine's device, with random weights in a number format."""
    with quiet(), torch.device(device()):
        return AutoModelForCausalLM.from_config(config, dtype=run_dtype(precision))


def random_ids(config: Any, rows: int, length: int) -> torch.Tensor:
    """Rows of random tokens for a model with this configuration."""
    return torch.randint(config.get_text_config().vocab_size, (rows, length), device=device())


def _seconds_of_forward(job: ReadingJob, times: int) -> float:
    """The seconds in which a batch is read and its tokens are scored."""
    model = random_model(job.model.config, job.precision).eval()
    ids, head, found = random_ids(job.model.config, job.batch.rows, job.batch.length), head_of(model), []
    with torch.no_grad():
        for _ in range(times):
            began = now()
            states, labels = forward(model, head, {"input_ids": ids, "labels": ids})
            score_tokens(states, head, labels)
            found.append(now() - began)
    return statistics.mean(found[1:])


def seconds_of_token(job: WritingJob) -> float:
    """The seconds of a step in which each row gets a token."""
    model = random_model(job.model.config, job.precision)
    if job.adapter is not None:
        model = with_adapter(model, json.loads(job.adapter), seed=0)
    model = model.eval()
    prompts = random_ids(job.model.config, job.rows, _width_of_writing(job)).tolist()
    tasks = [Task((str(place), 0), prompt) for place, prompt in enumerate(prompts)]
    together, found = continues_rows(model, len(prompts[0]) + TOKENS + 1), []
    for count in (1, 1, 1 + TOKENS):
        choose = TokenChoice(Decoding(count, job.rows), ends=(), never=())
        writer = (
            ContinuousBatches(model, choose, job.rows, tasks) if together else FixedBatches(model, choose, job.rows, 0)
        )
        began = now()
        assert sum(len(ended) for ended in writer.write(tasks)) == len(tasks)
        found.append(now() - began)
    # The first one warms up the kernels.
    return max(found[2] - found[1], 0.1 * found[2]) / TOKENS


def _width_of_writing(job: WritingJob) -> int:
    """The tokens that a step of writing looks back on, in the middle of the answers: those of the longest row, because
    all rows have its keys and values in one tensor."""
    prompt = (job.prompt.expected + job.prompt.high) / 2
    return max(2, round(min(prompt + job.new.expected / 2, job.longest - TOKENS - 1)))


def now() -> float:
    """The seconds of a clock, once the device has done all its work."""
    if device().type != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter()


class _Clock(TrainerCallback):
    """The seconds from the end of each step to the end of the next, with all that a training does between steps."""

    def __init__(self, steps: int) -> None:
        self._steps, self._ends = steps, list[float]()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self._ends.append(now())

    @property
    def seconds(self) -> float:
        """Of a step that counts, without the first one. The mean, because a run has its slow steps too."""
        return statistics.mean(after - before for before, after in pairwise(self._ends[: self._steps]))


def _steps_of_other_lengths(job: TrainingJob, foreseen: float) -> int:
    """The steps with batches of other lengths, for the memory: on a CPU each length has kernels of its own."""
    if not job.pads or device().type != "cpu":
        return 0
    wanted = max(_times(foreseen), min(LENGTHS, math.ceil(SECONDS_OF_LENGTHS / foreseen)))
    if job.steps is None:
        return wanted
    # A short run has no more lengths than batches.
    batches = job.steps.high * int(job.fields.get(ACCUMULATION, 1))
    return min(wanted, math.ceil(batches / _batches(job)))


def _batches(job: TrainingJob) -> int:
    return min(int(job.fields.get(ACCUMULATION, 1)), MOST_BATCHES)


def _seconds_of_step(job: TrainingJob, steps: int, untimed: int) -> float:
    """The seconds of one optimizer step of a real training, with fewer micro-batches where there are many.

    Args:
        job: the training.
        steps: those that are timed, with batches of the greatest length.
        untimed: those that follow with other lengths. A long run has most of its kernels already.
    """
    student: Any = random_model(job.student.config, "bf16" if job.in_half else "fp32")
    if job.adapter is not None:
        student = with_adapter(student, job.adapter, seed=0)
    if job.how.checkpointing and job.adapter is not None:
        student.enable_input_require_grads()
    teachers = [random_model(one.model.config, one.precision) for one in job.teachers]
    times = _batches(job)
    every = steps + untimed
    fields = {**job.fields, "max_steps": every, "save_strategy": "no", "train_sampling_strategy": "sequential"}
    fields |= {ACCUMULATION: times, BATCH: job.batch.rows}
    fields.pop("save_steps", None)
    ids = random_ids(job.student.config, every * times * job.batch.rows, job.batch.length).tolist()
    if job.pads:
        # In no order: shorter and shorter batches would find room where longer ones have been.
        lengths = random.Random(0).sample(range(untimed * times), untimed * times)
        for batch, less in enumerate(lengths, steps * times):
            shorter = max(2, job.batch.length - 1 - less)
            of_batch = slice(batch * job.batch.rows, (batch + 1) * job.batch.rows)
            ids[of_batch] = [one[:shorter] for one in ids[of_batch]]
        # One token less, so that every batch of several rows has a pad.
        ids[:: job.batch.rows] = [one[:-1] for one in ids[:: job.batch.rows]]
    losses = (
        [Loss("forward_kl", weight=0.5), Loss("cross_entropy", weight=0.5)] if teachers else [Loss("cross_entropy")]
    )
    clock = _Clock(steps)
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
    return clock.seconds
