"""Snapshot curves: the scores of a run's snapshots over each training, measured afterwards or as they appear.

`snapshots/curves.json` of the run has every figure with its interval. No stage makes this file: a second process may
measure while the first one trains.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from potstill.console import table
from potstill.errors import UserError
from potstill.evaluation.selection_split import Split
from potstill.evaluation.snapshot_scores import (
    CURVES,
    FOLDER,
    SnapshotMeter,
    Weights,
    folder_weights,
    score_weights,
    snapshot_meters,
    snapshot_name,
    teacher_weights,
)
from potstill.files.atomic import write_json
from potstill.metrics.bootstrap import Resampling, bootstrap
from potstill.pipeline.cleaning import check_there
from potstill.pipeline.graph import BY_NAME, steps_of
from potstill.pipeline.precision import with_precision
from potstill.pipeline.run_folder import Run
from potstill.pipeline.work import Work
from potstill.recipe.candidates import Candidate, trained_candidates
from potstill.recipe.load import saved_recipe
from potstill.recipe.step import Step
from potstill.training.snapshots import select_snapshots, whole_snapshots

SECONDS_BETWEEN_LOOKS = 5.0
STAGES_NEEDED = ("teachers", "tokenizer", "corpus", "pretrain", "student", "strategies")
"""The stages whose outputs are needed to measure snapshots."""
SPLITS: tuple[Split, ...] = ("selection", "reporting")
SPLIT_LABELS = {"selection": "validation", "reporting": "held out"}


def measure(folder: Path, which: str, *, watch: bool = False) -> list[dict[str, Any]]:
    """Measure snapshots of a run, its teachers and its start. Known scores are not measured again.

    Args:
        folder: the run.
        which: the snapshots of each training, as :func:`potstill.training.snapshots.select_snapshots` takes them.
        watch: continue until all trainings have ended.

    Returns:
        One row for each model, metric and split: `model`, `seed`, `step` (0 for the start, None for teachers),
        `metric`, `split`, `better`, `value`, `low`, `high`, `n`.

    Raises:
        UserError: the folder is no run, or it has no such snapshots.
    """
    run = Run(folder)
    recipe = with_precision(saved_recipe(folder), run)
    if recipe.distil.snapshots is None:
        raise UserError(f"{folder} keeps no snapshots; say how many in its recipe, `distil.snapshots: 30`")
    steps = [step for name in STAGES_NEEDED for step in steps_of(recipe, BY_NAME[name])]
    if missing := [step for step in steps if run.manifest(step) is None]:
        raise UserError(f"{folder}: snapshots are measured with what `{missing[0]}` makes, which is not done; wait")
    check_there(run, Step("teachers"))
    work = Work(recipe, run, Step("evaluate"))
    while True:
        # Check this first, so that a snapshot written in between is measured in the next round.
        ended = all(run.manifest(one.step) is not None for one in trained_candidates(recipe))
        rows = _all_rows(work, which, waits=watch and not ended)
        write_json(run.folder / FOLDER / CURVES, {"confidence": recipe.evaluate.confidence, "rows": rows})
        if ended or not watch:
            break
        time.sleep(SECONDS_BETWEEN_LOOKS)
    if not any(row["step"] for row in rows):
        raise UserError(f"{folder} has no whole snapshot yet; `--watch` waits for them")
    return rows


def _all_rows(work: Work, which: str, *, waits: bool) -> list[dict[str, Any]]:
    candidates = trained_candidates(work.recipe)
    # With questions, each sample set has a validation split of its own, so teachers and start have only the other.
    reported = snapshot_meters(work, candidates[0], ["reporting"] if work.recipe.asks else SPLITS)
    found: list[dict[str, Any]] = []
    for teacher, weights in teacher_weights(work).items():
        found += _rows(work, weights, reported, teacher, None)
    start = folder_weights(work, work.run.path("student") / "start", "start")
    found += _rows(work, start, reported, Candidate("start"), 0)
    for trained in candidates:
        folder = work.run.path(trained.step)
        chosen = select_snapshots(which, whole_snapshots(folder), folder, waits=waits)
        own = snapshot_meters(work, trained) if chosen else []
        for one in chosen:
            weights = folder_weights(work, one.folder, snapshot_name(trained, one.step))
            found += _rows(work, weights, own, trained, one.step)
    return found


def _rows(
    work: Work, weights: Weights, by: Sequence[SnapshotMeter], candidate: Candidate, step: int | None
) -> list[dict[str, Any]]:
    resampling = Resampling(work.recipe.evaluate.confidence, work.recipe.evaluate.resamples)
    rows = []
    for figure in score_weights(work.run, weights, by):
        row = bootstrap(candidate.label, figure.metric, figure.sums, transform=figure.transform, resampling=resampling)
        said = {"metric": figure.metric, "split": figure.split, "better": figure.better}
        figures = {"value": row.value, "low": row.low, "high": row.high, "n": row.n}
        rows.append({"model": candidate.label, "seed": candidate.seed, "step": step, **said, **figures})
    return rows


def curves_table(rows: list[dict[str, Any]]) -> str:
    """The rows as a table: one line for each model and step, one column for each metric and split."""
    columns = list(dict.fromkeys((row["metric"], row["split"]) for row in rows))
    lines: dict[tuple[Any, ...], dict[tuple[str, str], str]] = {}
    for row in rows:
        figure = f"{row['value']:.4g} [{row['low']:.4g}, {row['high']:.4g}]"
        lines.setdefault((row["model"], row["seed"], row["step"]), {})[row["metric"], row["split"]] = figure
    head = ["model", "seed", "step", *(f"{metric}, {SPLIT_LABELS[split]}" for metric, split in columns)]
    body = [
        [*("" if part is None else str(part) for part in line), *(figures.get(column, "") for column in columns)]
        for line, figures in lines.items()
    ]
    return table([head, *body])
