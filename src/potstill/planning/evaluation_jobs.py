"""Evaluation jobs: what `evaluate` and `select` let models read and write."""

from collections.abc import Iterator
from dataclasses import replace

from potstill.metrics.model_groups import BYTES_PER_WEIGHT, SHARE_OF_MEMORY, fit_beside_teachers, in_groups
from potstill.metrics.speed_rounds import SIZES
from potstill.planning.amounts import schedule
from potstill.planning.jobs import (
    COMPARED_BYTES,
    AnswersToWrite,
    Job,
    ReadingJob,
    Situation,
    WaitingJob,
    adapter_of,
    reading_of,
    reading_of_student,
    writing_of,
)
from potstill.planning.models import PlannedModel
from potstill.planning.ranges import ONE, ZERO, Range
from potstill.recipe.across_tokenizers import crossing_loss
from potstill.recipe.candidates import own_candidates, trained_candidates
from potstill.recipe.evaluate import SAMPLE_BEGINNING, SAMPLE_TOKENS
from potstill.recipe.step import Step

SPEED_SECONDS = Range(1.0, 2.0, 60.0)
"""`evaluate.speed` of models without weights (`metrics/speed_rounds.py`)."""
SPEED_OF_WEIGHT, MOST_SPEED_SECONDS = 4.4e-8, 20.0
"""What each weight adds, and the seconds that its rounds should take. Measured on two cores: 11 s with 216 million."""
PAIR_TOKENS = Range(18, 32, 46)
"""Of both sentences of a minimal pair of BLiMP with their padding. Measured without: 28.6 with 4,096 tokens of
vocabulary."""
SUBTASKS, PAIRS_OF_SET = 67, 67_000
"""Of BLiMP."""
ANSWERED = 0.75
"""The share of the greatest number of tokens that a continuation has. Measured: 0.5 of a model of stories."""
SECONDS_OF_SCORING, SECONDS_OF_RESPONSE = Range(0.2, 1.0, 6.0), Range(3e-4, 2e-3, 1e-2)
"""To load what compares continuations with their references, and to compare one, mostly by the encoder of sentences."""
SCORING_BYTES = Range(0.05e9, 0.25e9, 0.8e9)
"""Of word vectors, an encoder of sentences and its library. Measured with packages that ship them: 0.2 to 0.3 GB."""
FACTS_PROMPTS, PROMPT_TOKENS = 233, Range(4, 10, 24)
"""Of the set of continuations that ships."""


def selection_jobs(step: Step, at: Situation) -> Iterator[Job]:
    """The snapshots of one training, and each of them measured."""
    kept = at.recipe.distil.snapshots
    if at.models.student is None or kept is None:
        return
    found = schedule(at.recipe.distil.training, at.amounts.samples, at.ranks)
    if kept.count is not None:
        count = Range.exactly(kept.count)
    elif found is not None:
        count = found.steps / float(kept.every or 1)
    else:
        return
    validation = Range.exactly(at.amounts.validation_samples) * at.amounts.length
    yield reading_of_student(at, validation * count, at.recipe.evaluate.batch_size, at.amounts.length.high)
    # The start is measured too, and only half of the items select.
    models = count + 1.0
    yield from _metrics_of_text(at, at.models.student, models * 0.5, models)


def evaluation_jobs(step: Step, at: Situation) -> Iterator[Job]:
    """All measurements of all models."""
    if at.recipe.evaluate.speed:
        yield WaitingJob(_of_speed(at))
        yield from _models_of_speed(at)
    if at.recipe.asks:
        return
    length, rows = at.recipe.corpus.sequence_length, at.recipe.evaluate.batch_size
    # What compares answers is loaded once for all models.
    loadings = ONE
    for model, times in _measured(at):
        tokens = at.amounts.held_out_tokens
        read = None if tokens is None else tokens * times
        if model is at.models.student:
            own = _side_by_side(at, reading_of_student(at, read, rows, length))
            yield replace(own, moved_of_logit=COMPARED_BYTES if at.models.teachers else 0.0)
        else:
            theirs = at.amounts.tokens_of(model.name)
            yield reading_of(at, model, None if read is None else read * theirs, rows, length)
        yield from _metrics_of_text(at, model, Range.exactly(times), loadings)
        loadings = ZERO
    yield from _samples(at)
    if at.recipe.evaluate.tasks:
        # Nobody knows the items of a task before lm-eval has loaded them.
        yield WaitingJob(None)


def _of_speed(at: Situation) -> Range:
    # A student, and the control beside it.
    trained = [] if at.models.student is None else [at.models.student] * (1 if at.recipe.control is None else 2)
    models = [*at.models.teachers.values(), *trained]
    weights = sum(one.parameters.total for one in models)
    expected = min(SPEED_SECONDS.expected + SPEED_OF_WEIGHT * weights, MOST_SPEED_SECONDS)
    return replace(SPEED_SECONDS, expected=expected)


def _models_of_speed(at: Situation) -> Iterator[Job]:
    """The student's largest batch of `evaluate.speed`, with the teachers and the control beside it if all of them fit
    into memory together.

    Its seconds are those of :func:`_of_speed`.
    """
    student = at.models.student
    teachers, of_teachers = _teachers_beside(at)
    if student is None:
        return
    several = 1 if at.recipe.control is None else 2
    sizes = [float(BYTES_PER_WEIGHT * student.parameters.total)] * several
    if fit_beside_teachers(sizes, of_teachers, SHARE_OF_MEMORY * at.memory):
        rows, prompt, new = SIZES[0].batch_size, Range.exactly(SIZES[0].prompt_tokens), SIZES[0].new_tokens
        writing = writing_of(at, student, AnswersToWrite(rows, prompt, new, new, Range.exactly(rows)))
        beside = teachers + writing.weights * (several - 1.0)
        yield replace(writing, count=ZERO, beside=Range(0.0, beside.expected, beside.high))


def _samples(at: Situation) -> Iterator[Job]:
    """The held-out beginnings that the first teacher, and what was trained with the first seed, continue."""
    count = at.recipe.evaluate.samples
    if at.recipe.chats or not count:
        return
    trained = {(one.role, one.name) for one in trained_candidates(at.recipe)}
    teacher = next(iter(at.models.teachers.values()), None)
    for model, times in ((teacher, 1), (at.models.student, len(trained))):
        if model is not None:
            prompts, limit = Range.exactly(SAMPLE_BEGINNING), SAMPLE_TOKENS
            asked = AnswersToWrite(count, prompts, 0.9 * limit, limit, Range.exactly(count * times))
            writing = writing_of(at, model, asked)
            yield replace(writing, adapter=adapter_of(at)) if model is at.models.student else writing


def _side_by_side(at: Situation, read: ReadingJob) -> ReadingJob:
    """The student's forward, with the models beside it that read the same batches: other students, the control, the
    start, baselines, and the teachers if all of them fit into memory together."""
    others = list(at.models.others.values())
    students = sum(one.role != "teacher" for one in own_candidates(at.recipe))
    sizes = [float(BYTES_PER_WEIGHT * one.parameters.total) for one in (*[read.model] * students, *others)]
    each = [read.weights] * students + [_weights(at, one) for one in others]
    room = SHARE_OF_MEMORY * at.memory
    # The group's last model is the one that reads.
    beside = Range.greatest([sum(each[group], ZERO).less(read.weights) for group in in_groups(sizes, room)])
    teachers, of_teachers = _teachers_beside(at)
    if crossing_loss(at.recipe) is None and fit_beside_teachers(sizes, of_teachers, room):
        beside += teachers
    return replace(read, beside=Range(0.0, beside.expected, beside.high), reads_again=True)


def _teachers_beside(at: Situation) -> tuple[Range, float]:
    """The bytes of the teachers beside other models, without those that lie on all accelerators; and of all teachers by
    their number of weights."""
    several = [reading_of(at, one, None, 1, 2) for one in at.models.teachers.values()]
    loaded = sum((one.weights for one in several if not one.spans), ZERO)
    return loaded, float(BYTES_PER_WEIGHT * sum(one.model.parameters.total for one in several))


def _weights(at: Situation, model: PlannedModel) -> Range:
    return reading_of(at, model, None, 1, 2).weights


def _measured(at: Situation) -> Iterator[tuple[PlannedModel, float]]:
    """Each model that is measured, and how often: a student and a control for each seed, and the start."""
    for model in (*at.models.teachers.values(), *at.models.others.values()):
        yield model, 1.0
    if at.models.student is not None:
        yield at.models.student, float(sum(one.role != "teacher" for one in own_candidates(at.recipe)))


def _metrics_of_text(at: Situation, model: PlannedModel, times: Range, loadings: Range) -> Iterator[Job]:
    """Minimal pairs and continuations of a model.

    Args:
        at: the recipe, its models and its text.
        model: the model.
        times: how often all items are read and written.
        loadings: how often what compares continuations is loaded.
    """
    measured = at.recipe.evaluate
    for pairs in measured.minimal_pairs.values():
        several = PAIRS_OF_SET if pairs.pairs is None else min(PAIRS_OF_SET, SUBTASKS * pairs.pairs)
        tokens = PAIR_TOKENS * float(several) * times
        if model is at.models.student:
            yield reading_of_student(at, tokens, measured.batch_size, 32)
        else:
            yield reading_of(at, model, tokens, measured.batch_size, 32)
    for given in measured.continuations.values():
        count = Range.exactly(min(given.count or FACTS_PROMPTS, FACTS_PROMPTS)) * times
        limit = given.max_new_tokens
        yield writing_of(at, model, AnswersToWrite(measured.batch_size, PROMPT_TOKENS, ANSWERED * limit, limit, count))
        yield WaitingJob(SECONDS_OF_SCORING * loadings + SECONDS_OF_RESPONSE * count, SCORING_BYTES)
