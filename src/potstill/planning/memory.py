"""Memory: the bytes that a job needs at its worst moment, by what they are for, on the device and on the host.

Weights, gradients, the optimizer's state and the loss's chunks are counted. Activations and temporary tensors are those
of the traced pass (`planning/trace.py`). On a machine without an accelerator everything is on the host.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import cast

from potstill.generation.vllm_writer import is_installed
from potstill.losses.chunked import MEMORY_BUDGET
from potstill.losses.logit_chunks import LogitsSource, chunks
from potstill.models.size import cached_numbers
from potstill.planning.jobs import Job, ReadingJob, TrainingJob, WaitingJob, WritingJob, bytes_per_weight
from potstill.planning.machine import GIB, Machine
from potstill.planning.models import PlannedModel
from potstill.planning.ranges import ZERO, Range
from potstill.planning.trace import BatchShape, Pass, reading, training
from potstill.training.memory import GRADIENT, MOST_FOR_LOSS

CONTEXT = Range(0.35 * GIB, 0.6 * GIB, 1.0 * GIB)
"""Of CUDA and its libraries in a process."""
TRACED = (0.9, 1.0, 1.12)
"""Factors of what a trace counts: allocators round up and keep pieces."""
ESTIMATED = (0.4, 1.0, 2.0)
HEAP = Range(1.0, 1.2, 1.55)
"""What a CPU's allocator holds, in parts of what was asked of it, for gaps between small tensors. Measured with glibc:
 1.36 where all tensors have less than 32 MiB, and 1.1 where the largest have more."""
IN_HEAP = ("gradients", "optimizer", "activations", "keys and values")
LOADED = ("weights", "beside", "vLLM")
"""What is there when the last model is read, if it is there at all."""
SPLIT = ("weights", "gradients", "optimizer", "teachers")
"""What FSDP2 splits among the ranks."""
GATHERED = Range(0.5, 1.0, 2.0)
"""The layers that are whole at once: the next one is gathered while one runs."""
LEFT = Range(0.0, 0.15, 0.45)
"""The share of what the largest earlier step had beside its process that stays with the process: buffers that are used
again, libraries, and gaps between what is still there. Measured with eight recipes: 0.04 to 0.3."""
LEFT_BEHIND, MEASURED = "left by earlier steps", "as measured"
MAPPED = Range(0.0, 0.95, 1.1)
"""The part of a model's file that is mapped into memory when the model is read."""
PER_TOKEN_AND_CHANNEL = 34
"""Bytes of activations of a layer in 16 bits, for each token and channel, where the attention keeps no T × T
(Korthikanti and others, arXiv:2205.05198, section 4)."""


@dataclass(frozen=True)
class Memory:
    """Bytes by what they are for."""

    device: dict[str, Range] = field(default_factory=dict)
    host: dict[str, Range] = field(default_factory=dict)

    @property
    def on_device(self) -> Range:
        """All bytes on one device."""
        return sum(self.device.values(), ZERO)

    @property
    def on_host(self) -> Range:
        """All bytes on the host."""
        return sum(self.host.values(), ZERO)


def memory_of(jobs: Iterable[Job], machine: Machine) -> Memory:
    """The memory of the job that needs the most; jobs come one after the other."""
    several = [_of_job(job, machine) for job in jobs] or [Memory(host={"process": machine.baseline})]
    device = max(several, key=lambda one: one.on_device.expected)
    host = max(several, key=lambda one: one.on_host.expected)
    return Memory(device.device, host.host)


def after(memory: Memory, earlier: Range, machine: Machine) -> Memory:
    """The memory of a step in a process that has already run others.

    A training uses again what others left, so that it counts only as far as it is more than the training's own.

    Args:
        memory: the step's own.
        earlier: bytes on the host of the largest step before it.
        machine: where they run.
    """
    if machine.kind != "cpu":
        # The host reads files there, and gives their memory back.
        return memory
    left = LEFT * max(0.0, earlier.expected - machine.baseline.expected)
    trains = "gradients" in memory.host or MEASURED in memory.host
    own = memory.on_host.expected - machine.baseline.expected if trains else 0.0
    low, expected, high = (max(0.0, one - own) for one in left.to_list())
    return replace(memory, host={**memory.host, LEFT_BEHIND: Range(low, expected, high)}) if high else memory


def _of_job(job: Job, machine: Machine) -> Memory:
    if isinstance(job, WaitingJob):
        return Memory(host={"process": machine.baseline, "work": job.host})
    parts = _parts(job, machine)
    if machine.kind == "cpu":
        held = {name: size * HEAP if name in IN_HEAP else size for name, size in parts.items()}
        if not isinstance(job, TrainingJob):
            held["file"] = _beside_file(held, job)
        return Memory(host={"process": machine.baseline, **held})
    spread = machine.devices if getattr(job, "spans", False) else 1
    parts = {name: size * (1 / spread) for name, size in parts.items()}
    # Weights are read into the host's memory, by parts or as a whole.
    loaded = job.weights * Range(0.0, 0.5, 1.1)
    return Memory({"CUDA": CONTEXT, **parts}, {"process": machine.baseline, "loading": loaded})


def _beside_file(held: Mapping[str, Range], job: ReadingJob | WritingJob) -> Range:
    """What a model's file takes while the model is read, as far as it is more than what the model needs afterwards.

    Where the file has the weights as they are used, they stay in it, and have no other place.
    """
    if job.file == job.weights.expected:
        return ZERO
    reads_again = isinstance(job, ReadingJob) and job.reads_again
    later = 0.0 if reads_again else sum(size.expected for name, size in held.items() if name not in LOADED)
    return Range(*(max(0.0, one - later) for one in (MAPPED * job.file).to_list()))


def _parts(job: ReadingJob | TrainingJob | WritingJob, machine: Machine) -> dict[str, Range]:
    if isinstance(job, TrainingJob):
        return _of_training(job, machine)
    if isinstance(job, WritingJob):
        return _of_writing(job, machine)
    traced = forward_pass(job)
    return {
        "weights": job.weights,
        "activations": _activations(traced, job.model, job.batch, job.precision, kept=False),
        "logits": _read_logits(job.model, job.batch, job.precision),
        "beside": job.beside,
    }


def forward_pass(job: ReadingJob) -> Pass | None:
    """The traced forward of one batch."""
    return reading(job.model.config, job.batch, job.precision)


def training_pass(job: TrainingJob) -> Pass | None:
    """The traced forward and backward of one micro-batch, with the teachers' activations beside it."""
    beside = [forward_pass(one) for one in job.teachers]
    most = max((one.peak for one in beside if one is not None), default=0)
    return training(job.student.config, job.batch, replace(job.how, beside=most))


def _of_training(job: TrainingJob, machine: Machine) -> dict[str, Range]:
    traced, trained = training_pass(job), job.student.parameters.trained
    gradients = float(trained * GRADIENT)
    if traced is None:
        activations = _activations(None, job.student, job.batch, job.precision, kept=not job.how.checkpointing)
    else:
        left = max(0.0, traced.peak - gradients)
        activations = Range(*(left * one for one in TRACED))
    parts = {
        "weights": job.weights,
        "gradients": Range.exactly(gradients),
        "optimizer": Range.exactly(trained * job.moments),
        "activations": activations,
        "logits": _loss_logits(job, machine),
    }
    if job.teachers or job.beside.high:
        parts["teachers"] = sum((one.weights for one in job.teachers), job.beside)
    if job.writing is not None:
        # vLLM stays between the steps; transformers' keys and values do not.
        parts["vLLM"] = vllm_bytes(job.writing, machine)
    return parts if job.parts == 1 else _split(parts, job)


def _split(parts: dict[str, Range], job: TrainingJob) -> dict[str, Range]:
    """The same where each rank has its part of the weights, and gathers head, embeddings and one layer at a time."""
    own = {name: size * (1 / job.parts) if name in SPLIT else size for name, size in parts.items()}
    models = [(job.student, job.precision), *((one.model, one.precision) for one in job.teachers)]
    return own | {"gathered": GATHERED * sum(_gathered(model, precision) for model, precision in models)}


def _gathered(model: PlannedModel, precision: str) -> float:
    sizes, layers = model.parameters, model.config.get_text_config().num_hidden_layers
    return bytes_per_weight(precision) * (sizes.head + sizes.embeddings + sizes.body / layers)


def _loss_logits(job: TrainingJob, machine: Machine) -> Range:
    """The loss's chunk of logits of student and teachers, and its buffers."""
    sources = [(job.student, job.precision), *((one.model, one.precision) for one in job.teachers)]
    rows = [_vocabulary(model) * bytes_per_weight(precision) for model, precision in sources]
    tokens = job.batch.tokens
    if machine.kind == "cpu":
        return Range.around(_chunk(rows, tokens, MEMORY_BUDGET), 1.0, 1.15)
    # On a GPU the loss takes an eighth of what is free.
    least, most = (_chunk(rows, tokens, budget) for budget in (MEMORY_BUDGET, MOST_FOR_LOSS))
    return Range(least, max(least, most * 0.5), most)


def _chunk(rows: list[int], tokens: int, budget: int) -> float:
    sources = [cast(LogitsSource, SimpleNamespace(bytes_per_row=size)) for size in rows]
    _, _, most = next(chunks(tokens, budget, sources))
    return float(most * sum(rows))


def _read_logits(model: PlannedModel, batch: BatchShape, precision: str) -> Range:
    """The logits of a batch without gradients, in chunks of the loss's budget; some measurements hold them twice."""
    whole = _chunk([_vocabulary(model) * bytes_per_weight(precision)], batch.tokens, MEMORY_BUDGET)
    return Range(0.0, whole, 2.5 * whole)


def _vocabulary(model: PlannedModel) -> int:
    return int(model.config.get_text_config().vocab_size)


def _activations(traced: Pass | None, model: PlannedModel, batch: BatchShape, precision: str, *, kept: bool) -> Range:
    if traced is not None:
        return Range(*(traced.peak * one for one in TRACED))
    text = model.config.get_text_config()
    layers = text.num_hidden_layers if kept else 2
    size = PER_TOKEN_AND_CHANNEL * bytes_per_weight(precision) / 2 * batch.tokens * text.hidden_size * layers
    return Range(*(size * one for one in ESTIMATED))


def _of_writing(job: WritingJob, machine: Machine) -> dict[str, Range]:
    read = ReadingJob(job.model, BatchShape(job.rows, max(2, round(job.longest))), None, job.precision, job.weights)
    # The prompt is read at once, the answer token by token.
    prompt = BatchShape(job.rows, max(2, round(min(job.prompt.expected, job.longest))))
    traced = forward_pass(replace(read, batch=prompt))
    return {
        "weights": job.weights,
        "activations": _activations(traced, job.model, prompt, job.precision, kept=False),
        "keys and values": keys_and_values(job),
        "logits": Range(1.0, 2.0, 4.0) * float(job.rows * _vocabulary(job.model) * 4),
        "vLLM": vllm_bytes(job, machine),
        "beside": job.beside,
    }


def vllm_bytes(job: WritingJob, machine: Machine) -> Range:
    """What vLLM keeps where it writes: its own copy of the weights, and room for keys and values of all rows.

    `engine: auto` takes it on a GPU where it is installed. That is not known of another machine.
    """
    if job.engine == "transformers" or (job.engine == "auto" and machine.kind == "cpu"):
        return ZERO
    copy = float(bytes_per_weight(job.precision) * job.model.parameters.total)
    whole = Range(1.0, 1.0, 1.1) * (copy + _cache_bytes(job))
    return whole if job.engine == "vllm" else Range(0.0, whole.expected if is_installed() else 0.0, whole.high)


def keys_and_values(job: WritingJob) -> Range:
    """The bytes of the keys and values of all rows, and of the prompts from which the rows have theirs."""
    prompts = job.prompt * _cache_bytes_per_token(job)
    return Range(0.4, 1.0, 2.0) * _cache_bytes(job) + prompts * Range(0.0, 1.0, 1.0)


def _cache_bytes(job: WritingJob) -> float:
    """The bytes of the keys and values of rows at their longest."""
    return _cache_bytes_per_token(job) * job.longest


def _cache_bytes_per_token(job: WritingJob) -> float:
    """The same of one token of each row."""
    return float(cached_numbers(job.model.config) * bytes_per_weight(job.precision) * job.rows)
