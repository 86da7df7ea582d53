"""Rollout jobs: the work of a training whose student writes some of its samples itself.

The student writes before each step, when there are no gradients and no activations yet. Then its teachers read what it
wrote, even where their targets of the corpus were captured.
"""

import math
from collections.abc import Iterator
from dataclasses import replace

from potstill.planning.amounts import schedule
from potstill.planning.jobs import AnswersToWrite, Job, Situation, TrainingJob, WritingJob, teachers_beside, writing_of
from potstill.planning.ranges import ZERO, Range
from potstill.planning.trace import BatchShape
from potstill.recipe.on_policy import OnPolicy
from potstill.training.preflight_measurement import PROMPTS


def jobs_with_rollouts(at: Situation, training: TrainingJob, given: OnPolicy) -> Iterator[Job]:
    """The samples of the corpus, the written ones, and the writing.

    Args:
        at: the recipe, its models and its text.
        training: the same training without written samples.
        given: what the student writes.
    """
    prompt, answer = _prompt(at, given), _answer(at, given)
    length = prompt + answer
    longest = max(2, round(prompt.high + given.max_new_tokens))
    micro, part = training.batch.rows, _part(at, training, given)
    # Which rows of a step are written is drawn at random over its micro-batches.
    rows = micro if training.how.accumulates else math.ceil(given.share * micro)
    more = max(0.0, at.amounts.teacher_length.high - at.amounts.length.high)
    teachers = teachers_beside(at, rows, longest + more)
    beside = sum((one.weights for one in teachers), ZERO)
    samples = None if training.samples is None else training.samples * part
    writing = _writing(at, training, given, samples, beside)
    written = replace(
        training,
        batch=BatchShape(rows, longest),
        tokens=None if samples is None else samples * length,
        teachers=teachers,
        writing=writing,
    )
    if part < 1:
        yield replace(
            training,
            tokens=None if training.tokens is None else training.tokens * (1 - part),
            beside=ZERO if training.teachers else beside,
            writing=writing,
        )
        # The optimizer's own work is counted once.
        written = replace(written, steps=ZERO if training.steps is not None else None)
    yield written
    yield writing


def _writing(at: Situation, training: TrainingJob, given: OnPolicy, samples: Range | None, beside: Range) -> WritingJob:
    of_step = training.batch.rows * _accumulation(at)
    rows = min(given.batch_size, math.ceil(given.share * of_step))
    tried = 0 if given.preflight == "off" else PROMPTS
    count = None if samples is None else samples / float(given.refresh_every) + tried
    prompt, limit = _prompt(at, given), given.max_new_tokens
    asked = AnswersToWrite(rows, prompt, _answer(at, given).expected, limit, count, given.engine)
    moments = training.student.parameters.trained * training.moments
    return replace(
        writing_of(at, training.student, asked),
        precision=training.precision,
        weights=training.weights,
        beside=beside + moments,
        together=math.ceil(given.share * of_step),
        adapter=training.how.adapter,
        # It was read for the training.
        file=0.0,
    )


def _accumulation(at: Situation) -> int:
    found = schedule(at.recipe.distil.training, Range.exactly(1.0), at.ranks)
    assert found is not None
    return found.accumulation


def _part(at: Situation, training: TrainingJob, given: OnPolicy) -> float:
    """The part of a training's samples that the student writes."""
    if training.steps is None:
        return given.share
    steps = training.steps.expected
    return given.share * max(0.0, steps - given.from_step) / max(1.0, steps)


def _prompt(at: Situation, given: OnPolicy) -> Range:
    """The tokens of a prompt. In a conversation, it is all that comes before its last turn."""
    length, answer = at.amounts.length, at.amounts.answer
    if at.recipe.chats:
        return Range(1.0, max(1.0, length.expected / 2), max(1.0, length.high))
    if not at.recipe.asks:
        return Range.exactly(given.beginning)
    expected = max(1.0, length.expected - answer.expected)
    return Range(min(expected, max(1.0, length.low - answer.high)), expected, max(expected, length.high - answer.low))


def _answer(at: Situation, given: OnPolicy) -> Range:
    """The tokens of a written answer. A text has no end that comes soon."""
    limit = float(given.max_new_tokens)
    expected = min(limit, at.amounts.answer.expected) if at.recipe.asks else limit
    return Range(min(16.0, expected), expected, limit)
