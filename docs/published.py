"""Writes the plans of the published recipes into docs/published.md. `make published` runs it, without a network."""

from pathlib import Path

from potstill.console import duration, size
from potstill.pipeline.graph import all_steps
from potstill.planning.machine import machine_named
from potstill.planning.plan import Plan, make_plan
from potstill.planning.ranges import Range
from potstill.recipe import load_recipe

PAGE = Path(__file__).with_name("published.md")
BEGIN, END = "<!-- begin: written by `make published` -->\n", "<!-- end -->\n"
RECIPES = ("babyllama", "babyllama-2", "distilllama", "distilpythia", "distilpythia-padded", "gsm8k")
MACHINES = {"rtx-3060-12gb": "1 × 12 GB", "h100-80gb": "1 × 80 GB", "h100-80gb-x8": "8 × 80 GB"}
HEAD = """\
| recipe | training tokens of an epoch | machine | memory of a device | hours | disk | fits |
|---|---|---|---|---|---|---|
"""


def rows() -> str:
    """The table: what each recipe needs on each machine."""
    lines = []
    for name in RECIPES:
        recipe = load_recipe(name)
        for machine, shown in MACHINES.items():
            plan = make_plan(recipe, all_steps(recipe), machine_named(machine, Path.cwd(), (768, 3072)))
            largest = plan.largest
            tokens = "" if plan.amounts.tokens is None else f"{plan.amounts.tokens.expected:,.0f}"
            memory = None if largest is None else plan.memory_of(largest)
            where = "" if largest is None else f" (`{largest.step}`)"
            cells = [
                f"`{name}`",
                tokens,
                shown,
                f"{_shown(memory, size)}{where}",
                _hours(plan),
                size(plan.disk.expected),
            ]
            lines.append(f"| {' | '.join([*cells, _fits(plan, memory)])} |")
    return HEAD + "\n".join(lines) + "\n"


def _hours(plan: Plan) -> str:
    if plan.seconds is not None:
        return _shown(plan.seconds, duration)
    return f"{_shown(plan.known_seconds, duration)} and the tasks"


def _fits(plan: Plan, memory: Range | None) -> str:
    assert memory is not None
    assert plan.machine.memory is not None
    if memory.high <= plan.machine.memory:
        return "yes"
    return "no" if memory.low > plan.machine.memory else "perhaps"


def _shown(found: Range | None, show: object) -> str:
    assert callable(show)
    return "?" if found is None else f"{show(found.expected)} [{show(found.low)}, {show(found.high)}]"


def main() -> None:
    """Write the table between the marks of the page."""
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    PAGE.write_text(before + BEGIN + rows() + END + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
