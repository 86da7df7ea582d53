"""select: choose one snapshot of each training, of students and controls alike, by one rule.

Makes `select/student/[EXPERIMENT/]seed-N/student/` and `select/control/seed-N/student/`, plain Hugging Face folders,
and beside each `selection.json`: the scores of every snapshot on the items used for selection, and its distance from
the best. Items that are reported are never read here. If all snapshots tie, the last one is taken.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from potstill.console import say
from potstill.errors import UserError
from potstill.evaluation.snapshot_scores import (
    Figure,
    SnapshotMeter,
    folder_weights,
    score_weights,
    snapshot_meters,
    snapshot_name,
)
from potstill.files.atomic import atomic_folder, remove, write_json
from potstill.files.sealed import HASHES
from potstill.metrics.bootstrap import Resampling, Sums, bootstrap, paired
from potstill.metrics.selection import Choice, Criterion, choose, judged_by
from potstill.pipeline.work import Made, Work
from potstill.recipe.select import Average
from potstill.students.load_and_save import finish_student
from potstill.training.snapshots import Snapshot, average, whole_snapshots

Scores = dict[str, dict[str, Sums]]
"""The scores of each candidate, by its name and the metric. Among equal candidates, the first is taken."""


def run(work: Work) -> Made:
    """Select one of the snapshots of one training."""
    rule = work.recipe.select
    assert rule is not None
    trained = work.step.candidate
    assert trained is not None
    by_name = {f"step {one.step}": one for one in whole_snapshots(work.run.path(trained.step))}
    assert by_name, f"{trained.step} has kept nothing"
    measured = _SelectionScores(work, snapshot_meters(work, trained, ["selection"]))
    start = measured.scores(work.run.path("student") / "start", "start")
    criteria = [Criterion(metric, measured.better(metric), weight) for metric, weight in rule.by.items()]
    folders = {name: one.folder for name, one in by_name.items()}
    scores = {name: measured.scores(one.folder, snapshot_name(trained, one.step)) for name, one in by_name.items()}
    if rule.average is not None:
        name, folder = _averaged_snapshot(work, rule.average, by_name, scores, criteria)
        # The mean comes last, so it is not chosen if it only equals a snapshot.
        folders[name], scores[name] = folder, measured.scores(folder, f"{work.step}: {name}")
    resampling = Resampling(work.recipe.evaluate.confidence, work.recipe.evaluate.resamples)
    choice = choose(scores, criteria, list(by_name)[-1], resampling=resampling)
    _save_student(work, folders[choice.chosen])
    selection = work.folder / "selection.json"
    rows = {
        name: [measured.row(name, metric, sums, resampling) for metric, sums in each.items()]
        for name, each in {"start": start, **scores}.items()
    }
    write_json(selection, _selection_record(choice, rows, criteria))
    remove(work.folder / ".averaged")
    summary = _summary(choice, by_name)
    say(f"  {summary['made']}")
    if _is_no_better(scores[choice.chosen], start, criteria, resampling):
        say("  it is not better than the start beyond chance")
    return Made([work.folder / "student", selection], summary)


class _SelectionScores:
    """The scores of candidates by the metrics of the rule, on the items used for selection."""

    def __init__(self, work: Work, by: list[SnapshotMeter]) -> None:
        assert work.recipe.select is not None
        self._work, self._by, self._wanted = work, by, list(work.recipe.select.by)
        self._known: dict[str, Figure] = {}

    def scores(self, folder: Path, name: str) -> dict[str, Sums]:
        """The scores of one candidate, by metric."""
        figures = score_weights(self._work.run, folder_weights(self._work, folder, name), self._by)
        found = {figure.metric: figure for figure in figures if figure.split == "selection"}
        if missing := [metric for metric in self._wanted if metric not in found]:
            raise UserError(f"`select.by`: {missing[0]!r} is measured nowhere here; there are {', '.join(found)}")
        self._known = found
        return {metric: found[metric].sums for metric in self._wanted}

    def better(self, metric: str) -> Literal["lower", "higher"]:
        """Which direction of a metric is better."""
        direction = self._known[metric].better
        assert direction is not None, f"{metric} was checked before anything was run"
        return direction

    def row(self, name: str, metric: str, sums: Sums, resampling: Resampling) -> dict[str, Any]:
        """A candidate's score with its interval."""
        transform = self._known[metric].transform
        return bootstrap(name, metric, sums, transform=transform, resampling=resampling).to_dict()


def _averaged_snapshot(
    work: Work, wanted: Average, by_name: Mapping[str, Snapshot], scores: Scores, criteria: list[Criterion]
) -> tuple[str, Path]:
    """The mean of some snapshots: its name as a candidate, and its temporary folder."""
    kind, count = ("last", wanted.last) if wanted.last is not None else ("best", wanted.best)
    assert count is not None
    names = list(by_name)
    if count > len(names):
        raise UserError(
            f"`select.average.{kind}: {count}` is more than the {len(names)} snapshots of a training; give fewer, or "
            "keep more, `distil.snapshots`"
        )
    if kind == "best":
        judged = judged_by(scores, criteria)
        lower_is_better = len(criteria) > 1 or criteria[0].better == "lower"
        # Sorting is stable, so earlier snapshots win among equals. If all are equal, the last ones are taken.
        order = sorted(range(len(names)), key=lambda at: judged[at] if lower_is_better else -judged[at])
        names = [names[at] for at in sorted(order[:count])] if np.ptp(judged) else names
    folder = work.folder / ".averaged"
    remove(folder)
    average([by_name[name].folder for name in names[-count:]], folder)
    return f"mean of the {kind} {count}", folder


def _save_student(work: Work, chosen: Path) -> None:
    with atomic_folder(work.folder / "student") as partial:
        # This is a copy, so a user who needs room may remove the snapshots.
        shutil.copytree(chosen, partial, ignore=shutil.ignore_patterns(HASHES))
        finish_student(partial, work.run.path("student") / "start", work.recipe.student)
    assert work.step.candidate is not None
    if work.step.candidate.seed == work.recipe.seeds[0]:
        link = work.folder.parent / "student"
        remove(link)
        link.symlink_to(Path(work.folder.name) / "student", target_is_directory=True)


def _selection_record(
    choice: Choice, rows: dict[str, list[dict[str, Any]]], criteria: list[Criterion]
) -> dict[str, Any]:
    return {
        "by": {one.metric: one.weight for one in criteria},
        "better": {one.metric: one.better for one in criteria},
        "best": choice.best,
        "chosen": choice.chosen,
        "all_tie": choice.all_tie,
        "start": rows["start"],
        "candidates": [standing.to_dict() | {"rows": rows[standing.name]} for standing in choice.standings],
    }


def _is_no_better(
    chosen: dict[str, Sums], start: dict[str, Sums], criteria: list[Criterion], resampling: Resampling
) -> bool:
    """Whether no metric shows, beyond chance, that the chosen candidate is better than the start."""
    for one in criteria:
        sums = chosen[one.metric], start[one.metric]
        pair = paired(("chosen", "start"), one.metric, sums, resampling=resampling)
        if pair.beyond_chance and (pair.difference < 0) == (one.better == "lower"):
            return False
    return True


def _summary(choice: Choice, by_name: Mapping[str, Snapshot]) -> dict[str, Any]:
    tied = sum(standing.tied for standing in choice.standings)
    made = f"{choice.chosen} of {len(choice.standings)} candidates"
    if choice.all_tie:
        made += ", the last snapshot, because the metrics of `select.by` tell none of them apart"
    elif choice.chosen != choice.best:
        made += f", which ties with the best, {choice.best}"
    step = by_name[choice.chosen].step if choice.chosen in by_name else None
    return {"kept_step": step, "best": choice.best, "tied": tied, "made": made}
