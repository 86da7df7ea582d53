"""Needs: what a plan needs at most of each place that has a limit, beside what is there."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from potstill.planning.plan import Plan, StepForecast
from potstill.planning.ranges import Range

Where = Literal["device", "host", "disk", "cache"]
"""The memory of one accelerator, the memory of the machine, the disk of the run folder, or the disk of the hub's cache
where that is another one."""


@dataclass(frozen=True)
class Need:
    """Bytes."""

    place: Where
    step: str | None
    """The step that needs the most memory; None: the whole run, on a disk."""
    needed: Range
    there: float


def needs_of(plan: Plan) -> Iterator[Need]:
    """What a plan needs of each place whose size is known."""
    machine = plan.machine
    if machine.kind == "cuda":
        yield from _of_memory(plan, "device", lambda one: one.memory.on_device, machine.device_memory)
    yield from _of_memory(plan, "host", plan.host_memory_of, machine.host_memory)
    if machine.free_disk is not None:
        yield Need("disk", None, plan.disk, machine.free_disk)
    if machine.free_cache is not None:
        yield Need("cache", None, plan.fetched, machine.free_cache)


def _of_memory(
    plan: Plan, place: Where, bytes_of: Callable[[StepForecast], Range], there: float | None
) -> Iterator[Need]:
    largest = max(plan.steps, key=lambda one: bytes_of(one).expected, default=None)
    if largest is not None and there is not None:
        yield Need(place, largest.step, bytes_of(largest), there)


def misfits(plan: Plan) -> list[Need]:
    """What is expected not to fit."""
    return [need for need in needs_of(plan) if need.needed.expected > need.there]
