"""Compare: the figures of several runs in one table."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from potstill.console import table
from potstill.errors import UserError
from potstill.files.atomic import read_json, write_text
from potstill.metrics.results import FEWEST_UNITS, Paired, Result
from potstill.metrics.speed import Speed
from potstill.pipeline.recipe_inputs import INTERVALS
from potstill.pipeline.run_folder import Run
from potstill.recipe.load import saved_recipe
from potstill.report.compare_page import SIGN, ComparedRun, has_points, render_comparison
from potstill.report.data import ANSWER_METRICS, HELD_OUT_METRICS
from potstill.report.significance import beyond_chance
from potstill.report.significance import key as key_of

COLUMNS = ("run", "model", "metric", "value", "low", "high", "n", "chance", "stderr", "seeds")


OPTIONAL = ("chance", "stderr", "seeds")
"""Columns that are left out if they are empty in every row."""

UNASKED = Path("compare.html")
"""The page of several runs, in the working folder, where no other file is named."""

WIDTH = 100
"""The columns of a terminal that a table of several metrics may take, unless one metric alone needs more."""


def comparison(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """The figures that the runs' evaluations measured, one row each.

    Raises:
        UserError: a folder is not a run folder, or its evaluation is not done or is damaged.
    """
    rows = []
    for folder, name in zip(folders, _names(folders), strict=True):
        manifest, found = _evaluation(folder)
        tasks = found.get("tasks", {"metrics": [], "lm_eval": {}})
        for row in found["rows"]:
            own = tasks["lm_eval"].get(row["model"], {}).get(row["metric"])
            rows.append({"run": name, **row, **({"lm_eval": own} if own else {})})
        families = {metric["name"]: metric["family"] for metric in tasks["metrics"]}
        pairs = [Paired.from_dict(pair) for pair in found["paired"]]
        beyond = beyond_chance(pairs, families, manifest["recipe"]["evaluate"]["confidence"])
        for pair in pairs:
            row = {key: value for key, value in pair.to_dict().items() if key not in ("a", "b", "difference")}
            row["beyond_chance"] = beyond[key_of(pair)]
            rows.append({"run": name, "model": f"{pair.a} - {pair.b}", "value": pair.difference, **row})
    return rows


def draw_unasked(folders: Sequence[Path], *, at_terminal: bool) -> str:
    """Draw the runs into :data:`UNASKED` for a person at a terminal; a script gets no file that it did not ask for.

    Returns:
        What was drawn, or why nothing was, in one sentence.
    """
    if not at_terminal:
        return "`--plot FILE.html` draws quality against speed and size of these runs"
    if UNASKED.exists() and not _is_comparison(UNASKED):
        return f"{UNASKED} is no page of potstill's and stays as it is; `--plot FILE.html` draws these runs elsewhere"
    try:
        write_plot(UNASKED, folders)
    except UserError as error:
        return str(error)
    return f"{UNASKED} draws quality against speed and size of these runs"


def _is_comparison(file: Path) -> bool:
    return file.is_file() and SIGN.encode() in file.read_bytes()


def write_plot(file: Path, folders: Sequence[Path]) -> None:
    """Write a page that draws the quality of the runs' models against their speed and size.

    Raises:
        UserError: as :func:`comparison`, there is nothing to draw, or the file cannot be written.
    """
    if file.is_dir() or not file.parent.is_dir():
        wrong = "is a folder" if file.is_dir() else "lies in a folder that is not there"
        raise UserError(f"`--plot`: {file} {wrong}; name a file in a folder that exists, such as compare.html")
    runs = []
    for folder, name in zip(folders, _names(folders), strict=True):
        manifest, found = _evaluation(folder)
        speed = manifest["summary"].get("speed")
        rows = tuple(map(Result.from_dict, found["rows"]))
        metric = (ANSWER_METRICS if saved_recipe(folder).judges_numbers else HELD_OUT_METRICS)[0]
        runs.append(ComparedRun(name, rows, None if speed is None else Speed.from_dict(speed), metric))
    if not any(map(has_points, runs)):
        raise UserError(
            "`--plot`: there is nothing to draw, because no run has a measured speed and a teacher that is better than "
            "its start; `evaluate: {speed: true}` measures the speed"
        )
    page = render_comparison(runs)
    try:
        write_text(file, page)
    except OSError as error:
        raise UserError(f"`--plot`: {file} cannot be written ({error.strerror}); name another file") from error


def _evaluation(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The manifest and the comparison of a run's evaluation."""
    run = Run(folder)
    saved_recipe(folder)
    if damaged := run.damaged("evaluate"):
        name, word = next(iter(damaged.items()))
        raise UserError(f"{run.path('evaluate') / name} is {word}; run the recipe again, which makes it anew")
    manifest = run.manifest("evaluate")
    if manifest is None:
        raise UserError(f"{folder} has no evaluation yet; `potstill status {folder}` shows what is left")
    if manifest["inputs"].get("recipe", {}).get("intervals") != INTERVALS:
        raise UserError(
            f"{folder}: another version of potstill computed its intervals in another way; run the recipe again, "
            "which computes them anew"
        )
    return manifest, read_json(run.path("evaluate") / "comparison.json")


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' own names, or their whole paths if two names are the same."""
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def comparison_table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a table: of one metric, a row for each figure; of several, a row for each model."""
    if len({row["metric"] for row in rows}) > 1:
        return _table_of_metrics(rows)
    shown = [COLUMNS, *(tuple(_cell(row, column) for column in COLUMNS) for row in rows)]
    empty = [at for at, name in enumerate(COLUMNS) if name in OPTIONAL and not any(row[at] for row in shown[1:])]
    return table([[cell for at, cell in enumerate(row) if at not in empty] for row in shown])


def _table_of_metrics(rows: Sequence[dict[str, Any]]) -> str:
    """A row for each model and a column for each metric, in as many tables as the width needs."""
    tables: list[list[str]] = []
    for metric in dict.fromkeys(row["metric"] for row in rows):
        wider = [*(tables[-1] if tables else []), metric]
        if tables and max(map(len, _some_metrics(rows, wider).splitlines())) <= WIDTH:
            tables[-1] = wider
        else:
            tables.append([metric])
    told = [_some_metrics(rows, metrics) for metrics in tables]
    marks = {_mark(row): _chance(row) for row in rows if _mark(row)}
    legend = "\n".join(f"{mark} {marks[mark]}" for mark in sorted(marks))
    return "\n\n".join([*told, *([legend] if legend else [])])


def _some_metrics(rows: Sequence[dict[str, Any]], metrics: Sequence[str]) -> str:
    models: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        if row["metric"] in metrics:
            models.setdefault((row["run"], row["model"]), {})[row["metric"]] = _figure(row)
    counts = {metric: sorted({row["n"] for row in rows if row["metric"] == metric}) for metric in metrics}
    return table(
        [
            ("run", "model", *metrics),
            *((*model, *(figures.get(metric, "") for metric in metrics)) for model, figures in models.items()),
            ("", "n", *(" to ".join(str(one) for one in dict.fromkeys((n[0], n[-1]))) for n in counts.values())),
        ]
    )


def _figure(row: dict[str, Any]) -> str:
    """A value with its interval, and whatever else there is: its mark, lm-eval's standard errors, its seeds."""
    value, low, high = (_cell(row, column) for column in ("value", "low", "high"))
    more = [f"({name} {_cell(row, name)})" for name in ("stderr", "seeds") if _cell(row, name)]
    return " ".join([f"{value} [{low}, {high}]", *([_mark(row)] if _mark(row) else []), *more])


def _mark(row: dict[str, Any]) -> str:
    return {"beyond chance": "*", "too few to tell": "?"}.get(_chance(row), "")


def _chance(row: dict[str, Any]) -> str:
    """The judgement of a difference; empty for a model's own figure."""
    beyond = row.get("beyond_chance")
    if beyond is None:
        return ""
    return "beyond chance" if beyond else "too few to tell" if row["n"] < FEWEST_UNITS else "within chance"


def _cell(row: dict[str, Any], column: str) -> str:
    value = row.get(column)
    if column == "seeds":
        return ", ".join(f"{each:.4g}" for each in value["values"]) if value else ""
    if column == "chance":
        return _chance(row)
    if column == "stderr":
        # lm-eval's own standard error of each seed.
        told = [each["stderr"] for each in row.get("lm_eval", ()) if each["stderr"] is not None]
        return ", ".join(f"{each:.4g}" for each in told)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
