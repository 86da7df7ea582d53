"""Writes the plans of the published recipes into docs/published.md. `make published` runs it, without a network."""

from collections.abc import Callable
from pathlib import Path

from potstill.console import duration, size
from potstill.pipeline.graph import all_steps
from potstill.planning.machine import described_machines
from potstill.planning.needs import needs_of
from potstill.planning.plan import Plan, make_plan
from potstill.planning.ranges import Range
from potstill.planning.show import word
from potstill.recipe import load_recipe

PAGE = Path(__file__).with_name("published.md")
BEGIN, END = "<!-- begin: written by `make published` -->\n", "<!-- end -->\n"
RECIPES = ("babyllama", "babyllama-2", "distilllama", "distilpythia", "distilpythia-padded", "gsm8k")
MACHINES = {"rtx-3060-12gb": "1 × 12 GB", "h100-80gb": "1 × 80 GB", "h100-80gb-x8": "8 × 80 GB"}
HEAD = """\
| recipe | training tokens of an epoch | machine | memory of a device | hours | disk | fits |
|---|---|---|---|---|---|---|
"""


PLACES = {"device": "the device", "host": "the host", "disk": "the disk", "cache": "the cache's disk"}


def generated() -> str:
    """The table: what each recipe needs on each machine."""
    return HEAD + "".join(row for name in RECIPES for row in rows(name))


def rows(name: str) -> list[str]:
    """The lines of a recipe, one for each machine."""
    recipe, machines = load_recipe(name), described_machines()
    plans = {shown: make_plan(recipe, all_steps(recipe), machines[machine]) for machine, shown in MACHINES.items()}
    return [f"| {' | '.join([f'`{name}`', *_cells(plan, shown)])} |\n" for shown, plan in plans.items()]


def _cells(plan: Plan, machine: str) -> list[str]:
    tokens = "" if plan.amounts.tokens is None else f"{plan.amounts.tokens.expected:,.0f}"
    needs = list(needs_of(plan))
    memory = next(need for need in needs if need.place == "device")
    amiss = "; ".join(f"{PLACES[need.place]}: {word(need)}" for need in needs if word(need) != "fits")
    return [
        tokens,
        machine,
        f"{_shown(memory.needed, size)} (`{memory.step}`)",
        _hours(plan),
        size(plan.disk.expected),
        amiss or "yes",
    ]


def _hours(plan: Plan) -> str:
    if plan.seconds is not None:
        return _shown(plan.seconds, duration)
    return f"{_shown(plan.known_seconds, duration)} and the tasks"


def _shown(found: Range, show: Callable[[float], str]) -> str:
    return f"{show(found.expected)} [{show(found.low)}, {show(found.high)}]"


def written(page: str) -> str:
    """The page with the table of today between its marks."""
    before, rest = page.split(BEGIN)
    return before + BEGIN + generated() + END + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
