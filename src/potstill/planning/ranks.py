"""Ranks: the processes that share the work of a run, and what all of those on one machine need of its memory."""

from potstill.planning.machine import Machine, Ranks
from potstill.planning.memory import Memory
from potstill.planning.ranges import Range
from potstill.planning.stage_jobs import TRAINED_STAGES
from potstill.recipe import Recipe

ON_ALL_RANKS = (*TRAINED_STAGES, "capture")
"""The stages that all ranks run together. The first rank runs each other stage alone."""
MAY_BE_SHARED = ("process", "weights", "teachers", "beside", "file")
"""Parts of the host's memory that several processes may have in one place: libraries, and weights that they all map
from one file."""


def ranks_of(recipe: Recipe, machine: Machine) -> Ranks:
    """The processes of a run: those that a launcher has started, or one for each accelerator.

    A teacher that is spread over all accelerators belongs to a single process.
    """
    if machine.ranks is not None:
        return machine.ranks
    spreads = any(getattr(one, "device_map", None) for one in recipe.teachers.values())
    count = machine.devices if machine.kind == "cuda" and not spreads else 1
    return Ranks(count, count)


def on_host(memory: Memory, stage: str, machine: Machine, ranks: Ranks) -> Range:
    """The bytes on the host that all processes of this machine have in a step.

    Args:
        memory: that of one process that does the step.
        stage: the step's stage. Where the first rank runs it alone, the others wait.
        machine: the machine.
        ranks: the processes.
    """
    others = ranks.here - 1
    if others == 0:
        return memory.on_host
    each = memory.host if stage in ON_ALL_RANKS else {"process": machine.baseline}
    least = sum(size.low for part, size in each.items() if part not in MAY_BE_SHARED)
    expected, high = (sum(getattr(size, name) for size in each.values()) for name in ("expected", "high"))
    return memory.on_host + Range(least, expected, high) * float(others)
