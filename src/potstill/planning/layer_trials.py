"""Layer trials: how fast some layers of each model are on this CPU, forward, backward and writing.

The rates of large tensors say too little of a small model, whose tensors stay in the CPU's caches. Some layers of the
model itself are tried in a second or two, which a run can spend at its start: the first ones, and of a model with
layers of several kinds, such as full and sliding attention, the first one of each kind.
"""

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from potstill.models.head_extraction import hidden_states
from potstill.planning.calibrate import TOKENS, can_write, has_room, now, random_ids, random_model, seconds_of_token
from potstill.planning.duration import (
    LayersOf,
    Scales,
    layers_of,
    of_body,
    one_batch,
    one_token,
    prompts_of,
    seconds_of,
)
from potstill.planning.jobs import Job, ReadingJob, TrainingJob, WritingJob
from potstill.planning.machine import Machine
from potstill.planning.models import PlannedModel, of_layers, parameters_of
from potstill.planning.trace import BatchShape, config_of, prepared, quiet
from potstill.students.prune_layers import LAYER_LISTS

LAYERS = 2
"""A model's layers, with which forwards and backwards are tried. A model with more kinds of layers has one of each."""
LAYERS_THAT_WRITE = 4
"""The same of writing. A step of few rows has work that does not depend on the number of layers."""
VOCABULARY = 512
"""Of the tried model. Its head is no part of the trial."""
TRIES = 3
MOST_SECONDS, MOST_SECONDS_OF_WRITING = 0.15, 2.0
"""What one try of a forward or of a step may take, and what a trial of writing may take. Of a larger batch, fewer rows
are tried; a slower model is left out."""
MOST_WEIGHTS = 1e8
"""Of the tried layers. Larger ones are left out: their tensors are large, and to fill them takes seconds."""
MOST_OF_PROMPT = 64
"""Tokens of the prompts from which answers are written. They are not timed."""
ALIKE = 0.05
"""How far a body whose layers all had the weights of the second one may be from the real one."""

_Tried = ReadingJob | TrainingJob | WritingJob


def try_layers(jobs: Iterable[Job], machine: Machine) -> Scales:
    """Try the first layers of each model as the jobs use it: of several jobs whose layers have one name, the longest.

    On a GPU nothing is tried. A model is left out if its first layers are not like the others, if it cannot be cut, or
    if there is no room or too little time for it.
    """
    if machine.kind != "cpu":
        return Scales()
    longest: dict[LayersOf, tuple[float, _Tried]] = {}
    for job in _tried(jobs):
        found, name = seconds_of(job, machine), layers_of(job)
        seconds = 0.0 if found is None else found.expected
        if seconds > 0 and (name not in longest or seconds > longest[name][0]):
            longest[name] = seconds, job
    # A run's own random numbers do not depend on what was tried.
    with torch.random.fork_rng(devices=[]), quiet():
        scales = {name: _scale(job, machine) for name, (_, job) in longest.items()}
    return Scales(layers={name: scale for name, scale in scales.items() if scale is not None})


def _tried(jobs: Iterable[Job]) -> Iterator[_Tried]:
    """The jobs that have layers, and the reading that is a part of others: of teachers beside a student, of prompts."""
    for job in jobs:
        if isinstance(job, TrainingJob):
            yield job
            yield from (replace(teacher, tokens=job.tokens) for teacher in job.teachers)
        elif isinstance(job, WritingJob):
            yield job
            yield prompts_of(job)
        elif isinstance(job, ReadingJob):
            yield job


def _scale(job: _Tried, machine: Machine) -> float | None:
    """How many times as long as forecast the first layers take; None if they are left out."""
    try:
        if isinstance(job, WritingJob):
            return _scale_of_writing(job, machine)
        model = _first_layers(job.student if isinstance(job, TrainingJob) else job.model, LAYERS)
        if model is None:
            return None
        cut = _with_fewer_rows(
            replace(job, student=model, teachers=()) if isinstance(job, TrainingJob) else replace(job, model=model),
            machine,
        )
        if cut is None or not has_room(cut, machine):
            return None
        return _seconds_of_batch(cut) / of_body(cut, machine).expected
    except Exception:  # noqa: BLE001 (whatever a model with few layers raises; its forecast is then by rates alone)
        return None


def _scale_of_writing(job: WritingJob, machine: Machine) -> float | None:
    model = _first_layers(job.model, LAYERS_THAT_WRITE)
    if model is None:
        return None
    weights = job.weights * (model.parameters.total / job.model.parameters.total)
    small = replace(job, model=model, weights=weights, prompt=job.prompt.at_most(MOST_OF_PROMPT))
    prompts = one_batch(prompts_of(small), machine).expected
    # As often as `seconds_of_token` does both.
    foreseen = 3 * prompts + (TOKENS + 3) * one_token(small, machine).expected
    if foreseen > MOST_SECONDS_OF_WRITING or not can_write(small, machine):
        return None
    return seconds_of_token(small) / one_token(small, machine).expected


def _first_layers(model: PlannedModel, layers: int) -> PlannedModel | None:
    """The model with some of its layers alone, and few tokens. None if they are too large, or not like the others."""
    text = model.config.get_text_config()
    if text is not model.config:
        # The configuration of its text is within another one.
        return None
    if not _are_alike(model):
        return None
    config = _cut(model, _of_each_kind(text, layers))
    sizes = parameters_of(config)
    return replace(model, config=config, parameters=sizes) if sizes.total <= MOST_WEIGHTS else None


def _of_each_kind(config: Any, layers: int) -> list[int]:
    """The first layer of each kind that the configuration has, and the first others, to at least so many."""
    total = config.num_hidden_layers
    lists = [found for name in LAYER_LISTS if len(found := getattr(config, name, None) or ()) == total]
    kinds = {tuple(one[place] for one in lists): place for place in reversed(range(total))}
    chosen = set(kinds.values())
    others = [place for place in range(total) if place not in chosen]
    return sorted(chosen | set(others[: max(0, layers - len(chosen))]))


def _cut(model: PlannedModel, layers: Sequence[int]) -> Any:
    """The configuration of these layers alone, with few tokens."""
    fields = of_layers(model.config, layers)
    # The id of a pad would lie beyond the smaller vocabulary.
    return config_of(fields | {"vocab_size": min(VOCABULARY, model.config.vocab_size), "pad_token_id": None})


def _are_alike(model: PlannedModel) -> bool:
    """Whether all layers have as many weights as the second one. Others do, in hybrids and in some mixtures."""
    total = model.config.num_hidden_layers
    if total <= LAYERS:
        return True
    one, two = (parameters_of(_cut(model, range(layers))).body for layers in (1, 2))
    return abs(two + (total - 2) * (two - one) - model.parameters.body) <= ALIKE * model.parameters.body


def _with_fewer_rows(job: Any, machine: Machine) -> Any:
    """The same with as many rows as a short try allows; None if one row takes too long."""
    rows = job.batch.rows
    most = int(rows * MOST_SECONDS / of_body(job, machine).expected)
    return replace(job, batch=BatchShape(min(rows, most), job.batch.length)) if most else None


def _seconds_of_batch(job: ReadingJob | TrainingJob) -> float:
    """The median seconds of some tries of what :func:`potstill.planning.duration.of_body` forecasts.

    The first one, which warms up the kernels, is not counted.
    """
    do = _forward(job) if isinstance(job, ReadingJob) else _forward_and_backward(job)
    found = []
    for _ in range(1 + TRIES):
        began = now()
        do()
        found.append(now() - began)
    return statistics.median(found[1:])


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
