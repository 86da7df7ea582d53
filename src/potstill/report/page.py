"""Render a report as one self-contained HTML page.

The page needs no network and no library: charts are static SVG, and the styles and the script are inlined.
"""

from dataclasses import replace
from functools import partial, reduce
from importlib import resources
from operator import add
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from potstill.console import duration, size
from potstill.cost import Cost
from potstill.report import charts, cost_and_gain, exports, number_format, on_policy, snapshot_curves, tables
from potstill.report.cost_and_gain import main_metric
from potstill.report.data import CONTROL, START, STUDENT, Curve, Metric, Report, StageCost, Token, kind, students
from potstill.report.first_screen import key_figures
from potstill.report.significance import judge_of
from potstill.report.token_colours import coloured, full_colour
from potstill.report.verdict import verdict
from potstill.report.warnings import few_units

if TYPE_CHECKING:
    from jinja2 import Environment

ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><path d="M5 28h16l-2-12a6 6 0 0 1-1-6l1-6h-8l1 6a6 6 '
    '0 0 1-1 6z" fill="#b4530a"/><path d="M18 6h7l4 18" fill="none" stroke="#0b62a4" stroke-width="3"/></svg>'
)
LOGGED = {"step", "tokens", "loss", "learning_rate"}
"""The keys of a curve's point that are not loss terms."""
LONG = 600
"""Longer texts of prompts and answers are folded. Readers can open them."""
MOST_STEPS = 30
"""The maximum number of lines of the table of costs. With more steps, each stage is one line that readers can open."""


def render(report: Report) -> str:
    """The whole page as a string; write it as UTF-8."""
    from markupsafe import Markup

    most, who = _most(report), students(report)
    looks = charts.looks_of(who)
    panels = [
        _panel(report, metric, looks)
        for metric in report.metrics
        if not metric.baseline and tables.rows_of(report, metric)
    ]
    drawn = list(dict.fromkeys(run.model for run in report.curves))
    several, judged = len(who) > 1, verdict(report)
    drawn_panels = [panel | {name: Markup(panel[name]) for name in ("intervals", "differences")} for panel in panels]
    main = main_metric(report)
    context = {
        "report": report,
        "verdict": judged,
        "key_figures": [*judged.figures, *key_figures(report)],
        "main_panel": next((panel for panel in drawn_panels if panel["metric"] == main), None),
        "label": number_format.label,
        "kind": kind,
        "percent": f"{report.confidence:.0%}",
        "icon": quote(ICON),
        "panels": [panel for panel in drawn_panels if panel["metric"] != main],
        "has_differences": any(panel["differences"] for panel in panels),
        "compared": {CONTROL: "the control", START: "the student before"}[_main_other(report)],
        "faint": any(row.seeds for row in report.rows),
        "warnings": (*report.warnings, *few_units(report)),
        "few": any(pair.too_few for pair in report.paired),
        "students": len(who),
        "colours": {model: charts.look(model, looks).colour for model in who} if several else {},
        "table": tables.table(report),
        "turns": _table_apart(report, report.turns),
        "parts": _table_apart(report, report.parts),
        "long": LONG,
        "terms": [term | {"svg": Markup(term["svg"])} for term in _terms(report, looks)],
        "costs_and_gains": cost_and_gain.table(report),
        "gains": [one | {"svg": Markup(one["svg"])} for one in _gains(report, looks)],
        "trajectories": [one | {"svg": Markup(one["svg"])} for one in snapshot_curves.panels(report, looks)],
        "on_policy": on_policy.section(report.on_policy, looks),
        "exports": exports.table(report.exports),
        "curve_models": drawn,
        "samples": {model: Markup(charts.sample(model, looks)) for model in drawn} if several else {},
        "averaged": any(len(run.points) > charts.POINTS for run in report.curves),
        "of_seeds": several and len({run.seed for run in report.curves}) > 1,
        "passages": [_passage(passage.title, passage.tokens, most) for passage in report.passages],
        "expected": [[_expected(token) for token in passage.tokens] for passage in report.passages],
        "of_spans": any(passage.of_spans for passage in report.passages),
        "most": most,
        "stages": _stages(report.stages),
        "foreseen": [stage for stage in report.stages if stage.foreseen is not None],
        "total": reduce(add, (stage.cost for stage in report.stages)) if report.stages else Cost(0, None, None, ""),
        "css": Markup(_file("page.css")),
        "js": Markup(_file("page.js")),
    }
    return environment().get_template("template.html").render(context)


def environment() -> "Environment":
    """The templates of this package, with its formats of numbers."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("potstill.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": number_format.count,
        "size": size,
        "sizes": partial(number_format.forecast, show=size),
        "energies": partial(number_format.forecast, show=number_format.energy),
        "durations": partial(number_format.forecast, show=duration),
        "duration": duration,
        "energy": number_format.energy,
        "carbon": number_format.carbon,
    }
    return environment


def _file(name: str) -> str:
    return resources.files("potstill.report").joinpath(name).read_text(encoding="utf-8")


def _main_other(report: Report) -> str:
    """The model that students are compared with in charts: the control or, without one, the start."""
    return CONTROL if any(pair.b == CONTROL for pair in report.paired) else START


def _table_apart(report: Report, metrics: tuple[Metric, ...]) -> dict[str, Any] | None:
    """The table of metrics that have a table of their own, if any of them was measured."""
    apart = replace(report, metrics=metrics)
    if not any(tables.rows_of(report, metric) for metric in metrics):
        return None
    return tables.table(apart)


def _panel(report: Report, metric: Metric, looks: dict[str, charts.Look]) -> dict[str, Any]:
    found = [tables.pair_of(report, metric, student, _main_other(report)) for student in students(report) or [STUDENT]]
    pairs = [pair for pair in found if pair]
    return {
        "metric": metric,
        "intervals": charts.intervals(metric, tables.rows_of(report, metric), looks),
        "differences": charts.differences(metric, pairs, judge_of(report)) if pairs else "",
    }


def _gains(report: Report, looks: dict[str, charts.Look]) -> list[dict[str, str]]:
    metric = main_metric(report)
    if report.speed is None or metric is None:
        return []
    return cost_and_gain.charts(cost_and_gain.points(report.rows, metric, report.speed, looks), metric)


def _stages(stages: tuple[StageCost, ...]) -> list[tuple[StageCost, list[StageCost]]]:
    """The lines of the table of costs, each with its steps; a line that is a single step has none."""
    if len(stages) <= MOST_STEPS:
        return [(stage, []) for stage in stages]
    groups: dict[str, list[StageCost]] = {}
    for stage in stages:
        groups.setdefault(stage.name.partition("/")[0], []).append(stage)
    return [(steps[0], []) if len(steps) == 1 else (_together(name, steps), steps) for name, steps in groups.items()]


def _together(name: str, steps: list[StageCost]) -> StageCost:
    sizes, tokens = ([getattr(step, what) for step in steps] for what in ("bytes", "tokens"))
    return StageCost(
        name,
        f"{len(steps)} steps",
        reduce(add, (step.cost for step in steps)),
        None if None in sizes else sum(sizes),
        None if None in tokens else sum(tokens),
        max(step.attempts for step in steps),
    )


def _terms(report: Report, looks: dict[str, charts.Look]) -> list[dict[str, str]]:
    """The panels of logged quantities: shared loss terms, other terms, the minimised loss, the learning rate."""
    names = list(dict.fromkeys(name for run in report.curves for point in run.points for name in point))
    runs = {name: [run for run in report.curves if any(name in point for point in run.points)] for name in names}
    terms = sorted((name for name in names if name not in LOGGED), key=lambda name: -len({r.model for r in runs[name]}))
    about = {name: f"in the loss of {_whose(runs[name], report)}" for name in terms}
    if len(terms) != 1:
        about["loss"] = "the weighted sum of its own terms for each model" if terms else "as it was minimised"
    about["learning_rate"] = "the same for all" if _same(runs.get("learning_rate", [])) else ""
    return [
        {
            "label": name.replace("_", " ").capitalize().replace("kl", "KL"),
            "about": told,
            "svg": charts.curve(name, runs[name], looks),
        }
        for name, told in about.items()
        if runs.get(name)
    ]


def _whose(runs: list[Curve], report: Report) -> str:
    models = list(dict.fromkeys(run.model for run in runs))
    every = list(dict.fromkeys(run.model for run in report.curves if kind(run.model) == STUDENT))
    if len(every) > 1 and set(every) <= set(models):
        return " and ".join(["every student", *(number_format.inside(model) for model in models if model not in every)])
    return " and ".join(map(number_format.inside, models))


def _same(runs: list[Curve]) -> bool:
    return len({tuple(point.get("learning_rate") for point in run.points) for run in runs}) == 1


def _most(report: Report) -> float:
    return full_colour(token.apart for passage in report.passages for token in passage.tokens)


def _passage(title: str, tokens: tuple[Token, ...], most: float) -> dict[str, Any]:
    drawn = [coloured(token.text, token.apart, most) for token in tokens]
    first = next((place for place, token in enumerate(drawn) if token["heat"] is not None), 0)
    return {"title": title, "tokens": drawn, "first": first}


def _expected(token: Token) -> dict[str, Any] | None:
    if token.excess is not None:
        nll = {"teacher_nll": token.teacher_nll, "student_nll": token.student_nll}
        return {"text": token.text, "excess": round(token.excess, 3), **nll}
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
