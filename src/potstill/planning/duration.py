"""Duration: the seconds of a job on a machine, from the operations of its passes."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from statistics import geometric_mean
from typing import Literal

from potstill.planning.jobs import Job, ReadingJob, TrainingJob, WaitingJob, WritingJob
from potstill.planning.machine import Machine
from potstill.planning.memory import forward_pass, training_pass
from potstill.planning.models import PlannedModel
from potstill.planning.ranges import ZERO, Range
from potstill.planning.trace import BatchShape, Operations

BATCHES_OF_BLOCK = 8
"""The size of a block of answers, in batches (`generation/continuous_batches.py`)."""
KEPT_BY_LIBRARY = 64 * 2**20
"""Bytes of freed memory that the C library keeps in potstill's commands (`cli/native_libraries.py`)."""
OPTIMIZER_BYTES = 20.0
"""Bytes that an optimizer step reads and writes for each trained weight, besides its state: weight, gradient, and the
gradient's norm."""


Passes = Literal["reading", "training", "writing"]


@dataclass(frozen=True)
class Scales:
    """What was measured by trying, if anything was."""

    reading: Mapping[tuple[str, BatchShape], float] = field(default_factory=dict)
    """How many times as long as forecast a forward took, by the model's name and its batch."""
    training: Mapping[str, float] = field(default_factory=dict)
    """The same of an optimizer step, by the training's key."""
    writing: Mapping[str, float] = field(default_factory=dict)
    """The same of a step of writing, which gives each row a token, by the job's name."""
    memory: Mapping[str, float] = field(default_factory=dict)
    """The bytes that a training needed, by its key."""
    layers: Mapping[tuple[Passes, str], float] = field(default_factory=dict)
    """How many times as long as forecast the first layers of a model took; without heads and losses, but for writing.
    By the model's name, the training's key, or the name of the job that writes."""

    def of(self, several: Mapping[str, float], name: str) -> float | None:
        """The scale of this name, or the mean of the others; None if there are none."""
        return several.get(name) or (geometric_mean(several.values()) if several else None)

    def of_reading(self, name: str, batch: BatchShape) -> float | None:
        """The scale of a model's forward: with this batch, else the mean of its others, else that of all models."""
        if (name, batch) in self.reading:
            return self.reading[name, batch]
        own = [scale for (other, _), scale in self.reading.items() if other == name]
        known = own or list(self.reading.values())
        return geometric_mean(known) if known else None


UNTRIED = Scales()


def seconds_of(job: Job, machine: Machine, scales: Scales = UNTRIED) -> Range | None:
    """The seconds of a job. None if its tokens or the machine's rate are not known."""
    if isinstance(job, WaitingJob):
        return job.seconds
    rate = machine.rates.get(job.precision)
    if rate is None or machine.bandwidth is None:
        return None
    if isinstance(job, ReadingJob):
        return _of_reading(job, machine, scales)
    return _of_training(job, machine, scales) if isinstance(job, TrainingJob) else _of_writing(job, machine, scales)


def _of_reading(job: ReadingJob, machine: Machine, scales: Scales) -> Range | None:
    if job.tokens is None:
        return None
    # What is tried is the forward and the log-probability of the label.
    after = Operations(moved=job.moved_of_logit * _vocabulary(job.model))
    return (
        one_batch(job, machine, scales) * (job.tokens * (1 / job.batch.tokens))
        + _time(after, job, machine) * job.tokens
    )


def one_batch(job: ReadingJob, machine: Machine, scales: Scales = UNTRIED) -> Range:
    """The seconds of one forward, head included."""
    head = Operations(
        products=2.0 * _head_size(job.model) * job.batch.tokens,
        # Each logit is written, and read again in float32.
        moved=12.0 * _vocabulary(job.model) * job.batch.tokens,
    )
    body = _as_layers(of_body(job, machine), scales.layers.get(("reading", job.model.name)))
    return _scaled(body + _time(head, job, machine), scales.of_reading(job.model.name, job.batch))


def of_body(job: ReadingJob | TrainingJob, machine: Machine) -> Range:
    """The seconds of one batch without head and loss: of a forward, or of forward and backward in a training."""
    if isinstance(job, ReadingJob):
        traced, guess = forward_pass(job), _guess(job.model, job.batch)
    else:
        traced, guess = training_pass(job), _guess(job.student, job.batch) * _passes(job)
    if traced is None:
        return _time(guess, job, machine)
    return _time(traced.operations, job, machine) + _of_new_memory(traced.peak, machine)


def _of_new_memory(peak: float, machine: Machine) -> Range:
    """The seconds in which the system gives a pass the memory that the C library has not kept from the pass before."""
    if machine.new_memory is None:
        return ZERO
    return Range.exactly(max(0.0, peak - KEPT_BY_LIBRARY)) / machine.new_memory


def _passes(job: TrainingJob) -> float:
    """How many times as many products as a forward has a step with its backward."""
    return 2.0 if job.how.adapter else 3.0


def one_step(job: TrainingJob, machine: Machine, scales: Scales = UNTRIED) -> Range:
    """The seconds of one micro-batch: forward, loss and backward, with the teachers beside it."""
    head = Operations(
        products=2.0 * _passes(job) * _head_size(job.student) * job.batch.tokens,
        # Softmax and gradient of each logit, in float32.
        moved=12.0 * _vocabulary(job.student) * job.batch.tokens,
    )
    body = _as_layers(of_body(job, machine), scales.layers.get(("training", job.key)))
    # What was tried of teachers that read by themselves is no part of this: a whole step is tried with them.
    of_layers = replace(scales, reading={})
    beside = (one_batch(teacher, machine, of_layers) * teacher.share for teacher in job.teachers)
    return sum(beside, body + _time(head, job, machine))


def of_update(job: TrainingJob, machine: Machine) -> Range:
    """The seconds of the optimizer's own work in a step."""
    assert machine.bandwidth is not None
    return Range.exactly(job.student.parameters.trained * (OPTIMIZER_BYTES + 2 * job.moments)) / machine.bandwidth


def _of_training(job: TrainingJob, machine: Machine, scales: Scales) -> Range | None:
    if job.tokens is None or job.steps is None:
        return None
    batches = job.tokens * (1 / job.batch.tokens)
    scale = scales.of(scales.training, job.key)
    step, update = _scaled(one_step(job, machine, scales), scale), _scaled(of_update(job, machine), scale)
    return (step * batches + update * job.steps) * job.rounds


def _of_writing(job: WritingJob, machine: Machine, scales: Scales) -> Range | None:
    if job.count is None:
        return None
    devices = machine.devices if job.spans else 1
    layers = _as_layers(one_token(job, machine), scales.layers.get(("writing", job.name)))
    step = _scaled(layers, scales.of(scales.writing, job.name))
    steps = steps_of_writing(job, job.count)
    prompts = job.count * job.prompt
    reading = one_batch(
        ReadingJob(job.model, BatchShape(job.rows, 64), None, job.precision, job.weights), machine, scales
    )
    return step * steps * (1 / devices if devices > 1 else 1.0) + reading * (prompts * (1 / (64.0 * job.rows)))


def steps_of_writing(job: WritingJob, count: Range) -> Range:
    """The steps in which all answers are written.

    A row that ends makes room for the next, until none is left of a block. Then the block waits for its longest answer.
    """
    blocks = count / min(job.together, float(BATCHES_OF_BLOCK * job.rows))
    blocks = Range.greatest([Range.exactly(1.0), blocks])
    longest = Range(job.new.low, (job.new.expected + job.new.high) / 2, job.new.high)
    full = (count / float(job.rows)).less(blocks)
    return full * job.new + blocks * longest


def one_token(job: WritingJob, machine: Machine) -> Range:
    """The seconds of a step of writing, which gives each row a token."""
    assert machine.bandwidth is not None
    token = _guess(job.model, BatchShape(1, 2)) * 0.5
    read = ReadingJob(job.model, BatchShape(job.rows, 2), None, job.precision, job.weights)
    traced = forward_pass(read)
    calls = 0.0 if traced is None else traced.operations.calls
    # Each step reads all weights once, for all rows.
    step = job.weights / machine.bandwidth + machine.call * (3 * calls)
    head = Operations(products=2.0 * _head_size(job.model) * job.rows)
    return step + _time(token * job.rows + head, read, machine)


def _time(work: Operations, job: ReadingJob | TrainingJob, machine: Machine) -> Range:
    assert machine.bandwidth is not None
    forward, backward = machine.attention_rates(job.precision, job.batch.length)
    return (
        Range.exactly(work.products) / machine.rates[job.precision]
        + Range.exactly(work.attention) / forward
        + Range.exactly(work.attention_backward) / backward
        + Range.exactly(work.moved) / (machine.elementwise or machine.bandwidth)
        + machine.call * work.calls
    )


def _as_layers(found: Range, scale: float | None) -> Range:
    """A forecast that is scaled to what the model's first layers took. The rest of the model is not tried."""
    return found if scale is None else Range.around(found.expected * scale, 1.5, 2.0)


def _scaled(found: Range, scale: float | None) -> Range:
    """A forecast that was tried is scaled to what was measured, and is then nearly certain. A long run may be slower
    than a trial of some seconds: within ten minutes of one training, steps came to take a quarter longer."""
    return found if scale is None else Range.around(found.expected * scale, 1.2, 1.5)


def _guess(model: PlannedModel, batch: BatchShape) -> Operations:
    """The work of a forward that cannot be traced: two operations for each weight and token."""
    sizes, text = model.parameters, model.config.get_text_config()
    share = _active(model)
    return Operations(2.0 * sizes.body * share * batch.tokens, 0.0, 30.0 * text.num_hidden_layers)


def _active(model: PlannedModel) -> float:
    """The share of a body's weights that a token uses; below 1 for a mixture of experts."""
    text = model.config.get_text_config()
    experts = getattr(text, "num_local_experts", None) or getattr(text, "num_experts", None)
    used = getattr(text, "num_experts_per_tok", None)
    if not experts or not used:
        return 1.0
    inner = getattr(text, "moe_intermediate_size", None) or text.intermediate_size
    every = 3.0 * text.num_hidden_layers * experts * inner * text.hidden_size
    return 1.0 - min(1.0, every / model.parameters.body) * (1 - used / experts)


def active_parameters(model: PlannedModel) -> int:
    """The parameters that a token uses: all, or fewer for a mixture of experts."""
    sizes = model.parameters
    return round(sizes.body * _active(model)) + sizes.head + sizes.embeddings


def _head_size(model: PlannedModel) -> float:
    text = model.config.get_text_config()
    return float(text.vocab_size * text.hidden_size)


def _vocabulary(model: PlannedModel) -> int:
    return int(model.config.get_text_config().vocab_size)
