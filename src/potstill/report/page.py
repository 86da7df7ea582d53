"""The report: one dataclass in, one self-contained HTML page out.

The page needs no network and no library: charts are static SVG, styles and the little script for cards are inlined.
"""

from functools import reduce
from importlib import resources
from operator import add
from typing import Any
from urllib.parse import quote

from potstill.console import duration, size
from potstill.report import charts, wording
from potstill.report.data import CONTROL, LABELS, START, STUDENT, TEACHER, Curve, Metric, Report, Token
from potstill.report.verdict import judge, verdict
from potstill.scoring.emissions import Cost
from potstill.scoring.statistics import Paired, Row

ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><path d="M5 28h16l-2-12a6 6 0 0 1-1-6l1-6h-8l1 6a6 6 '
    '0 0 1-1 6z" fill="#b4530a"/><path d="M18 6h7l4 18" fill="none" stroke="#0b62a4" stroke-width="3"/></svg>'
)
MARKS = {"better": "✓", "worse": "✗", "different": "≠", "within chance": "≈"}
LOGGED = {"step", "tokens", "loss", "learning_rate"}
"""What a point of a curve holds besides the terms of its loss."""


def render(report: Report) -> str:
    """The whole page as a string, to be written as UTF-8."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "count": wording.count,
        "size": size,
        "duration": duration,
        "energy": wording.energy,
        "carbon": wording.carbon,
    }
    most = _most(report)
    panels = [_panel(report, metric) for metric in report.metrics if _rows(report, metric)]
    context = {
        "report": report,
        "verdict": verdict(report),
        "labels": LABELS,
        "percent": f"{report.confidence:.0%}",
        "icon": quote(ICON),
        "panels": [panel | {name: Markup(panel[name]) for name in ("intervals", "differences")} for panel in panels],
        "has_differences": any(panel["differences"] for panel in panels),
        "compared": {CONTROL: "the control", START: "the student before"}[_main_other(report)],
        "faint": any(row.seeds for row in report.rows),
        "table": _table(report),
        "terms": [term | {"svg": Markup(term["svg"])} for term in _terms(report)],
        "curve_models": list(dict.fromkeys(run.model for run in report.curves)),
        "averaged": any(len(run.points) > charts.POINTS for run in report.curves),
        "passages": [_passage(passage.title, passage.tokens, most) for passage in report.passages],
        "expected": [[_expected(token) for token in passage.tokens] for passage in report.passages],
        "most": most,
        "total": reduce(add, (stage.cost for stage in report.stages)) if report.stages else Cost(0, None, None, ""),
        "css": Markup(_file("page.css")),
        "js": Markup(_file("page.js")),
    }
    return environment.from_string(_file("template.html")).render(context)


def _file(name: str) -> str:
    return resources.files("potstill.report").joinpath(name).read_text(encoding="utf-8")


def _rows(report: Report, metric: Metric) -> list[Row]:
    return [row for row in report.rows if row.metric == metric.name]


def _pair(report: Report, metric: Metric, other: str) -> Paired | None:
    found = [pair for pair in report.paired if (pair.a, pair.b, pair.metric) == (STUDENT, other, metric.name)]
    return found[0] if found else None


def _main_other(report: Report) -> str:
    """The model the student is drawn against: the control, or without one the start."""
    return CONTROL if any(pair.b == CONTROL for pair in report.paired) else START


def _panel(report: Report, metric: Metric) -> dict[str, Any]:
    pair = _pair(report, metric, _main_other(report))
    return {
        "metric": metric,
        "intervals": charts.intervals(metric, _rows(report, metric)),
        "differences": charts.differences(metric, [pair]) if pair else "",
    }


def _table(report: Report) -> dict[str, Any]:
    known = [model for model in (TEACHER, START, STUDENT, CONTROL) if any(row.model == model for row in report.rows)]
    models = list(dict.fromkeys([*known, *(row.model for row in report.rows)]))
    others = list(dict.fromkeys(pair.b for pair in report.paired if pair.a == STUDENT))
    lines = []
    for metric in report.metrics:
        rows = {row.model: row for row in _rows(report, metric)}
        if rows:
            pairs = [_pair(report, metric, other) for other in others]
            units = sorted({row.n for row in rows.values()})
            lines.append(
                {
                    "metric": metric,
                    "n": " to ".join(f"{n:,}" for n in dict.fromkeys((units[0], units[-1]))),
                    "cells": [_cell(rows[model], metric) if model in rows else None for model in models],
                    "pairs": [_pair_cell(pair, metric) if pair else None for pair in pairs],
                }
            )
    same = {line["n"] for line in lines}
    return {
        "models": models,
        "others": [wording.minus(other) for other in others],
        # More than two of them beside the models' own figures, and the page would have to be moved sideways to be read.
        "apart": len(others) > 2,
        "lines": lines,
        "n": same.pop() if len(same) == 1 else "",
    }


def _cell(row: Row, metric: Metric) -> dict[str, str]:
    return {"text": wording.interval(row, metric), "seeds": _seeds(row, metric)}


def _pair_cell(pair: Paired, metric: Metric) -> dict[str, str]:
    judgement = judge(pair, metric)
    return {
        "text": wording.difference_interval(pair, metric),
        "judgement": judgement,
        "mark": MARKS[judgement],
        "seeds": _seeds(pair, metric),
    }


def _seeds(figure: Row | Paired, metric: Metric) -> str:
    """The spread between seeds, in a form that breaks into two lines at its comma and nowhere else."""
    if figure.seeds is None:
        return ""
    return wording.spread(figure.seeds, metric).replace(" ", "\N{NO-BREAK SPACE}").replace(",\N{NO-BREAK SPACE}", ", ")


def _terms(report: Report) -> list[dict[str, str]]:
    """The logged quantities worth a panel: terms that runs share, other terms, what is minimised, learning rate."""
    names = list(dict.fromkeys(name for run in report.curves for point in run.points for name in point))
    runs = {name: [run for run in report.curves if any(name in point for point in run.points)] for name in names}
    terms = sorted((name for name in names if name not in LOGGED), key=lambda name: -len({r.model for r in runs[name]}))
    about = {name: f"in the loss of {_listed(runs[name])}" for name in terms}
    if len(terms) != 1:
        about["loss"] = "the weighted sum of its own terms for each model" if terms else "as it was minimised"
    about["learning_rate"] = "the same for all" if _same(runs.get("learning_rate", [])) else ""
    return [
        {
            "label": name.replace("_", " ").capitalize().replace("kl", "KL"),
            "about": told,
            "svg": charts.curve(name, runs[name]),
        }
        for name, told in about.items()
        if runs.get(name)
    ]


def _listed(runs: list[Curve]) -> str:
    return " and ".join(dict.fromkeys(LABELS.get(run.model, run.model).lower() for run in runs))


def _same(runs: list[Curve]) -> bool:
    return len({tuple(point.get("learning_rate") for point in run.points) for run in runs}) == 1


def _most(report: Report) -> float:
    """The KL that is coloured fully: the 95th percentile, so that one odd token does not pale all others."""
    found = sorted(token.kl for passage in report.passages for token in passage.tokens if token.kl is not None)
    return max(found[int(0.95 * (len(found) - 1))], 0.1) if found else 1.0


def _passage(title: str, tokens: tuple[Token, ...], most: float) -> dict[str, Any]:
    drawn = [
        {
            "shown": _visible(token.text),
            "blank": not token.text.strip(),
            "heat": None if token.kl is None else round(100 * min(1.0, max(0.0, token.kl) / most)),
        }
        for token in tokens
    ]
    first = next((place for place, token in enumerate(drawn) if token["heat"] is not None), 0)
    return {"title": title, "tokens": drawn, "first": first}


def _visible(text: str) -> str:
    """Text as text, with what cannot be seen made visible: line ends, tabs, and tokens that are nothing but spaces."""
    if text.strip(" "):
        return text.replace("\r", "␍").replace("\n", "↵\n").replace("\t", "⇥\t")
    return text if text == " " else "␣" * len(text)


def _expected(token: Token) -> dict[str, Any] | None:
    if token.kl is None:
        return None
    return {
        "text": token.text,
        "kl": round(token.kl, 3),
        "teacher_nll": token.teacher_nll,
        "student_nll": token.student_nll,
        "teacher": [[text, round(chance, 5)] for text, chance in token.teacher_top5],
        "student": [[text, round(chance, 5)] for text, chance in token.student_top5],
    }
