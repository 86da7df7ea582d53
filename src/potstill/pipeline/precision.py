"""Precision: the number format of a run. It is decided once, when the run begins, and kept in the run folder.

The module imports nothing heavy, because `potstill status` uses it.
"""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from potstill import distributed
from potstill.console import say
from potstill.files.sealed import read_sealed, write_sealed
from potstill.pipeline.graph import all_steps
from potstill.pipeline.run_folder import Run
from potstill.recipe.precision import in_bfloat16, teachers_in_format

if TYPE_CHECKING:
    from potstill.device import ProductTimes
    from potstill.recipe import Recipe

FILE = "precision.json"


@dataclass(frozen=True)
class NumberFormat:
    """A number format, and the reason for it as the end of a sentence."""

    precision: Literal["bf16", "fp32"]
    reason: str
    device: str | None = None
    """The device on which it was decided. None: it was not decided here."""
    times: dict[str, Any] | None = None
    """The fields of :class:`ProductTimes`, if products were timed."""

    def line(self) -> str:
        """One line for people."""
        return f"number format: {self.precision}, {self.reason}"


def decision_of(recipe: "Recipe", run: Run) -> NumberFormat | None:
    """The number format of a run. None if it is not decided yet. Nothing is measured."""
    if recipe.precision != "auto":
        return NumberFormat(recipe.precision, "as the recipe says")
    kept = read_sealed(run.folder / FILE)
    return _of_earlier_steps(recipe, run) if kept is None else NumberFormat(**kept)


def with_precision(recipe: "Recipe", run: Run) -> "Recipe":
    """The recipe with the number format that the run has decided; float32 if nothing of the run depends on it yet."""
    found = decision_of(recipe, run)
    return recipe.model_copy(update={"precision": "fp32" if found is None else found.precision})


def decide(recipe: "Recipe", run: Run) -> "Recipe":
    """The recipe with the number format of the run, which is decided now if it is not yet. Every rank must call this.

    A format that is decided stays, also if the run goes on with another machine.
    """
    if distributed.is_first() and recipe.precision == "auto" and read_sealed(run.folder / FILE) is None:
        made = _of_earlier_steps(recipe, run) or _measured(recipe, run)
        write_sealed(run.folder / FILE, asdict(made))
        say(made.line())
    # Only the first rank reads and writes the file, so that all ranks have one format.
    found = with_precision(recipe, run).precision if distributed.is_first() else None
    return recipe.model_copy(update={"precision": distributed.broadcast(found)})


def warn(recipe: "Recipe", decided: "Recipe", run: Run) -> None:
    """Say what a number format costs that the recipe asks for, and which teachers have another than their students.

    Args:
        recipe: the recipe as it is given.
        decided: the recipe with the run's number format.
        run: the run.
    """
    if recipe.precision == "bf16" and (cost := _cost_of_bfloat16(recipe, run)) is not None:
        say(f"number format: bf16, as the recipe says; {cost}, and `precision: auto` would choose fp32")
    if not in_bfloat16(decided.distil.training, decided.precision):
        return
    others = [name for name in decided.all_teachers if name not in teachers_in_format(decided)]
    slow = [name for name in others if getattr(decided.teachers[name], "dtype", None) == "float32"]
    if decided.precision == "fp32":
        slow = [*slow, *teachers_in_format(decided)]
    if slow:
        say(f"teachers in fp32: {', '.join(slow)}; the student is trained in bf16")


def _of_earlier_steps(recipe: "Recipe", run: Run) -> NumberFormat | None:
    """The number format of the steps that were begun."""
    for step in all_steps(recipe):
        earlier = run.earlier(step)
        precision = earlier and earlier["inputs"]["recipe"].get("precision")
        if precision:
            return NumberFormat(precision, "as earlier steps of this run have it")
    return None


def _measured(recipe: "Recipe", run: Run) -> NumberFormat:
    from potstill.device import accelerator_has_bfloat16, device, device_name

    where = device_name()
    if device().type != "cpu":
        fast = accelerator_has_bfloat16()
        reason = f"which {where} multiplies itself" if fast else f"because {where} has no bf16 of its own"
        return NumberFormat("bf16" if fast else "fp32", reason, where)
    times = _times(recipe, run)
    if not times.is_clear:
        reason = "because a short measurement did not tell clearly which of fp32 and bf16 is faster here"
        return NumberFormat("fp32", f"{reason} ({where})", where, asdict(times))
    fast = times.speedup > 1
    slower, ratio = ("fp32", times.speedup) if fast else ("bf16", 1 / times.speedup)
    reason = f"because {slower} takes {ratio:.1f} times as long here ({where})"
    return NumberFormat("bf16" if fast else "fp32", reason, where, asdict(times))


def _cost_of_bfloat16(recipe: "Recipe", run: Run) -> str | None:
    """What bfloat16 costs on this machine, as a clause. None if it is not slower than float32."""
    from potstill.device import accelerator_has_bfloat16, device, device_name

    if device().type != "cpu":
        return None if accelerator_has_bfloat16() else f"{device_name()} has no bf16 of its own and emulates it"
    times = _times(recipe, run)
    # An unclear answer is no cost that can be told.
    if not times.is_clear or times.speedup > 1:
        return None
    return f"it takes {1 / times.speedup:.1f} times as long as fp32 here"


def _times(recipe: "Recipe", run: Run) -> "ProductTimes":
    from potstill.device import time_products
    from potstill.pipeline.forecast import typical_widths

    return time_products(*typical_widths(recipe, run))
