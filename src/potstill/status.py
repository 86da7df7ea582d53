"""What a run folder can tell without running anything: what is done, what is left, what was measured."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from potstill.console import duration, size, table
from potstill.files import read_json
from potstill.pipeline import all_steps, needed_by
from potstill.recipe import Recipe
from potstill.run import Run, Step
from potstill.runner import is_done
from potstill.words import UserError

COLUMNS = ("run", "model", "metric", "value", "low", "high", "n", "seeds")


def describe(folder: Path) -> str:
    """A line a step: its state, how long it took and what it weighs.

    Raises:
        UserError: the folder is no run.
    """
    run = Run(folder)
    recipe = recipe_of(run)
    lines, total, not_done = [], 0.0, set[Step]()
    for step in all_steps(recipe):
        state = _state(recipe, run, step, not_done)
        if state != "done":
            not_done.add(step)
        known = run.earlier(step)
        seconds = known["cost"]["seconds"] if known and known["cost"] else 0.0
        total += seconds
        weight = sum(made["bytes"] for made in known.get("outputs", {}).values()) if known else 0
        figures = f"{duration(seconds) if seconds else '':>12} {size(weight) if weight else '':>10}"
        lines.append(f"{step!s:<16} {state:<20} {figures}".rstrip())
    return "\n".join([*lines, f"{'in all':<37} {duration(total):>12}"])


def _state(recipe: Recipe, run: Run, step: Step, not_done: set[Step]) -> str:
    """One of: left, stopped midway, incomplete, inputs missing, inputs changed, waits for another stage, done."""
    if run.earlier(step) is None:
        return "left"
    if run.manifest(step) is None:
        return "stopped midway" if run.unfinished(step) is not None else "incomplete"
    if waits_for := [needed.stage for needed in needed_by(recipe, step) if needed in not_done]:
        return f"waits for {waits_for[0]}"
    try:
        return "done" if is_done(recipe, run, step) else "inputs changed"
    except UserError:
        return "inputs missing"


def comparison(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """The rows that the runs' evaluations measured.

    Raises:
        UserError: a folder is no run, or its evaluation is not done.
    """
    rows = []
    for folder, name in zip(folders, _names(folders), strict=True):
        run = Run(folder)
        recipe_of(run)
        if run.manifest("evaluate") is None:
            raise UserError(f"{folder} has no evaluation yet; `potstill status {folder}` says what is left")
        found = read_json(run.path("evaluate") / "comparison.json")
        for row in found["rows"]:
            rows.append({"run": name, **row})
        for pair in found["paired"]:
            row = {key: value for key, value in pair.items() if key not in ("a", "b", "difference")}
            rows.append({"run": name, "model": f"{pair['a']} - {pair['b']}", "value": pair["difference"], **row})
    return rows


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' own names, or, where two are the same, their whole paths."""
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def comparison_table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as lines of aligned columns, metric by metric."""
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    ordered = sorted(rows, key=lambda row: metrics.index(row["metric"]))
    shown = [COLUMNS, *(tuple(_cell(row, column) for column in COLUMNS) for row in ordered)]
    if not any(row.get("seeds") for row in rows):
        shown = [row[:-1] for row in shown]
    return table(shown)


def _cell(row: dict[str, Any], column: str) -> str:
    value = row.get(column)
    if column == "seeds":
        return ", ".join(f"{each:.4g}" for each in value["values"]) if value else ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def recipe_of(run: Run) -> Recipe:
    """The recipe that a run was last asked for.

    Raises:
        UserError: the folder is no run, or its recipe is of another version of potstill.
    """
    saved = run.recipe()
    if saved is None:
        raise UserError(f"{run.folder} is no run folder; `potstill run RECIPE` makes one under runs/")
    try:
        return Recipe.model_validate(saved)
    except ValidationError:
        raise UserError(f"{run.folder}: its recipe.json is none that this version of potstill reads") from None
