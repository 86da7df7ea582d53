"""Stage jobs: the work of each step of a recipe, stage by stage."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from math import inf
from typing import Any

from potstill.models.size import positions_of
from potstill.planning.captured_spans import reading_of_spans
from potstill.planning.evaluation_jobs import evaluation_jobs, selection_jobs
from potstill.planning.jobs import (
    AnswersToWrite,
    Job,
    Situation,
    TrainingJob,
    WaitingJob,
    adapter_of,
    live_teachers,
    reading_of,
    reading_of_student,
    training_of,
    writing_of,
)
from potstill.planning.models import PlannedModel
from potstill.planning.ranges import Range
from potstill.planning.rollout_jobs import jobs_with_rollouts
from potstill.planning.saving import FILE_BYTES_PER_SECOND, saves_of
from potstill.recipe.across_tokenizers import keeps_documents
from potstill.recipe.evaluate import SAMPLE_BEGINNING
from potstill.recipe.step import Step
from potstill.recipe.training_fields import TrainingFields

START_TOKENS, START_ROWS_OF = 4096, 2048
"""The tokens on which a start and its teachers are measured, and those that are read at once (`stages/student.py`)."""
TRAINED_STAGES = ("distil", "control", "pretrain", "search")
WITHOUT_MODELS = ("corpus", "tokenizer", "strategies", "report")
"""Stages that run no model."""
GGUF_WEIGHTS_PER_SECOND = Range(4e6, 10e6, 30e6)
BUILT_WEIGHTS_PER_SECOND = Range(1.5e7, 5e7, 5e8)
"""Of a start, and of the model that it is cut from: both are read, and the start is saved and read again. Measured on
two cores: 3.0e7 to 6.5e7 with 216 and 234 million that were cut; 1.7e8 with a copy."""
TOKENS_PER_SECOND = Range(1e5, 6e5, 2e6)
"""Reading, cleaning, splitting and tokenizing of text."""
SECONDS_OF_PROMPT = Range(5e-5, 2.5e-4, 4e-3)
"""To make a prompt and its sample. A shipped recipe's took 0.22 to 0.35 ms."""
SECONDS_OF_TARGET = Range(1e-6, 6e-6, 3e-5)
"""To choose, pack and write what a store keeps of a token. Measured with 259 logits, of which 32 are kept."""
CAPTURED_BYTES = 24.0
"""Read and written of a logit, as the passes of a capture over it count them (`targets/codecs/top_k.py`)."""
PLOT_BYTES = Range(0.0, 2e8, 5e8)
"""Of a report: what draws its plots, and the figures of the run. Measured with seven recipes: 0.15 to 0.3 GB."""
STEP_SECONDS = Range(0.01, 0.5, 5.0)
"""What each step costs besides: it loads models, and writes its manifest. Measured: 0.03 s without a model, 0.3 to 0.5
with a small one."""
REPORT_SECONDS = Range(0.1, 0.6, 3.0)
"""To draw plots and to write the page. Measured with eight recipes: 0.8 to 1.3 s with all that a step costs."""

EXPORTED_TOKENS, EXPORTED_ANSWERS, EXPORTED_LIMIT = Range(2_000, 8_000, 24_000), Range(40, 80, 240), 32
"""What an export reads and writes with student and file together (``export/held_out.py``)."""


def jobs_of(step: Step, at: Situation) -> list[Job]:
    """The work of a step. Where a model is not known, neither is the time of the steps that may need it."""
    made = _BY_STAGE.get(step.stage)
    unknown = [WaitingJob(None)] if at.models.missing and step.stage not in WITHOUT_MODELS else []
    return [WaitingJob(STEP_SECONDS), *(made(step, at) if made is not None else ()), *unknown]


def _teachers(step: Step, at: Situation) -> Iterator[Job]:
    for name, model in at.models.teachers.items():
        if name in at.recipe.pretrain:
            continue
        weights = Range.exactly(model.parameters.total)
        if model.converts:
            # The file's own weights and the converted ones are both there, in float32.
            yield WaitingJob(weights / GGUF_WEIGHTS_PER_SECOND, Range(4.0, 9.5, 11.0) * weights)
        else:
            yield WaitingJob(weights * 2.0 / FILE_BYTES_PER_SECOND)


def _corpus(step: Step, at: Situation) -> Iterator[Job]:
    tokens = at.amounts.tokens
    # Documents are kept in a file, and their digests in memory.
    host = Range(0.0, 2e8, 1.5e9)
    yield WaitingJob(None if tokens is None else tokens / TOKENS_PER_SECOND, host)


def _pretrain(step: Step, at: Situation) -> Iterator[Job]:
    model = at.models.teachers.get(str(step.name))
    if model is not None:
        given = at.recipe.pretrain[str(step.name)]
        training = training_of(_as_teachers_read(at), model, given.training, str(step))
        yield training
        yield from saves_of(at, training, given.keep)


def _as_teachers_read(at: Situation) -> Situation:
    """The same with the samples of a teacher that is trained here: every question, behind each of its prompts
    (`pipeline/training_data.py`)."""
    if not at.recipe.asks:
        return at
    amounts, prompts = at.amounts, len({one.strategy for one in at.recipe.sample_sets.values()})
    length = Range.greatest([amounts.teacher_length, *amounts.teacher_lengths.values()])
    longer = length.expected / amounts.length.expected
    samples = None if amounts.samples is None else amounts.samples * float(prompts)
    read = replace(amounts, samples=samples, length=length, lengths=tuple(one * longer for one in amounts.lengths))
    return replace(at, amounts=read)


def _student(step: Step, at: Situation) -> Iterator[Job]:
    length, teacher = at.amounts.length, getattr(at.recipe.student, "teacher", None)
    rows = max(1, START_ROWS_OF // at.recipe.corpus.sequence_length)
    tokens = Range.exactly(START_TOKENS)
    samples = getattr(at.recipe.student, "measured_samples", 0)
    for model in at.models.teachers.values():
        if model.name in at.recipe.pretrain and model.name != teacher:
            continue
        if samples and model.name == teacher:
            # Importance is measured without each layer, or once for all.
            layers = model.config.get_text_config().num_hidden_layers
            passes = 1 if getattr(at.recipe.student, "by", None) == "hidden" else layers
            yield reading_of(at, model, length * samples * (passes + 1.0), rows, length.high)
        yield reading_of(at, model, tokens, rows, length.high)
    if at.models.student is not None:
        yield reading_of_student(at, tokens, rows, length.high)
        yield _to_build(at, at.models.student)


def _to_build(at: Situation, student: PlannedModel) -> WaitingJob:
    """A start is built and saved: in float32, with the model that it comes from and its file."""
    whole = 4.0 * student.parameters.total
    source = at.models.teachers.get(getattr(at.recipe.student, "teacher", ""))
    made_of = whole if source is None else 4.0 * source.parameters.total
    cut_from = made_of if made_of > whole else 0.0
    return WaitingJob(
        Range.exactly((whole + cut_from) / 4.0) / BUILT_WEIGHTS_PER_SECOND,
        Range(whole, whole + 2 * made_of, 2 * whole + 2.2 * made_of),
    )


def _generate(step: Step, at: Situation) -> Iterator[Job]:
    settings = at.recipe.generate
    assert settings is not None
    model, samples = at.models.teachers.get(settings.by), at.amounts.asked or at.amounts.samples
    if model is not None:
        count = None if samples is None else samples * settings.samples
        expected, limit = at.amounts.answer.expected, settings.max_new_tokens
        prompt = at.amounts.prompt_of(at.amounts.teacher_length)
        asked = AnswersToWrite(settings.batch_size, prompt, expected, limit, count, settings.engine)
        yield writing_of(at, model, asked)


def _strategies(step: Step, at: Situation) -> Iterator[Job]:
    """Every step makes the prompts of all strategies, which cut answers alike."""
    strategies = len({one.strategy for one in at.recipe.sample_sets.values()})
    # One step has the prompts of the held-out questions alone.
    samples = at.amounts.samples if step.name in at.recipe.sample_sets else at.amounts.held_out_samples
    yield WaitingJob(None if samples is None else samples * float(strategies) * SECONDS_OF_PROMPT)


def _capture(step: Step, at: Situation) -> Iterator[Job]:
    capture, samples = at.recipe.capture, at.amounts.samples
    assert capture is not None
    if keeps_documents(at.recipe):
        yield from (reading_of_spans(at, model) for model in at.models.teachers.values())
        return
    sample_set = step.name or ""
    length = at.amounts.teacher_lengths.get(sample_set, at.amounts.teacher_length)
    for model in at.models.teachers.values():
        most = min(
            getattr(at.recipe.corpus, "teacher_length", None) or inf,
            positions_of(model.config.get_text_config()) or inf,
        )
        own, share = (length * at.amounts.tokens_of(model.name)).at_most(most), at.amounts.taught_by(model.name)
        tokens = None if samples is None else samples * own * share * (1 / at.ranks)
        yield replace(reading_of(at, model, tokens, capture.batch_size, own.high), moved_of_logit=CAPTURED_BYTES)
        supervised = at.amounts.supervised
        yield WaitingJob(None if supervised is None else supervised * share * (1 / at.ranks) * SECONDS_OF_TARGET)


def _distil(step: Step, at: Situation) -> Iterator[Job]:
    if at.models.student is None:
        return
    training, given = _taught(at, at.recipe.distil.training, "distil"), at.recipe.on_policy_of(step.name)
    if given is None:
        yield training
    else:
        yield from jobs_with_rollouts(at, training, given)
    yield from saves_of(at, training, at.recipe.distil.keep)


def _taught(at: Situation, fields: TrainingFields, key: str, rounds: float = 1.0) -> TrainingJob:
    student = at.models.student
    assert student is not None
    made = training_of(at, student, fields, key)
    return replace(made, teachers=live_teachers(at, made.batch.rows), rounds=rounds)


def _control(step: Step, at: Situation) -> Iterator[Job]:
    control = at.recipe.control
    assert control is not None
    if at.models.student is not None:
        fields: Any = {**at.recipe.distil.training, **control.training}
        training = training_of(at, at.models.student, fields, "control")
        yield training
        yield from saves_of(at, training, at.recipe.distil.keep)


def _search(step: Step, at: Situation) -> Iterator[Job]:
    search = at.recipe.search
    assert search is not None
    if at.models.student is not None:
        fields: Any = {**at.recipe.distil.training, **search.training}
        trials = search.trials + 1 if search.share is not None else min(search.trials, len(search.temperatures or []))
        yield _taught(at, fields, "search", float(trials))


def _answers(step: Step, at: Situation) -> Iterator[Job]:
    candidate, settings = step.candidate, at.recipe.answers
    assert candidate is not None
    if candidate.role == "teacher":
        model = at.models.teachers.get(candidate.name or next(iter(at.models.teachers), ""))
    else:
        model = at.models.student
    if model is None:
        return
    count, length = at.amounts.held_out_samples, at.amounts.length
    expected, limit = at.amounts.answer.expected, settings.max_new_tokens
    prompt = at.amounts.prompt_of(length)
    asked = AnswersToWrite(settings.batch_size, prompt, expected, limit, count, settings.engine)
    learned = candidate.role in ("student", "control")
    yield replace(writing_of(at, model, asked), adapter=adapter_of(at) if learned else None)
    scored = None if count is None else count * length
    if model is at.models.student:
        yield reading_of_student(at, scored, settings.batch_size, length.high)
    else:
        yield reading_of(at, model, scored, settings.batch_size, length.high)


def _report(step: Step, at: Situation) -> Iterator[Job]:
    yield WaitingJob(REPORT_SECONDS, PLOT_BYTES)


def _export(step: Step, at: Situation) -> Iterator[Job]:
    """The student and its file read the same text, and write the same answers. Which program runs the file decides how
    fast it is, so the time is that of the student twice, at the least half and at the most three times of that."""
    if at.models.student is None:
        return
    length = min(EXPORTED_TOKENS.expected, at.amounts.length.high)
    yield reading_of_student(at, EXPORTED_TOKENS, at.recipe.evaluate.batch_size, length)
    asked = AnswersToWrite(1, Range.exactly(SAMPLE_BEGINNING), EXPORTED_LIMIT, EXPORTED_LIMIT, EXPORTED_ANSWERS)
    yield writing_of(at, at.models.student, asked)


_BY_STAGE: dict[str, Callable[[Step, Situation], Iterator[Job]]] = {
    "teachers": _teachers,
    "corpus": _corpus,
    "tokenizer": _corpus,
    "pretrain": _pretrain,
    "student": _student,
    "generate": _generate,
    "strategies": _strategies,
    "capture": _capture,
    "search": _search,
    "distil": _distil,
    "control": _control,
    "select": selection_jobs,
    "answers": _answers,
    "evaluate": evaluation_jobs,
    "export": _export,
    "report": _report,
}
