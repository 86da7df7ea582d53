"""Entries: the figures of every exported file of a run, in one list for the report and the card."""

from pathlib import Path
from typing import Any

from potstill.files.atomic import read_json, write_json
from potstill.pipeline.graph import BY_NAME, steps_of
from potstill.pipeline.run_folder import Run
from potstill.recipe import Recipe

ENTRY, SPEED, LIST = "export.json", "speed.json", "exports.json"
SPEEDS = ("decode_tokens_per_second", "decode_ratio")
"""The figures that differ between two measurements of one file."""


def write_entry(folder: Path, entry: dict[str, Any]) -> list[Path]:
    """Write the figures of a file, those of speed apart. Returns the output: the figures that are always the same."""
    write_json(folder / ENTRY, {key: value for key, value in entry.items() if key not in SPEEDS})
    write_json(folder / SPEED, {key: entry[key] for key in SPEEDS if key in entry})
    return [folder / ENTRY]


def entries(recipe: Recipe, run: Run) -> list[dict[str, Any]]:
    """The entries that a recipe asks for and that are there, in its order."""
    folders = [run.path(step) for step in steps_of(recipe, BY_NAME["export"])]
    there = [folder for folder in folders if (folder / ENTRY).is_file()]
    return [read_json(folder / ENTRY) | (read_json(folder / SPEED) or {}) for folder in there]


def write_list(recipe: Recipe, run: Run) -> None:
    """Write all entries as `export/exports.json`."""
    write_json(run.path("export") / LIST, entries(recipe, run))
