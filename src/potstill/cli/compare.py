"""Compare: the figures of several runs in one table."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from potstill.console import table
from potstill.errors import UserError
from potstill.files.atomic import read_json
from potstill.metrics.bootstrap import Paired
from potstill.pipeline.run_folder import Run
from potstill.recipe.load import saved_recipe
from potstill.report.significance import beyond_chance
from potstill.report.significance import key as key_of

COLUMNS = ("run", "model", "metric", "value", "low", "high", "n", "chance", "stderr", "seeds")


OPTIONAL = ("chance", "stderr", "seeds")
"""Columns that are left out if they are empty in every row."""


def comparison(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """The figures that the runs' evaluations measured, one row each.

    Raises:
        UserError: a folder is not a run folder, or its evaluation is not done or is damaged.
    """
    rows = []
    for folder, name in zip(folders, _names(folders), strict=True):
        run = Run(folder)
        run_recipe = saved_recipe(folder)
        if damaged := run.damaged("evaluate"):
            name, word = next(iter(damaged.items()))
            raise UserError(f"{run.path('evaluate') / name} is {word}; run the recipe again, which makes it anew")
        if run.manifest("evaluate") is None:
            raise UserError(f"{folder} has no evaluation yet; `potstill status {folder}` shows what is left")
        found = read_json(run.path("evaluate") / "comparison.json")
        tasks = found.get("tasks", {"metrics": [], "lm_eval": {}})
        for row in found["rows"]:
            own = tasks["lm_eval"].get(row["model"], {}).get(row["metric"])
            rows.append({"run": name, **row, **({"lm_eval": own} if own else {})})
        families = {metric["name"]: metric["family"] for metric in tasks["metrics"]}
        pairs = [Paired.from_dict(pair) for pair in found["paired"]]
        beyond = beyond_chance(pairs, families, run_recipe.evaluate.confidence)
        for pair in pairs:
            row = {key: value for key, value in pair.to_dict().items() if key not in ("a", "b", "difference")}
            row["beyond_chance"] = beyond[key_of(pair)]
            rows.append({"run": name, "model": f"{pair.a} - {pair.b}", "value": pair.difference, **row})
    return rows


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' own names, or their whole paths if two names are the same."""
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def comparison_table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a table, sorted by metric."""
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    ordered = sorted(rows, key=lambda row: metrics.index(row["metric"]))
    shown = [COLUMNS, *(tuple(_cell(row, column) for column in COLUMNS) for row in ordered)]
    empty = [at for at, name in enumerate(COLUMNS) if name in OPTIONAL and not any(row[at] for row in shown[1:])]
    return table([[cell for at, cell in enumerate(row) if at not in empty] for row in shown])


def _cell(row: dict[str, Any], column: str) -> str:
    value = row.get(column)
    if column == "seeds":
        return ", ".join(f"{each:.4g}" for each in value["values"]) if value else ""
    if column == "chance":
        beyond = row.get("beyond_chance")
        return "" if beyond is None else "beyond chance" if beyond else "within chance"
    if column == "stderr":
        # lm-eval's own standard error of each seed.
        told = [each["stderr"] for each in row.get("lm_eval", ()) if each["stderr"] is not None]
        return ", ".join(f"{each:.4g}" for each in told)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
