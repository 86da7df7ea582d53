"""Runs: one line for each run in a folder."""

from pathlib import Path

from potstill.console import size, table
from potstill.pipeline.runs import RunSummary, runs_in

HEAD = ("run", "verdict", "student", "parameters", "date", "disk")
LONGEST = 72
"""Characters of a verdict; a longer one is cut, so that a broken folder has one line too."""


def runs_table(folder: Path) -> str:
    """The runs of a folder as a table, with the size of all in the last line.

    Raises:
        UserError: there is no such folder.
    """
    found = runs_in(folder)
    if not found:
        return f"{folder} has no run folders; `potstill run RECIPE` makes one"
    total = ("in all", "", "", "", "", size(sum(one.bytes for one in found)))
    return table([HEAD, *map(_row, found), total])


def _row(run: RunSummary) -> tuple[str, ...]:
    said = " ".join(run.verdict.split())
    verdict = said if len(said) <= LONGEST else f"{said[: LONGEST - 1]}…"
    return run.name, verdict, run.student, _count(run.parameters), run.date, size(run.bytes)


def _count(parameters: int | None) -> str:
    return "" if parameters is None else f"{parameters / 1e6:,.1f}M" if parameters >= 1e6 else f"{parameters:,}"
