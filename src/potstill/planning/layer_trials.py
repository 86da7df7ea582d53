"""Layer trials: how fast the first layers of each model are on this CPU, forward, backward and writing.

The rates of large tensors say too little of a small model, whose tensors stay in the CPU's caches. Some layers of the
model itself take a second or two, which a run can spend at its start.
"""

import statistics
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch

from potstill.models.head_extraction import hidden_states
from potstill.planning.calibrate import can_write, has_room, now, random_ids, random_model, seconds_of_token
from potstill.planning.duration import Passes, Scales, of_body, one_token, seconds_of
from potstill.planning.jobs import Job, ReadingJob, TrainingJob, WritingJob
from potstill.planning.machine import Machine
from potstill.planning.models import PlannedModel, of_layers, parameters_of
from potstill.planning.trace import BatchShape, config_of, prepared, quiet

LAYERS = 2
"""A model's first layers, with which forwards and backwards are tried."""
LAYERS_THAT_WRITE = 4
"""The same of writing. A step of few rows has work that does not depend on the number of layers."""
VOCABULARY = 512
"""Of the tried model. Its head is no part of the trial."""
TRIES = 3
MOST_SECONDS = 0.15
"""What one try may take. Of a larger batch, fewer rows are tried."""
MOST_OF_PROMPT = 64
"""Tokens of the prompts from which answers are written. They are read three times, and are not timed."""

_Tried = ReadingJob | TrainingJob | WritingJob


def try_layers(jobs: Iterable[Job], machine: Machine) -> Scales:
    """Try the first layers of each model as the jobs use it: each kind of passes once, with the longest of its jobs.

    A model that cannot be cut, or for which there is no room, is left out. On a GPU nothing is tried.
    """
    if machine.kind != "cpu":
        return Scales()
    longest: dict[Hashable, _Tried] = {}
    names: dict[Hashable, set[tuple[Passes, str]]] = defaultdict(set)
    for job in jobs:
        if isinstance(job, ReadingJob | TrainingJob | WritingJob):
            same, name = _passes(job)
            longest[same] = max(longest.get(same, job), job, key=lambda one: _seconds(one, machine))
            names[same].add(name)
    # A run's own random numbers do not depend on what was tried.
    with torch.random.fork_rng(devices=[]), quiet():
        scales = {same: _scale(job, machine) for same, job in longest.items()}
    return Scales(layers={name: scale for same, scale in scales.items() if scale is not None for name in names[same]})


def _passes(job: _Tried) -> tuple[Hashable, tuple[Passes, str]]:
    """What the passes of a job depend on, and the name of the job's scale."""
    if isinstance(job, ReadingJob):
        return ("reading", job.model.name, job.precision), ("reading", job.model.name)
    if isinstance(job, WritingJob):
        return ("writing", job.name, job.rows), ("writing", job.name)
    return ("training", replace(job, teachers=()).passes), ("training", job.key)


def _seconds(job: Job, machine: Machine) -> float:
    found = seconds_of(job, machine)
    return 0.0 if found is None else found.expected


def _scale(job: _Tried, machine: Machine) -> float | None:
    """How many times as long as forecast the first layers take; None if they cannot be tried."""
    try:
        if isinstance(job, WritingJob):
            small = _cut_writing(job)
            return seconds_of_token(small) / one_token(small, machine).expected if can_write(small, machine) else None
        cut = _with_fewer_rows(_cut(job), machine)
        if cut is None or not has_room(cut, machine):
            return None
        return _seconds_of_passes(cut) / of_body(cut, machine).expected
    except Exception:  # noqa: BLE001 (whatever a model with few layers raises; its forecast is then by rates alone)
        return None


def _cut(job: Any) -> Any:
    """The same job with the model's first layers alone."""
    if isinstance(job, TrainingJob):
        return replace(job, student=_first_layers(job.student, LAYERS), teachers=())
    return replace(job, model=_first_layers(job.model, LAYERS))


def _cut_writing(job: WritingJob) -> WritingJob:
    model = _first_layers(job.model, LAYERS_THAT_WRITE)
    share = model.parameters.total / job.model.parameters.total
    return replace(job, model=model, weights=job.weights * share, prompt=job.prompt.at_most(MOST_OF_PROMPT))


def _first_layers(model: PlannedModel, layers: int) -> PlannedModel:
    text = model.config.get_text_config()
    fields = of_layers(model.config, range(min(layers, text.num_hidden_layers)))
    # The id of a pad would lie beyond the smaller vocabulary.
    fields |= {"vocab_size": min(VOCABULARY, text.vocab_size), "pad_token_id": None}
    config = config_of(fields)
    return replace(model, config=config, parameters=parameters_of(config))


def _with_fewer_rows(job: Any, machine: Machine) -> Any:
    """The same with as many rows as a short try allows; None if one row takes too long."""
    rows = job.batch.rows
    most = int(rows * MOST_SECONDS / of_body(job, machine).expected)
    if most < 1:
        return None
    return replace(job, batch=BatchShape(min(rows, most), job.batch.length))


def _seconds_of_passes(job: ReadingJob | TrainingJob) -> float:
    """The seconds of a batch without head and loss, as :func:`potstill.planning.duration.of_body` forecasts them."""
    if isinstance(job, ReadingJob):
        return _median(_forward(job))
    return _median(_forward_and_backward(job))


def _forward(job: ReadingJob) -> Callable[[], None]:
    model = random_model(job.model.config, job.precision).eval()
    ids = random_ids(job.model.config, job.batch.rows, job.batch.length)

    def forward() -> None:
        with torch.no_grad():
            hidden_states(model, input_ids=ids, use_cache=False)

    return forward


def _forward_and_backward(job: TrainingJob) -> Callable[[], None]:
    model = prepared(random_model(job.student.config, "bf16" if job.in_half else "fp32"), job.how)
    inputs: Mapping[str, Any] = {"input_ids": random_ids(job.student.config, job.batch.rows, job.batch.length)}
    if job.pads:
        # With a pad, attention is another kernel.
        mask = torch.ones_like(inputs["input_ids"])
        mask[0, -1] = 0
        inputs = {**inputs, "attention_mask": mask}

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=job.how.autocast):
            states, _ = hidden_states(model, **inputs, use_cache=False)
        states.float().sum().backward()
        model.zero_grad(set_to_none=True)

    return step


def _median(do: Callable[[], None]) -> float:
    """The median seconds of some tries. The first one, which warms up the kernels, is not counted."""
    found = []
    for _ in range(1 + TRIES):
        began = now()
        do()
        found.append(now() - began)
    return statistics.median(found[1:])
