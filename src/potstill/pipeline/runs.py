"""Runs: a few words about each run in a folder, from its small files alone. No output of a run is read or hashed.

The module imports nothing heavy, because a look at many runs must be quick.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill.errors import UserError
from potstill.files.atomic import read_json
from potstill.pipeline.graph import all_steps
from potstill.pipeline.manifest import stored_manifest
from potstill.pipeline.run_folder import Run
from potstill.recipe import Recipe
from potstill.recipe.load import saved_recipe
from potstill.recipe.step import SAVED_AS, Step

COMPARISON = "comparison.json"
"""The file of the report with all figures of a run."""


@dataclass(frozen=True)
class RunSummary:
    """A run in one line."""

    name: str
    verdict: str
    """The verdict of its report; else what is left to do, or what is wrong with the folder."""
    student: str = ""
    parameters: int | None = None
    """Of the student."""
    date: str = ""
    """Of the last step that was finished."""
    bytes: int = 0
    """On disk; a file with several names counts once."""


def runs_in(folder: Path) -> list[RunSummary]:
    """A summary of each folder in a folder, in the order of their names; of the folder itself, if it is a run.

    Raises:
        UserError: there is no such folder, or it cannot be read.
    """
    try:
        if (folder / SAVED_AS).is_file():
            return [_summary(folder)]
        found = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UserError(f"{folder} cannot be read ({reason}); name a folder with run folders, such as runs") from error
    return [_summary(each) for each in found]


def _summary(folder: Path) -> RunSummary:
    name, weight = folder.resolve().name, _bytes_below(folder)
    try:
        if not (folder / SAVED_AS).is_file():
            return RunSummary(name, f"no run folder: it has no {SAVED_AS}", bytes=weight)
        return _of_run(Run(folder), saved_recipe(folder), name, weight)
    except UserError as error:
        return RunSummary(name, f"broken: {error}", bytes=weight)
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        # Another program, or another version of potstill, wrote a file that looks like one of ours.
        return RunSummary(name, f"broken: a file has other content than it should ({error})", bytes=weight)


def _of_run(run: Run, recipe: Recipe, name: str, weight: int) -> RunSummary:
    manifests = {step: stored_manifest(run.path(step)) for step in all_steps(recipe)}
    finished = [manifest["finished"] for manifest in manifests.values() if manifest is not None]
    start = manifests[Step("student")]
    return RunSummary(
        name,
        _verdict(run, manifests),
        _student(recipe),
        None if start is None else start["summary"].get("parameters"),
        max(finished, default="").partition("T")[0],
        weight,
    )


def _verdict(run: Run, manifests: dict[Step, dict[str, Any] | None]) -> str:
    for step, manifest in manifests.items():
        if manifest is None:
            return f"{'stopped in' if run.unfinished(step) is not None else 'not finished: next is'} {step}"
    found = read_json(run.path("report") / COMPARISON)
    if found is None:
        return "its report has no figures; `potstill report` makes them"
    return str(found["verdict"]["headline"]).rstrip(".")


def _student(recipe: Recipe) -> str:
    count = len(recipe.variants)
    made = recipe.student.start.replace("_", " ")
    return made if count == 1 else f"{count} of {made}"


def _bytes_below(folder: Path) -> int:
    """The bytes of all files, each counted once; what cannot be read is left out."""
    return sum({(one.st_dev, one.st_ino): one.st_size for one in _files(folder)}.values())


def _files(folder: Path) -> Iterator[os.stat_result]:
    for at, _, names in os.walk(folder):
        for name in names:
            try:
                yield os.lstat(Path(at) / name)
            except OSError:
                continue
