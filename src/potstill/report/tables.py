"""The page's tables of figures: models as columns or, with several students, as rows."""

from typing import Any

from potstill.metrics.results import Paired, Result
from potstill.report import number_format
from potstill.report.data import CONTROL, START, STUDENT, TEACHER, Metric, Report, kind, students
from potstill.report.significance import JudgeDifference, adjusted_p, judge_of, key

MARKS = {"better": "✓", "worse": "✗", "different": "≠", "within chance": "≈", "too few to tell": "?"}


def figures(report: Report) -> dict[str, Any]:
    """Metrics as rows and models as columns, for a single student, with its differences from other models."""
    models = _models(report)
    others = list(dict.fromkeys(pair.b for pair in report.paired if pair.a == STUDENT))
    # The control first, because it decides, and a narrow page cuts what stands last.
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
        # With more than two differences beside the models' figures, readers would have to scroll sideways.
        "apart": len(others) > 2,
        "lines": lines,
        "n": _same([line["n"] for line in lines]),
    }


def matrix(report: Report) -> dict[str, Any]:
    """Models as rows and metrics as columns, for several students, with their differences from each other model."""
    metrics = [metric for metric in report.metrics if rows_of(report, metric)]
    rows = {(row.model, row.metric): row for row in report.rows}
    judge, p = judge_of(report), adjusted_p(report)
    others = list(dict.fromkeys(pair.b for pair in report.paired))
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
        "n": _same(counts),
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
    """All models: the four roles first, and students in their order."""
    order = (TEACHER, START, STUDENT, CONTROL) if len(students(report)) < 2 else (TEACHER, START, CONTROL, STUDENT)
    return _by_kind(list(dict.fromkeys(row.model for row in report.rows)), order)


def _by_kind(models: list[str], order: tuple[str, ...]) -> list[str]:
    return sorted(models, key=lambda model: order.index(kind(model)) if kind(model) in order else len(order))


def _units(rows: list[Result]) -> str:
    units = sorted({row.n for row in rows})
    return " to ".join(f"{n:,}" for n in dict.fromkeys((units[0], units[-1])))


def _same(counts: list[str]) -> str:
    return counts[0] if len(set(counts)) == 1 else ""


def _cell(row: Result | None, metric: Metric) -> dict[str, str] | None:
    return None if row is None else {"text": number_format.interval(row, metric), "seeds": _seeds(row, metric)}


def _pair_cell(
    pair: Paired | None, metric: Metric, judge: JudgeDifference, p: dict[str, float] | None = None
) -> dict[str, str] | None:
    if pair is None:
        return None
    judgement = judge(pair, metric)
    return {
        "text": number_format.difference_interval(pair, metric),
        "judgement": judgement,
        "mark": MARKS[judgement],
        "p": number_format.probability(p[key(pair)]) if p else "",
        "seeds": _seeds(pair, metric),
    }


def _seeds(figure: Result | Paired, metric: Metric) -> str:
    """The spread between seeds and the interval over units alone, as a text that can break only after a comma."""
    if figure.seeds is None:
        return ""
    said = number_format.spread(figure.seeds, metric)
    if figure.over_units is not None:
        said += f", over units alone {number_format.bounds(figure.over_units, metric)}"
    return said.replace(" ", "\N{NO-BREAK SPACE}").replace(",\N{NO-BREAK SPACE}", ", ")
