"""Jobs: the work of each step of a recipe, as passes of its models over so many tokens."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from potstill.planning.amounts import Amounts, schedule
from potstill.planning.interval import ZERO, Interval
from potstill.planning.models import Models, PlannedModel
from potstill.planning.trace import Batch, Learning
from potstill.recipe import Recipe
from potstill.recipe.candidates import own_candidates
from potstill.recipe.distil import CrossEntropy
from potstill.recipe.precision import in_bfloat16
from potstill.recipe.step import Step
from potstill.recipe.training_fields import CHECKPOINTING, TrainingFields

START_TOKENS, START_ROWS_OF = 4096, 2048
"""The tokens on which a start and its teachers are measured, and those that are read at once (`stages/student.py`)."""
TRAINED_STAGES = ("distil", "control", "pretrain", "search")
GGUF_WEIGHTS_PER_SECOND = Interval(4e6, 8e6, 30e6)
FILE_BYTES_PER_SECOND = Interval(0.15e9, 0.6e9, 2.5e9)
"""Reading, hashing and writing of weights."""
TOKENS_PER_SECOND = Interval(1e5, 6e5, 2e6)
"""Reading, cleaning, splitting and tokenizing of text."""
STEP_SECONDS = Interval(0.3, 1.5, 6.0)
"""What each step costs besides: it loads models, and writes its manifest."""
SPEED_SECONDS = Interval(5.0, 20.0, 60.0)
"""`evaluate.speed` (`metrics/speed_rounds.py`)."""
PAIR_TOKENS = Interval(16, 24, 34)
"""Of both sentences of a minimal pair; BLiMP's have 8 to 17 tokens each."""
PAIRS_OF_SET = 67_000
"""Of BLiMP."""
FACTS_PROMPTS = 233


@dataclass(frozen=True)
class Reading:
    """Forwards without gradients."""

    model: PlannedModel
    batch: Batch
    tokens: Interval | None
    """Tokens with padding; None where that is not known."""
    precision: str
    weights: Interval
    """Bytes of the model as it is loaded."""
    spans: bool = False
    """Whether the model lies on all accelerators together."""


@dataclass(frozen=True)
class Training:
    """One training: `rounds` of them one after the other."""

    student: PlannedModel
    batch: Batch
    tokens: Interval | None
    """Tokens of one training, with padding and repetitions."""
    steps: Interval | None
    precision: str
    how: Learning
    weights: Interval
    moments: float
    """Bytes of the optimizer's state for each trained weight."""
    teachers: tuple[Reading, ...] = ()
    rounds: float = 1.0


@dataclass(frozen=True)
class Writing:
    """Generation, token by token."""

    model: PlannedModel
    rows: int
    prompt: Interval
    new: Interval
    """Tokens of an answer."""
    longest: float
    """The greatest number of tokens that keys and values are kept for, in each row."""
    count: Interval | None
    """The number of answers."""
    precision: str
    weights: Interval
    spans: bool = False


@dataclass(frozen=True)
class Waiting:
    """Work that is no pass of a model: seconds, and bytes of the host's memory beside the process itself."""

    seconds: Interval | None
    host: Interval = ZERO


Job = Reading | Training | Writing | Waiting


@dataclass(frozen=True)
class Situation:
    """What the work of a step depends on."""

    recipe: Recipe
    models: Models
    amounts: Amounts
    precision: str
    """`bf16` or `fp32`."""
    ranks: int = 1


def jobs_of(step: Step, at: Situation) -> list[Job]:
    """The work of a step, without that of models which nobody knows."""
    made = _BY_STAGE.get(step.stage, _nothing)
    return [Waiting(STEP_SECONDS), *made(step, at)]


def bytes_per_weight(precision: str) -> int:
    """Of a weight in the run's number format."""
    return 2 if precision == "bf16" else 4


def loaded_bytes(model: PlannedModel, per_weight: float, quantization: Mapping[str, Any] | None) -> Interval:
    """The bytes of a model as it is loaded."""
    sizes = model.parameters
    if not quantization:
        return Interval.exactly(sizes.total * per_weight)
    # Embeddings and head stay as they are.
    return Interval.exactly((sizes.embeddings + sizes.head) * per_weight) + _quantised(quantization) * sizes.body


def _quantised(given: Mapping[str, Any]) -> Interval:
    """The bytes of a quantised weight, with its scales."""
    if given.get("load_in_4bit"):
        return Interval(0.51, 0.55, 0.58)
    if given.get("load_in_8bit"):
        return Interval(1.0, 1.01, 1.05)
    text = json.dumps(given, default=str)
    if "Intx" in text or "Int8" in text or "Float8" in text:
        return Interval(1.0, 1.1, 1.25)
    return Interval(0.5, 0.6, 0.7) if "Int4" in text else Interval(0.5, 1.0, 2.0)


def _precision_of(at: Situation, name: str) -> str:
    dtype = getattr(at.recipe.teachers.get(name), "dtype", "auto")
    return at.precision if dtype == "auto" else {"bfloat16": "bf16", "float32": "fp32"}[dtype]


def _reading(at: Situation, model: PlannedModel, tokens: Interval | None, rows: int, length: float) -> Reading:
    given = at.recipe.teachers.get(model.name)
    precision = _precision_of(at, model.name)
    quantization = getattr(given, "quantization", None)
    if getattr(given, "engine", "") == "llama_cpp":
        # Files of 4 to 8 bits a weight.
        weights = Interval(0.5, 0.8, 1.1) * model.parameters.total
    else:
        weights = loaded_bytes(model, bytes_per_weight(precision), quantization)
    spans = getattr(given, "device_map", None) is not None
    return Reading(model, Batch(rows, max(2, round(length))), tokens, precision, weights, spans)


def _training(
    at: Situation, student: PlannedModel, fields: TrainingFields, *, adapts: bool, rounds: float = 1.0
) -> Training:
    recipe, found = at.recipe, schedule(fields, at.amounts.samples, at.ranks)
    autocast = in_bfloat16(fields, at.precision)
    adapter = recipe.student.adapter if adapts else None
    micro = found.micro_batch if found else int(fields.get("per_device_train_batch_size", 8))
    times = found.accumulation if found else int(fields.get("gradient_accumulation_steps", 1))
    half = adapts and recipe.start_in_bfloat16 or (adapter is not None and autocast)
    quantization = recipe.student.quantization if adapts else None
    weights = loaded_bytes(student, 2 if half else 4, quantization) + 4.0 * student.parameters.adapter
    return Training(
        student=student,
        batch=Batch(micro, max(2, round(at.amounts.length.high))),
        tokens=None if found is None else found.samples * at.amounts.length * (1 / at.ranks),
        steps=None if found is None else found.steps,
        precision="bf16" if autocast else "fp32",
        how=Learning(
            autocast=autocast,
            checkpointing=any(fields.get(one) for one in CHECKPOINTING),
            accumulates=times > 1,
            adapter=None if adapter is None else json.dumps(adapter, sort_keys=True),
        ),
        weights=weights,
        moments=moments(fields),
        rounds=rounds,
    )


def moments(fields: Mapping[str, Any]) -> float:
    """The bytes of the optimizer's state for each trained weight."""
    name, options = str(fields.get("optim", "adamw_torch_fused")), str(fields.get("optim_args") or "")
    if "8bit" in name or "_bnb" in name:
        return 2.0
    if "4bit" in name:
        return 1.0
    if name == "adafactor":
        return 0.1
    if name == "sgd":
        return 4.0 if "momentum" in options else 0.0
    return 4.0 if name in ("rmsprop", "adagrad", "lion_32bit") else 8.0


def _live_teachers(at: Situation, micro: int) -> tuple[Reading, ...]:
    if at.recipe.capture is not None:
        return ()
    length = at.amounts.teacher_length.high
    return tuple(_reading(at, one, ZERO, micro, length) for one in at.models.teachers.values())


def _nothing(step: Step, at: Situation) -> Iterator[Job]:
    yield from ()


def _teachers(step: Step, at: Situation) -> Iterator[Job]:
    for name, model in at.models.teachers.items():
        if name in at.recipe.pretrain:
            continue
        weights = Interval.exactly(model.parameters.total)
        if model.converts:
            # The file's own weights and the converted ones are both there, in float32.
            yield Waiting(weights / GGUF_WEIGHTS_PER_SECOND, Interval(4.0, 8.0, 10.0) * weights)
        else:
            yield Waiting(weights * 2.0 / FILE_BYTES_PER_SECOND)


def _corpus(step: Step, at: Situation) -> Iterator[Job]:
    tokens = at.amounts.tokens
    # Documents are kept in a file, and their digests in memory.
    host = Interval(0.0, 2e8, 1.5e9)
    yield Waiting(None if tokens is None else tokens / TOKENS_PER_SECOND, host)


def _pretrain(step: Step, at: Situation) -> Iterator[Job]:
    model = at.models.teachers.get(str(step.name))
    if model is not None:
        yield _training(at, model, at.recipe.pretrain[str(step.name)].training, adapts=False)


def _student(step: Step, at: Situation) -> Iterator[Job]:
    length = at.amounts.length
    rows = max(1, START_ROWS_OF // at.recipe.corpus.sequence_length)
    tokens = Interval.exactly(START_TOKENS)
    samples = getattr(at.recipe.student, "measured_samples", 0)
    for model in at.models.teachers.values():
        if model.name not in at.recipe.pretrain or model.name == getattr(at.recipe.student, "teacher", None):
            times = 1.0
            if samples and model.name == getattr(at.recipe.student, "teacher", None):
                layers = model.config.get_text_config().num_hidden_layers
                passes = layers if getattr(at.recipe.student, "by", None) != "hidden" else 1
                yield _reading(at, model, length * samples * (passes + 1.0), rows, length.high)
            yield _reading(at, model, tokens * times, rows, length.high)
    if at.models.student is not None:
        yield _own(at, tokens, rows, length.high)


def _own(at: Situation, tokens: Interval | None, rows: int, length: float) -> Reading:
    student = at.models.student
    assert student is not None
    weights = loaded_bytes(student, bytes_per_weight(at.precision), at.recipe.student.quantization)
    return Reading(student, Batch(rows, max(2, round(length))), tokens, at.precision, weights)


def _generate(step: Step, at: Situation) -> Iterator[Job]:
    settings = at.recipe.generate
    assert settings is not None
    model, samples = at.models.teachers.get(settings.by), at.amounts.samples
    if model is not None:
        count = None if samples is None else samples * settings.samples
        yield _writing(at, model, settings.batch_size, settings.max_new_tokens, count, at.amounts.teacher_length)


def _writing(
    at: Situation, model: PlannedModel, rows: int, limit: int, count: Interval | None, length: Interval
) -> Writing:
    read = _reading(at, model, None, rows, 2) if model is not at.models.student else _own(at, None, rows, 2)
    prompt = Interval(*(max(1.0, one) for one in (length + at.amounts.answer * -1.0).to_list())) if False else length
    new = Interval(min(16.0, limit), min(at.amounts.answer.expected, limit) or limit, float(limit))
    return Writing(model, rows, prompt, new, length.high + limit, count, read.precision, read.weights, read.spans)


def _strategies(step: Step, at: Situation) -> Iterator[Job]:
    samples = at.amounts.samples
    yield Waiting(None if samples is None else samples * Interval(2e-4, 1e-3, 6e-3))


def _capture(step: Step, at: Situation) -> Iterator[Job]:
    capture, samples = at.recipe.capture, at.amounts.samples
    assert capture is not None
    length = at.amounts.teacher_length
    tokens = None if samples is None else samples * length * (1 / at.ranks)
    for model in at.models.teachers.values():
        yield _reading(at, model, tokens, capture.batch_size, length.high)


def _distil(step: Step, at: Situation) -> Iterator[Job]:
    if at.models.student is not None:
        yield _taught(at, at.recipe.distil.training, 1.0)


def _taught(at: Situation, fields: TrainingFields, rounds: float) -> Training:
    from dataclasses import replace

    student = at.models.student
    assert student is not None
    made = _training(at, student, fields, adapts=True, rounds=rounds)
    return replace(made, teachers=_live_teachers(at, made.batch.rows))


def _control(step: Step, at: Situation) -> Iterator[Job]:
    control = at.recipe.control
    assert control is not None
    if at.models.student is not None:
        fields: Any = {**at.recipe.distil.training, **control.training}
        yield _training(at, at.models.student, fields, adapts=True)


def _search(step: Step, at: Situation) -> Iterator[Job]:
    search = at.recipe.search
    assert search is not None
    if at.models.student is not None:
        fields: Any = {**at.recipe.distil.training, **search.training}
        trials = search.trials + 1 if search.share is not None else min(search.trials, len(search.temperatures or []))
        yield _taught(at, fields, float(trials))


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
    yield _writing(at, model, settings.batch_size, settings.max_new_tokens, count, length)
    scored = None if count is None else count * length
    if model is at.models.student:
        yield _own(at, scored, settings.batch_size, length.high)
    else:
        yield _reading(at, model, scored, settings.batch_size, length.high)


def _select(step: Step, at: Situation) -> Iterator[Job]:
    kept = at.recipe.distil.snapshots
    if at.models.student is None or kept is None:
        return
    found = schedule(at.recipe.distil.training, at.amounts.samples, at.ranks)
    if kept.count is not None:
        count = Interval.exactly(kept.count)
    elif found is not None:
        count = found.steps / float(kept.every or 1)
    else:
        return
    validation = Interval.exactly(at.amounts.validation_samples) * at.amounts.length
    yield _own(at, validation * count, at.recipe.evaluate.batch_size, at.amounts.length.high)
    yield from _metrics_of_text(at, at.models.student, count * 0.5)


def _evaluate(step: Step, at: Situation) -> Iterator[Job]:
    if at.recipe.evaluate.speed:
        yield Waiting(SPEED_SECONDS)
    if at.recipe.asks:
        return
    length, rows = at.recipe.corpus.sequence_length, at.recipe.evaluate.batch_size
    for model, times in _measured(at):
        tokens = at.amounts.held_out_tokens
        read = None if tokens is None else tokens * times
        if model is at.models.student:
            yield _own(at, read, rows, length)
        else:
            yield _reading(at, model, read, rows, length)
        yield from _metrics_of_text(at, model, Interval.exactly(times))
    if at.recipe.evaluate.tasks:
        # Nobody knows the items of a task before lm-eval has loaded them.
        yield Waiting(None)


def _measured(at: Situation) -> Iterator[tuple[PlannedModel, float]]:
    """Each model that is measured, and how often: a student and a control for each seed, and the start."""
    for model in (*at.models.teachers.values(), *at.models.others.values()):
        yield model, 1.0
    if at.models.student is not None:
        yield at.models.student, float(sum(one.role != "teacher" for one in own_candidates(at.recipe)))


def _metrics_of_text(at: Situation, model: PlannedModel, times: Interval) -> Iterator[Job]:
    measured = at.recipe.evaluate
    for pairs in measured.minimal_pairs.values():
        count = PAIRS_OF_SET if pairs.pairs is None else min(PAIRS_OF_SET, 67 * pairs.pairs)
        tokens = PAIR_TOKENS * float(count) * times
        if model is at.models.student:
            yield _own(at, tokens, measured.batch_size, 32)
        else:
            yield _reading(at, model, tokens, measured.batch_size, 32)
    for given in measured.continuations.values():
        count = Interval.exactly(min(given.count or FACTS_PROMPTS, FACTS_PROMPTS)) * times
        yield _writing(at, model, measured.batch_size, given.max_new_tokens, count, Interval(4, 10, 24))


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
    "select": _select,
    "answers": _answers,
    "evaluate": _evaluate,
}


def reads_teacher(recipe: Recipe) -> bool:
    """Whether any loss of any student reads a teacher's distributions."""
    return any(not isinstance(loss, CrossEntropy) for name in recipe.variants for loss in recipe.losses_of(name))
