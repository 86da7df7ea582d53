"""The page's tables of figures: models as columns or, with several students, as rows.

A table has at most as many columns as a page of 1,024 pixels shows. What does not fit is in a second table.
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypeVar

from potstill.metrics.results import Paired, Result
from potstill.report import number_format
from potstill.report.data import CONTROL, START, STUDENT, TEACHER, Metric, Report, kind, students
from potstill.report.significance import JudgeDifference, adjusted_p, judge_of, key

T = TypeVar("T")

MOST_COLUMNS = 7
"""Columns of figures in one table."""
MOST_METRICS = 5
"""Metrics in one table whose first column has the names of models."""
MARKS = {"better": "✓", "worse": "✗", "different": "≠", "within chance": "≈", "too few to tell": "?"}


def table(report: Report) -> dict[str, Any]:
    """The table of a report's metrics: models are its columns if there is one student and all models fit."""
    few = len(students(report)) < 2 and len(_models(report)) <= MOST_COLUMNS
    return figures(report) if few else matrix(report)


def figures(report: Report) -> dict[str, Any]:
    """Metrics as rows and models as columns, for a single student, with its differences from other models."""
    models = _models(report)
    others = list(dict.fromkeys(pair.b for pair in report.paired if pair.a == STUDENT))
    # The control first, because it decides.
    others = _by_kind(others, (CONTROL, START, STUDENT, TEACHER))
    lines: list[dict[str, Any]] = []
    judge = judge_of(report)
    for metric in report.metrics:
        rows = {row.model: row for row in rows_of(report, metric)}
        if rows:
            pairs = [pair_of(report, metric, STUDENT, other) for other in others]
            lines.append(
                {
                    "metric": metric,
                    "n": _units(list(rows.values())),
                    "cells": [_cell(rows.get(model), metric) for model in models],
                    "pairs": [_pair_cell(pair, metric, judge) for pair in pairs],
                }
            )
    return {
        "models": models,
        "others": [number_format.minus(other) for other in others],
        "apart": len(models) + len(others) > MOST_COLUMNS,
        "lines": lines,
        "n": _same([line["n"] for line in lines]),
    }


def matrix(report: Report) -> dict[str, Any]:
    """Models as rows and metrics as columns, for several students, with their differences from each other model."""
    metrics = [metric for metric in report.metrics if rows_of(report, metric)]
    counts = [_units(rows_of(report, metric)) for metric in metrics]
    return {"parts": [_part(report, some) for some in split_evenly(metrics, MOST_METRICS)], "n": _same(counts)}


def split_evenly(every: Sequence[T], most: int) -> list[Sequence[T]]:
    """As few parts as possible of at most `most` items, and their sizes differ by one at most."""
    parts = -(-len(every) // most)
    ends = [len(every) * part // parts for part in range(parts + 1)] if parts else []
    return [every[start:end] for start, end in pairwise(ends)]


def _part(report: Report, metrics: Sequence[Metric]) -> dict[str, Any]:
    rows = {(row.model, row.metric): row for row in report.rows}
    judge, p = judge_of(report), adjusted_p(report)
    names = {metric.name for metric in metrics}
    others = list(dict.fromkeys(pair.b for pair in report.paired if pair.metric in names))
    groups = []
    for other in _by_kind(others, (CONTROL, START, STUDENT, TEACHER)):
        lines = [
            {
                "model": student,
                "cells": [_pair_cell(pair_of(report, metric, student, other), metric, judge, p) for metric in metrics],
            }
            for student in students(report)
        ]
        compared = [line for line in lines if any(line["cells"])]
        groups.append({"title": _minus(other, report), "lines": compared})
    counts = [_units(rows_of(report, metric)) for metric in metrics]
    return {
        "metrics": list(zip(metrics, counts, strict=True)),
        "lines": [
            {"model": model, "cells": [_cell(rows.get((model, metric.name)), metric) for metric in metrics]}
            for model in _models(report)
        ],
        "groups": groups,
    }


def rows_of(report: Report, metric: Metric) -> list[Result]:
    """Every model's result of a metric."""
    return [row for row in report.rows if row.metric == metric.name]


def pair_of(report: Report, metric: Metric, student: str, other: str) -> Paired | None:
    """A student's difference from another model; None if it was not computed."""
    found = [pair for pair in report.paired if (pair.a, pair.b, pair.metric) == (student, other, metric.name)]
    return found[0] if found else None


def _minus(other: str, report: Report) -> str:
    name = {CONTROL: "the control", START: "the student before training"}.get(other, number_format.inside(other))
    return f"Minus {name}" + (", whose teacher spoke about other questions" if other in report.placebos else "")


def _models(report: Report) -> list[str]:
    """All models: the four roles first, and students in their order. What decides comes first where it could be cut."""
    order = (STUDENT, CONTROL, TEACHER, START) if len(students(report)) < 2 else (TEACHER, START, CONTROL, STUDENT)
    return _by_kind(list(dict.fromkeys(row.model for row in report.rows)), order)


def _by_kind(models: list[str], order: tuple[str, ...]) -> list[str]:
    return sorted(models, key=lambda model: order.index(kind(model)) if kind(model) in order else len(order))


def _units(rows: list[Result]) -> str:
    units = sorted({row.n for row in rows})
    return " to ".join(f"{n:,}" for n in dict.fromkeys((units[0], units[-1])))


def _same(counts: list[str]) -> str:
    return counts[0] if len(set(counts)) == 1 else ""


def _cell(row: Result | None, metric: Metric) -> dict[str, str] | None:
    if row is None:
        return None
    value, bounds = number_format.interval(row, metric).split(" ", 1)
    return {"value": value, "bounds": bounds, "seeds": _seeds(row, metric)}


def _pair_cell(
    pair: Paired | None, metric: Metric, judge: JudgeDifference, p: dict[str, float] | None = None
) -> dict[str, str] | None:
    if pair is None:
        return None
    judgement = judge(pair, metric)
    value, bounds = number_format.difference_interval(pair, metric).split(" ", 1)
    return {
        "value": value,
        "bounds": bounds,
        "judgement": judgement,
        "mark": MARKS[judgement],
        "p": number_format.probability(p[key(pair)]) if p else "",
        "seeds": _seeds(pair, metric),
    }


def _seeds(figure: Result | Paired, metric: Metric) -> str:
    """The spread between seeds and the interval over units alone, as a text that breaks only between its parts."""
    if figure.seeds is None:
        return ""
    count, *spread = re.split(": |, ", number_format.spread(figure.seeds, metric))
    said = [f"{_unbroken(count)}: {_unbroken(spread[0])}", *map(_unbroken, spread[1:])]
    if figure.over_units is not None:
        said.append(f"over units alone {_unbroken(number_format.bounds(figure.over_units, metric))}")
    return ", ".join(said)


def _unbroken(text: str) -> str:
    return text.replace(" ", "\N{NO-BREAK SPACE}")
