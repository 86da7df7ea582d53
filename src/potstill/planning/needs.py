"""Needs: what a plan needs at most of each place that has a limit, beside what is there."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from potstill.planning.plan import Plan
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


def needs_of(plan: Plan, by: Literal["low", "expected"] = "expected") -> Iterator[Need]:
    """What a plan needs of each place whose size is known.

    Args:
        plan: the plan.
        by: which forecasts are compared to find the step that needs the most memory.
    """
    machine = plan.machine
    on_host = {one.step: plan.host_memory_of(one) for one in plan.steps}
    several: list[tuple[Where, Mapping[str, Range], float | None]] = [("host", on_host, machine.host_memory)]
    if machine.kind == "cuda":
        on_device = {one.step: one.memory.on_device for one in plan.steps}
        several.insert(0, ("device", on_device, machine.device_memory))
    for place, needed, there in several:
        if needed and there is not None:
            step = max(needed, key=lambda one: getattr(needed[one], by))
            yield Need(place, step, needed[step], there)
    if machine.free_disk is not None:
        yield Need("disk", None, plan.disk, machine.free_disk)
    if machine.free_cache is not None:
        yield Need("cache", None, plan.fetched, machine.free_cache)


def misfits(plan: Plan) -> list[Need]:
    """What is expected not to fit."""
    return [need for need in needs_of(plan) if need.needed.expected > need.there]
