"""Jobs: passes of models over so many tokens, as the work of a step is counted."""

import json
import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from potstill.planning.amounts import Amounts, schedule
from potstill.planning.models import PlannedModel, RecipeModels
from potstill.planning.ranges import ONE, ZERO, Range
from potstill.planning.trace import BatchShape, Learning
from potstill.recipe import Recipe
from potstill.recipe.precision import in_bfloat16, in_format
from potstill.recipe.section import WritingEngine
from potstill.recipe.training_fields import CHECKPOINTING

COMPARED_BYTES = 40.0
"""Read and written of a logit, as the passes over it count them, for the distance from a teacher
(`losses/token_scores.py`)."""


@dataclass(frozen=True)
class ReadingJob:
    """Forwards without gradients."""

    model: PlannedModel
    batch: BatchShape
    tokens: Range | None
    """Tokens with padding; None where that is not known."""
    precision: str
    weights: Range
    """Bytes of the model as it is loaded."""
    file: float = 0.0
    """Bytes of its file, which is mapped into memory while it is read."""
    beside: Range = ZERO
    """Bytes of another model beside it."""
    spans: bool = False
    """Whether the model lies on all accelerators together."""
    share: Range = ONE
    """The share of the samples of a training that a teacher reads beside the student."""
    reads_again: bool = False
    """Whether the next model is read from such a file before the memory of this work is free."""
    moved_of_logit: float = 0.0
    """Bytes that are read and written of each logit, besides those for the log-probability of the label."""


@dataclass(frozen=True)
class TrainingJob:
    """One training: `rounds` of them one after the other."""

    student: PlannedModel
    batch: BatchShape
    tokens: Range | None
    """Tokens of one training, with padding and repetitions."""
    samples: Range | None
    """Samples of one training, with repetitions."""
    steps: Range | None
    precision: str
    how: Learning
    weights: Range
    moments: float
    """Bytes of the optimizer's state for each trained weight."""
    key: str
    """The training's place in the recipe."""
    fields: Mapping[str, Any]
    """Of `TrainingArguments`."""
    in_half: bool = False
    """Whether the weights that do not learn are kept in bfloat16."""
    pads: bool = False
    """Whether samples have different lengths. Attention is another kernel where some tokens are pads."""
    teachers: tuple[ReadingJob, ...] = ()
    beside: Range = ZERO
    """Bytes of models that read other batches of the same training."""
    rounds: float = 1.0
    writing: "WritingJob | None" = None
    """What the student writes between its steps."""
    parts: int = 1
    """Into how many parts FSDP2 splits the student, its gradients and its optimizer, and each teacher."""

    @property
    def micro_batch(self) -> Hashable:
        """What forward and backward of the student depend on. A control learns as a student does."""
        return self.student.name, self.batch, self.how, self.in_half, self.pads

    @property
    def adapter(self) -> dict[str, Any] | None:
        """The fields of `LoraConfig`; None if every weight learns."""
        return None if self.how.adapter is None else json.loads(self.how.adapter)


@dataclass(frozen=True)
class WritingJob:
    """Generation, token by token."""

    model: PlannedModel
    rows: int
    prompt: Range
    new: Range
    """Tokens of an answer."""
    longest: float
    """The greatest number of tokens that keys and values are kept for, in each row."""
    count: Range | None
    """The number of answers."""
    precision: str
    weights: Range
    spans: bool = False
    beside: Range = ZERO
    """Bytes that a training has beside the model that writes."""
    together: float = math.inf
    """Answers that are asked for at once. The next ones wait until the last of them ends."""
    engine: WritingEngine = "transformers"
    file: float = 0.0
    """As :class:`ReadingJob`'s."""
    adapter: str | None = None
    """The fields of `LoraConfig` as JSON, where the model writes with an adapter that is not merged."""

    @property
    def name(self) -> str:
        """Of the model, for what is tried: with an adapter each step has more operations."""
        return self.model.name if self.adapter is None else f"{self.model.name} with its adapter"


@dataclass(frozen=True)
class AnswersToWrite:
    """What a model is asked to write."""

    rows: int
    """Answers at the same time."""
    prompt: Range
    """Tokens of a prompt."""
    answer: float
    """The expected tokens of an answer."""
    limit: int
    """The greatest number of tokens of an answer."""
    count: Range | None
    """The number of answers; None where that is not known."""
    engine: WritingEngine = "transformers"


@dataclass(frozen=True)
class WaitingJob:
    """Work that is no pass of a model: seconds, and bytes of the host's memory beside the process itself."""

    seconds: Range | None
    host: Range = ZERO


Job = ReadingJob | TrainingJob | WritingJob | WaitingJob


@dataclass(frozen=True)
class Situation:
    """What the work of a step depends on."""

    recipe: Recipe
    models: RecipeModels
    amounts: Amounts
    precision: Literal["bf16", "fp32"]
    ranks: int = 1
    memory: float = math.inf
    """The bytes of the machine, or of one of its accelerators; infinite where they are not known."""


def bytes_per_weight(precision: str) -> int:
    """Of a weight in the run's number format."""
    return 2 if precision == "bf16" else 4


def loaded_bytes(model: PlannedModel, per_weight: float, quantization: Mapping[str, Any] | None) -> Range:
    """The bytes of a model as it is loaded."""
    sizes = model.parameters
    if not quantization:
        return Range.exactly(sizes.total * per_weight)
    # Embeddings and head stay as they are.
    return Range.exactly((sizes.embeddings + sizes.head) * per_weight) + _quantised(quantization) * sizes.body


def _quantised(given: Mapping[str, Any]) -> Range:
    """The bytes of a quantised weight, with its scales."""
    if given.get("load_in_4bit"):
        return Range(0.51, 0.55, 0.58)
    if given.get("load_in_8bit"):
        return Range(1.0, 1.01, 1.05)
    text = json.dumps(given, default=str)
    if "Intx" in text or "Int8" in text or "Float8" in text:
        return Range(1.0, 1.1, 1.25)
    return Range(0.5, 0.6, 0.7) if "Int4" in text else Range(0.5, 1.0, 2.0)


def _precision_of(at: Situation, name: str) -> str:
    dtype = getattr(at.recipe.teachers.get(name), "dtype", "auto")
    return at.precision if dtype == "auto" else {"bfloat16": "bf16", "float32": "fp32"}[dtype]


def reading_of(at: Situation, model: PlannedModel, tokens: Range | None, rows: int, length: float) -> ReadingJob:
    """The forward of a teacher or of another model that does not learn."""
    given = at.recipe.teachers.get(model.name)
    precision = _precision_of(at, model.name)
    quantization = getattr(given, "quantization", None)
    spans = getattr(given, "device_map", None) is not None
    if getattr(given, "engine", "") == "llama_cpp":
        # Files of 4 to 8 bits a weight, which it uses as they are.
        weights = Range(0.5, 0.8, 1.1) * model.parameters.total
        file = weights.expected
    else:
        weights = loaded_bytes(model, bytes_per_weight(precision), quantization)
        # The run's own files are in float32, and most published ones in 16 bits.
        file = model.parameters.total * (4.0 if model.converts or model.name in at.recipe.pretrain else 2.0)
    return ReadingJob(model, BatchShape(rows, max(2, round(length))), tokens, precision, weights, file, spans=spans)


def training_of(at: Situation, student: PlannedModel, fields: Mapping[str, Any], key: str) -> TrainingJob:
    """A training without teachers.

    Args:
        at: the recipe, its models and its text.
        student: the model that learns.
        fields: the recipe's fields of `TrainingArguments`.
        key: the training's place in the recipe.
    """
    # Teachers that the run trains have no adapter.
    adapts = student is at.models.student
    recipe, found = at.recipe, schedule(fields, at.amounts.samples, at.ranks)
    autocast = in_bfloat16(fields, at.precision)
    adapter = recipe.student.adapter if adapts else None
    micro = found.micro_batch if found else int(fields.get("per_device_train_batch_size", 8))
    times = found.accumulation if found else int(fields.get("gradient_accumulation_steps", 1))
    half = adapts and recipe.start_in_bfloat16
    quantization = recipe.student.quantization if adapts else None
    weights = loaded_bytes(student, 2 if half else 4, quantization) + 4.0 * student.parameters.adapter
    return TrainingJob(
        student=student,
        batch=BatchShape(micro, max(2, round(at.amounts.length.high))),
        tokens=None if found is None else found.samples * at.amounts.in_batch(micro) * (1 / at.ranks),
        samples=None if found is None else found.samples * (1 / at.ranks),
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
        key=key,
        fields=in_format(fields, at.precision),
        in_half=half,
        pads=getattr(recipe.corpus, "layout", "padded") != "packed",
        parts=at.ranks if recipe.distributed.strategy == "fsdp2" else 1,
    )


def checkpoint_bytes(job: TrainingJob) -> tuple[float, float]:
    """The bytes of the weights as a training saves them, in the format in which they are trained; and those of a
    checkpoint, which has the optimizer's state too."""
    sizes = job.student.parameters
    model = 4.0 * (sizes.total if job.how.adapter is None else sizes.adapter)
    return model, model + job.moments * sizes.trained


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


def adapter_of(at: Situation) -> str | None:
    """The adapter with which a finished student is read, as JSON; None if it has none, or if it is merged."""
    student = at.recipe.student
    return None if student.adapter is None or student.merge else json.dumps(student.adapter, sort_keys=True)


def reading_of_student(at: Situation, tokens: Range | None, rows: int, length: float) -> ReadingJob:
    """The student's forward, as it is measured after its training."""
    student = at.models.student
    assert student is not None
    weights = loaded_bytes(student, bytes_per_weight(at.precision), at.recipe.student.quantization)
    file = student.parameters.total * (2.0 if at.recipe.start_in_bfloat16 else 4.0)
    return ReadingJob(student, BatchShape(rows, max(2, round(length))), tokens, at.precision, weights, file)


def writing_of(at: Situation, model: PlannedModel, asked: AnswersToWrite) -> WritingJob:
    """A model that answers."""
    if model is at.models.student:
        read = reading_of_student(at, None, asked.rows, 2)
    else:
        read = reading_of(at, model, None, asked.rows, 2)
    limit = float(asked.limit)
    expected = min(asked.answer, limit)
    new = Range(min(16.0, expected), expected, limit)
    longest = asked.prompt.high + limit
    rows = asked.rows if asked.count is None else max(1, min(asked.rows, math.ceil(asked.count.high)))
    job = WritingJob(model, rows, asked.prompt, new, longest, asked.count, read.precision, read.weights)
    return replace(job, spans=read.spans, engine=asked.engine, file=read.file)


def live_teachers(at: Situation, micro: int) -> tuple[ReadingJob, ...]:
    """The teachers that read the batches of a training beside the student; none where they were captured."""
    return () if at.recipe.capture is not None else teachers_beside(at, micro, at.amounts.teacher_length.high)


def teachers_beside(at: Situation, micro: int, length: float) -> tuple[ReadingJob, ...]:
    """The teachers, each with a micro-batch of samples of a length, in tokens of the student."""
    return tuple(
        replace(
            reading_of(at, one, ZERO, micro, length * at.amounts.tokens_of(one.name).high),
            share=at.amounts.taught_by(one.name),
        )
        for one in at.models.teachers.values()
    )
