"""Warnings beside the verdict: choices between equals, and measurements on too few units."""

from collections.abc import Mapping, Sequence

from potstill.metrics.results import FEWEST_UNITS
from potstill.report import number_format
from potstill.report.data import Report


def all_tied(by: Sequence[str], trainings: Mapping[str, Sequence[int]]) -> tuple[str, ...]:
    """A sentence about the trainings whose snapshots all tied.

    Args:
        by: the metrics of the selection.
        trainings: for each model, its seeds in which all snapshots tied. Empty if there is none.
    """
    if not trainings:
        return ()
    each = [f"{model} (seed {', '.join(map(str, seeds))})" for model, seeds in trainings.items()]
    whose = number_format.listed(each)
    return (
        f"Selection: by {number_format.listed(list(by))}, no snapshot of {whose} differs from another beyond chance, "
        "so the last one was kept. Another metric or more items may show a difference.",
    )


def ended_early(trainings: Mapping[str, str]) -> tuple[str, ...]:
    """A sentence about each training that ended before its last step.

    Args:
        trainings: why, for each of them by its name on the page.
    """
    return tuple(
        f"On-policy: the training of {name} ended early, with the weights from before. {why}"
        for name, why in trainings.items()
    )


def trials_tied(trials: int) -> str:
    """The sentence about a search whose trials all had the same loss."""
    return (
        f"Search: the {trials} trials have the same validation loss, so the setting stayed as it was given. Longer "
        "trials may show a difference."
    )


def few_units(report: Report) -> tuple[str, ...]:
    """A sentence for each small number of units on which metrics were measured.

    Of single turns and of each teacher's items, the table tells the number.
    """
    labels = {metric.name: number_format.metric_name(metric) for metric in report.metrics}
    apart = {metric.name for metric in (*report.turns, *report.parts)}
    counts: dict[int, dict[str, None]] = {}
    for row in report.rows:
        if row.n < FEWEST_UNITS and row.metric not in apart:
            counts.setdefault(row.n, {})[labels.get(row.metric, row.metric)] = None
    return tuple(
        f"Only {n} units for {number_format.listed(list(names))}: fewer than {FEWEST_UNITS} are too few to tell a "
        "difference from chance."
        for n, names in counts.items()
    )
