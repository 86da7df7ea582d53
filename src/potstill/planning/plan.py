"""Plan: the forecast of each step of a recipe on a machine, what of it fits, and notes on what is not known."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from potstill.console import size
from potstill.planning.amounts import Amounts, Schedule, amounts_of, schedule
from potstill.planning.disk import Disk, disk_of
from potstill.planning.downloads import fetched_by
from potstill.planning.duration import UNTRIED, Scales, active_parameters, seconds_of
from potstill.planning.jobs import Job, Situation, TrainingJob, WritingJob
from potstill.planning.machine import Machine, Ranks
from potstill.planning.memory import MEASURED, Memory, after, keys_and_values, memory_of
from potstill.planning.models import RecipeModels, models_of
from potstill.planning.ranges import ZERO, Range
from potstill.planning.ranks import on_host, ranks_of
from potstill.planning.stage_jobs import jobs_of
from potstill.recipe import Recipe
from potstill.recipe.step import Step

BESIDE_TRIAL = Range(0.0, 0.15e9, 0.4e9)
"""Bytes that a training on a CPU had beside those of its trial: libraries, the text, checkpoints that are written, and
kernels of earlier steps. Measured with eight trainings of three recipes: -0.03 to 0.30 GB."""
WITH_MANY_LENGTHS = Range(0.0, 0.15e9, 1.2e9)
"""The same with batches of more lengths than the trial had. Each length has kernels of its own, with their memory, and
128 of them are kept."""
SECONDS_TO_BEGIN = Range(4.0, 12.0, 40.0)
"""The imports of a run."""


@dataclass(frozen=True)
class Known:
    """What a run folder tells: the configurations of its prepared teachers, and the figures of finished stages."""

    teachers: Mapping[str, Any] = field(default_factory=dict)
    corpus: Mapping[str, Any] | None = None
    prompts: Mapping[str, Any] | None = None
    measured: Amounts | str | None = None
    """What was measured of a corpus that is not finished, or why nothing was; None: nobody tried."""


NOTHING_KNOWN = Known()


@dataclass(frozen=True)
class StepForecast:
    """What a step needs. None stands for what cannot be told."""

    step: str
    memory: Memory
    disk: Disk | None
    seconds: Range | None
    kwh: Range | None
    money: Range | None
    fetched: Range = ZERO
    """Bytes of weights that come from the hub into its cache."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types: each number as its least, its expected and its greatest value, in bytes and seconds."""
        return {
            "device_bytes": self.memory.on_device.to_list() if self.memory.device else None,
            "host_bytes": self.memory.on_host.to_list(),
            "memory_parts": {
                place: {name: size.to_list() for name, size in parts.items()}
                for place, parts in (("device", self.memory.device), ("host", self.memory.host))
            },
            "disk_bytes": _list(None if self.disk is None else self.disk.kept),
            "disk_bytes_meanwhile": _list(None if self.disk is None else self.disk.meanwhile),
            "fetched_bytes": self.fetched.to_list(),
            "seconds": _list(self.seconds),
            "kwh": _list(self.kwh),
            "money": _list(self.money),
        }


@dataclass(frozen=True)
class Plan:
    """The whole forecast."""

    recipe: Recipe
    machine: Machine
    precision: str
    models: RecipeModels
    amounts: Amounts
    steps: tuple[StepForecast, ...]
    schedules: Mapping[str, Schedule]
    """The optimizer steps of each training, by its section of the recipe."""
    notes: tuple[str, ...]
    known: Known = NOTHING_KNOWN

    @property
    def seconds(self) -> Range | None:
        """Of the whole run; None if a step's are not known."""
        known = [one.seconds for one in self.steps]
        return None if None in known else sum((one for one in known if one is not None), SECONDS_TO_BEGIN)

    @property
    def known_seconds(self) -> Range:
        """Of the steps that can be told."""
        return sum((one.seconds for one in self.steps if one.seconds is not None), SECONDS_TO_BEGIN)

    def sum_of(self, name: Literal["kwh", "money"]) -> Range | None:
        """The energy or the money of the steps that can be told; None if none can be."""
        known = [found for one in self.steps if (found := getattr(one, name)) is not None]
        return sum(known, ZERO) if known else None

    @property
    def disk(self) -> Range:
        """The most bytes that the run has on its disk at once, as far as they can be told. What it fetches from the
        hub is among them, unless the hub's cache is on another disk."""
        kept, most = ZERO, ZERO
        for one in self.steps:
            kept += one.fetched if self.machine.free_cache is None else ZERO
            kept += ZERO if one.disk is None else one.disk.kept
            most = Range.greatest([most, kept if one.disk is None else kept + one.disk.meanwhile])
        return most

    @property
    def fetched(self) -> Range:
        """The bytes of weights that come from the hub into its cache."""
        return sum((one.fetched for one in self.steps), ZERO)

    @property
    def ranks(self) -> Ranks:
        """The processes that share the work."""
        return ranks_of(self.recipe, self.machine)

    def host_memory_of(self, one: StepForecast) -> Range:
        """The bytes of a step on the host, of all ranks that are there."""
        return on_host(one.memory, one.step.partition("/")[0], self.machine, self.ranks)


def make_plan(
    recipe: Recipe,
    steps: Sequence[Step],
    machine: Machine,
    known: Known = NOTHING_KNOWN,
    *,
    ask_hub: bool = False,
    scales: Scales = UNTRIED,
) -> Plan:
    """Forecast the steps of a recipe.

    Args:
        recipe: the recipe.
        steps: those that are left.
        machine: where they will run.
        known: what the run folder tells.
        ask_hub: whether to ask the hub for configurations that are not here.
        scales: what was measured by trying.
    """
    at = _situation(recipe, machine, known, ask_hub=ask_hub)
    models, amounts = at.models, at.amounts
    fetched = fetched_by(steps, at, here=machine.is_here)
    alone = [replace(_forecast(step, at, machine, scales), fetched=fetched.get(step, ZERO)) for step in steps]
    found = tuple(_one_after_another(alone, machine))
    notes = [*machine.notes, *models.notes, *amounts.notes]
    if at.precision not in machine.rates:
        notes.append(
            f"the rate of {machine.name} in {at.precision} is not known, so no hours are given; add "
            f"`tflops: {{{at.precision}: …}}` to its description"
        )
    elif machine.bandwidth is None:
        notes.append(f"the bandwidth of {machine.name} is not known, so no hours are given; add `bandwidth_gb_s`")
    if machine.watts is None:
        notes.append(f"the power of {machine.name} is not known, so no energy is given; add `watts` to its description")
    notes += _on_written_samples(steps, at)
    if recipe.evaluate.tasks:
        notes.append("how long the tasks of lm-eval take is not known before they are loaded; `evaluate` has no hours")
    return Plan(
        recipe, machine, at.precision, models, amounts, found, schedules_of(at), tuple(dict.fromkeys(notes)), known
    )


def _one_after_another(alone: Sequence[StepForecast], machine: Machine) -> Iterator[StepForecast]:
    """The forecasts of steps that run in one process."""
    largest = ZERO
    for one in alone:
        yield replace(one, memory=after(one.memory, largest, machine))
        largest = Range.greatest([largest, one.memory.on_host])


def _on_written_samples(steps: Sequence[Step], at: Situation) -> Iterator[str]:
    """What students need to write samples: it is not seen in the memory of a step that needs more to learn."""
    for step in steps:
        writing = [job for job in jobs_of(step, at) if isinstance(job, WritingJob)] if step.stage == "distil" else []
        for job in writing:
            own = step.name is not None and at.recipe.variants[step.name].on_policy is not None
            key = f"experiments.{step.name}.on_policy" if own else "distil.on_policy"
            yield (
                f"`{key}`: the keys and values of {job.rows} answers that are written at once take "
                f"{size(keys_and_values(job).expected)}, before the gradients and activations of the step are there"
            )


def _situation(recipe: Recipe, machine: Machine, known: Known, *, ask_hub: bool) -> Situation:
    models = models_of(recipe, known.teachers, ask_hub=ask_hub)
    amounts = amounts_of(recipe, known.corpus, known.prompts, known.measured)
    ranks = ranks_of(recipe, machine).all
    precision = precision_on(recipe, machine)
    memory = machine.memory or math.inf
    return Situation(recipe.model_copy(update={"precision": precision}), models, amounts, precision, ranks, memory)


def precision_on(recipe: Recipe, machine: Machine) -> Literal["bf16", "fp32"]:
    """The number format that `auto` comes to on this machine."""
    if recipe.precision != "auto":
        return recipe.precision
    rates = machine.rates
    if "fp32" not in rates or "bf16" not in rates:
        return "bf16" if machine.kind == "cuda" else "fp32"
    return "bf16" if rates["bf16"].high > rates["fp32"].high else "fp32"


def schedules_of(at: Situation) -> dict[str, Schedule]:
    """The optimizer steps of each training whose number of samples is known."""
    recipe = at.recipe
    fields = {f"pretrain.{name}": one.training for name, one in recipe.pretrain.items()}
    fields["distil"] = recipe.distil.training
    found = {name: schedule(given, at.amounts.samples, at.ranks) for name, given in fields.items()}
    return {name: one for name, one in found.items() if one is not None}


def _forecast(step: Step, at: Situation, machine: Machine, scales: Scales) -> StepForecast:
    jobs = jobs_of(step, at)
    each = [seconds_of(job, machine, scales) for job in jobs]
    seconds = None if None in each else sum((one for one in each if one is not None), ZERO)
    hours = None if seconds is None else seconds * (1 / 3600)
    return StepForecast(
        step=str(step),
        memory=_with_measured(memory_of(jobs, machine), jobs, machine, scales),
        disk=disk_of(step, at, jobs),
        seconds=seconds,
        kwh=None if hours is None or machine.watts is None else hours * machine.watts * (1 / 1000),
        money=None if hours is None or machine.price is None else hours * machine.price,
    )


def jobs_in(
    recipe: Recipe, steps: Sequence[Step], machine: Machine, known: Known = NOTHING_KNOWN, *, ask_hub: bool = False
) -> list[Job]:
    """All work of some steps, to try it; the arguments are those of :func:`make_plan`."""
    at = _situation(recipe, machine, known, ask_hub=ask_hub)
    return [job for step in steps for job in jobs_of(step, at)]


def _with_measured(memory: Memory, jobs: Sequence[Job], machine: Machine, scales: Scales) -> Memory:
    """The memory with the whole that was measured in place of a training's parts."""
    trainings = [job for job in jobs if isinstance(job, TrainingJob) and job.key in scales.memory]
    tried = [scales.memory[job.key] for job in trainings]
    if not tried:
        return memory
    rest = memory_of([job for job in jobs if not isinstance(job, TrainingJob)], machine)
    if machine.kind == "cuda":
        measured = Memory({MEASURED: Range(0.95, 1.03, 1.15) * max(tried)}, memory.host)
        return rest if rest.on_device.expected > max(tried) else measured
    beside = WITH_MANY_LENGTHS if any(job.pads for job in trainings) else BESIDE_TRIAL
    # The trial has batches of the greatest length alone, which a run may not have.
    least = 0.85 if beside is WITH_MANY_LENGTHS else 0.95
    own = {MEASURED: Range(least, 1.0, 1.05) * max(tried), "beside the trial": beside}
    measured = Memory(host={"process": machine.baseline, **own})
    return rest if rest.on_host.expected > measured.on_host.expected else measured


def to_dict(plan: Plan) -> dict[str, Any]:
    """The plan as plain JSON types."""
    amounts = plan.amounts
    return {
        "recipe": plan.recipe.about,
        "machine": {
            "name": plan.machine.name,
            "kind": plan.machine.kind,
            "devices": plan.machine.devices,
            "memory": plan.machine.memory,
            "host_memory": plan.machine.host_memory,
            "free_disk": plan.machine.free_disk,
            "free_cache": plan.machine.free_cache,
        },
        "precision": plan.precision,
        "models": {
            one.name: {
                **vars(one.parameters),
                "total": one.parameters.total,
                "frozen": one.parameters.frozen,
                "active": active_parameters(one),
            }
            for one in plan.models
        },
        "text": {
            "origin": amounts.origin,
            "samples": _list(amounts.samples),
            "tokens": _list(amounts.tokens),
            "supervised_tokens": _list(amounts.supervised),
            "held_out_tokens": _list(amounts.held_out_tokens),
            **({} if amounts.taught is None else {"taught_shares": _lists(amounts.taught)}),
            "left_out": {what: count.to_list() for what, count in amounts.lost.items()},
            "optimizer_steps": {name: one.steps.to_list() for name, one in plan.schedules.items()},
        },
        "steps": {one.step: one.to_dict() for one in plan.steps},
        "seconds": _list(plan.seconds),
        "kwh": _list(plan.sum_of("kwh")),
        "money": _list(plan.sum_of("money")),
        "currency": plan.machine.currency,
        "disk_bytes": plan.disk.to_list(),
        "fetched_bytes": plan.fetched.to_list(),
        "notes": list(plan.notes),
    }


def _lists(found: Mapping[str, Range]) -> dict[str, list[float]]:
    return {name: one.to_list() for name, one in found.items()}


def _list(found: Range | None) -> list[float] | None:
    return None if found is None else found.to_list()
