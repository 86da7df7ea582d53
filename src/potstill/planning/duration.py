"""Duration: the seconds of a job on a machine, from the operations of its passes."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from statistics import geometric_mean
from typing import Literal

from potstill.planning.jobs import Job, ReadingJob, TrainingJob, WaitingJob, WritingJob
from potstill.planning.kernels import KEPT_BY_LIBRARY
from potstill.planning.machine import Machine
from potstill.planning.memory import forward_pass, training_pass
from potstill.planning.models import PlannedModel
from potstill.planning.ranges import ZERO, Range
from potstill.planning.trace import BatchShape, Operations

BATCHES_OF_BLOCK = 8
"""The size of a block of answers, in batches (`generation/continuous_batches.py`)."""
PROMPT_LENGTH = 64
"""Tokens of a row when prompts are read."""
OPTIMIZER_BYTES = 20.0
"""Bytes that an optimizer step reads and writes for each trained weight, besides its state: weight, gradient, and the
gradient's norm."""


LayersOf = tuple[Literal["reading", "training", "writing"], Hashable]
"""Which layers a trial is of: a model's that reads or writes, or those of a training's micro-batch."""


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
    """The bytes that a training needed, by its key: on a CPU, those beside the process itself."""
    layers: Mapping[LayersOf, float] = field(default_factory=dict)
    """How many times as long as forecast the first layers of a model took, without embeddings, head and loss."""

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
    whole = _of_layers(job, machine, scales) + _time(head, job, machine)
    return _scaled(whole, scales.of_reading(job.model.name, job.batch))


def layers_of(job: ReadingJob | TrainingJob | WritingJob) -> LayersOf:
    """The name of a trial of the job's layers. Jobs of one name have one trial."""
    if isinstance(job, ReadingJob):
        return "reading", job.model.name
    return ("writing", job.name) if isinstance(job, WritingJob) else ("training", job.micro_batch)


def of_body(job: ReadingJob | TrainingJob, machine: Machine) -> Range:
    """The seconds of one batch without head and loss: of a forward, or of forward and backward in a training."""
    return _of_layers(job, machine, UNTRIED)


def _of_layers(job: ReadingJob | TrainingJob, machine: Machine, scales: Scales) -> Range:
    if isinstance(job, ReadingJob):
        traced, guess = forward_pass(job), _guess(job.model, job.batch)
    else:
        traced, guess = training_pass(job), _guess(job.student, job.batch) * _forwards_of_step(job)
    work = _time(guess if traced is None else traced.operations, job, machine)
    found = _as_layers(work, scales.layers.get(layers_of(job)))
    # A trial of some layers asks for little memory.
    return found if traced is None else found + _of_new_memory(traced.peak, machine)


def _of_new_memory(peak: float, machine: Machine) -> Range:
    """The seconds in which the system gives a pass the memory that the C library has not kept from the pass before."""
    if machine.new_memory is None:
        return ZERO
    return Range.exactly(max(0.0, peak - KEPT_BY_LIBRARY)) / machine.new_memory


def _forwards_of_step(job: TrainingJob) -> float:
    """How many times the products of a forward a step with its backward has."""
    return 2.0 if job.how.adapter else 3.0


def one_step(job: TrainingJob, machine: Machine, scales: Scales = UNTRIED) -> Range:
    """The seconds of one micro-batch: forward, loss and backward, with the teachers beside it."""
    head = Operations(
        products=2.0 * _forwards_of_step(job) * _head_size(job.student) * job.batch.tokens,
        # Softmax and gradient of each logit, in float32.
        moved=12.0 * _vocabulary(job.student) * job.batch.tokens,
    )
    # What was tried of teachers that read by themselves is no part of this: a whole step is tried with them.
    of_layers = replace(scales, reading={})
    beside = (one_batch(teacher, machine, of_layers) * teacher.share for teacher in job.teachers)
    return sum(beside, _of_layers(job, machine, scales) + _time(head, job, machine))


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
    if job.count is None or job.count.high == 0:
        return job.count
    devices = machine.devices if job.spans else 1
    of_layers, of_head = _of_token(job, machine)
    whole = _as_layers(of_layers, scales.layers.get(layers_of(job))) + of_head
    step = _scaled(whole, scales.of(scales.writing, job.name))
    prompts = prompts_of(job)
    assert prompts.tokens is not None
    reading = one_batch(prompts, machine, scales) * (prompts.tokens * (1 / prompts.batch.tokens))
    return step * steps_of_writing(job, job.count) * (1 / devices if devices > 1 else 1.0) + reading


def prompts_of(job: WritingJob) -> ReadingJob:
    """The reading of all prompts."""
    tokens = None if job.count is None else job.count * job.prompt
    return ReadingJob(job.model, BatchShape(job.rows, PROMPT_LENGTH), tokens, job.precision, job.weights)


def steps_of_writing(job: WritingJob, count: Range) -> Range:
    """The steps in which all answers are written.

    A row that ends makes room for the next, until none is left of a block. Then the block waits for its longest answer:
    of n lengths between 0 and 1 that are equally likely, the longest is n / (n + 1).
    """
    blocks = count / min(job.together, float(BATCHES_OF_BLOCK * job.rows))
    blocks = Range.greatest([Range.exactly(1.0), blocks])
    share = (job.rows - 1) / (job.rows + 1)
    longest = Range(job.new.low, job.new.expected + share * (job.new.high - job.new.expected), job.new.high)
    full = (count / float(job.rows)).less(blocks)
    return full * job.new + blocks * longest


def one_token(job: WritingJob, machine: Machine) -> Range:
    """The seconds of a step of writing, which gives each row a token."""
    of_layers, of_head = _of_token(job, machine)
    return of_layers + of_head


def _of_token(job: WritingJob, machine: Machine) -> tuple[Range, Range]:
    """The same of the layers and of the head."""
    assert machine.bandwidth is not None
    token = _guess(job.model, BatchShape(1, 2)) * 0.5
    read = ReadingJob(job.model, BatchShape(job.rows, 2), None, job.precision, job.weights)
    traced = forward_pass(read)
    calls = 0.0 if traced is None else traced.operations.calls
    head = Operations(products=2.0 * _head_size(job.model) * job.rows)
    # Each step reads all weights once, for all rows.
    share = min(1.0, _head_size(job.model) / job.model.parameters.total)
    layers = job.weights * (1 - share) / machine.bandwidth + machine.call * (3 * calls)
    of_head = job.weights * share / machine.bandwidth + _time(head, read, machine)
    return layers + _time(token * job.rows, read, machine), of_head


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
