"""The page's charts: Vega-Lite specifications, drawn as static SVG while the page is made.

With static SVG the page has some hundred kilobytes and is readable without JavaScript, in print and by screen readers.
Colours are the page's CSS variables, so that charts follow its dark mode. The ``description`` of a mark becomes its
aria-label, and page.js shows it on hover.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from potstill.metrics.results import Paired, Result
from potstill.report import number_format
from potstill.report.data import CONTROL, START, STUDENT, TEACHER, Curve, Metric, kind
from potstill.report.significance import JudgeDifference, judge

Spec = dict[str, Any]

VEGA_LITE = "5.20"
"""The version of the Vega-Lite grammar for these specifications; vl-convert ships several."""

WIDTH, LEFT, RIGHT = 340, 108, 58
"""Widths of one panel in px: the whole, the margin with names, the margin with values. It fits a phone unscaled."""

ROW = 24
POINTS = 100
"""The maximum number of points of a curve; longer logs are averaged."""

NUMBER = ",.4~r"
RATE = {"labelExpr": "datum.value ? format(datum.value, '.2~e') : '0'"}

ORDER = (TEACHER, STUDENT, CONTROL, START)
HUES = 7
"""The number of colours for named students; page.css has as many, light and dark."""
PATTERNS = ((), (9, 3), (2, 2), (9, 3, 2, 3), (9, 2, 2, 2, 2, 2))
"""Dashes for named students. 7 and 5 have no common divisor, so that there are 35 pairs of a colour and a pattern. Two
neighbours differ in both, so that they can be told apart in grey print."""


@dataclass(frozen=True)
class Look:
    """How a model is drawn: a CSS colour, and the dashes of its line."""

    colour: str
    dash: tuple[int, ...] = ()


LOOKS = {
    TEACHER: Look("var(--teacher)"),
    START: Look("var(--start)"),
    STUDENT: Look("var(--student)"),
    CONTROL: Look("var(--control)", (5, 3)),
}
OTHER = Look("var(--ink-2)")


def looks_of(students: Sequence[str]) -> dict[str, Look]:
    """The look of every model of a report; several students have a look each."""
    if len(students) < 2:
        return LOOKS
    named = {
        student: Look(f"var(--s{place % HUES})", PATTERNS[place % len(PATTERNS)])
        for place, student in enumerate(students)
    }
    return LOOKS | named


def look(model: str, looks: Mapping[str, Look]) -> Look:
    """The look of a model; all teachers share one."""
    return looks.get(model) or (LOOKS[TEACHER] if kind(model) == TEACHER else OTHER)


def sample(model: str, looks: Mapping[str, Look]) -> str:
    """A piece of a model's line, for the legend."""
    drawn = look(model, looks)
    return (
        '<svg class="sample" width="30" height="8" viewBox="0 0 30 8" aria-hidden="true"><line x1="0" y1="4" x2="30" '
        f'y2="4" stroke="{drawn.colour}" stroke-width="2" stroke-dasharray="{" ".join(map(str, drawn.dash))}"/></svg>'
    )


def intervals(metric: Metric, rows: Sequence[Result], looks: Mapping[str, Look] = LOOKS) -> str:
    """A dot with its interval for each model; names on the left, values on the right."""
    ordered = sorted(rows, key=lambda row: ORDER.index(kind(row.model)) if kind(row.model) in ORDER else len(ORDER))
    low, high = domain(ordered)
    data: list[Spec] = []
    for place, row in enumerate(ordered):
        beyond = row.value > high or row.value < low
        data.append(
            {
                "y": ROW * (place + 0.5),
                "name": number_format.label(row.model),
                "said": number_format.value(row, metric),
                "told": f"{number_format.label(row.model)}: {metric.label} {number_format.interval(row, metric)}",
                "colour": look(row.model, looks).colour,
                "beyond": beyond,
                "arrow": "triangle-right" if row.value > high else "triangle-left",
                "side": (high if row.value > high else low) if beyond else row.value,
                "fade": high - (high - low) * 0.3 if row.value > high else low + (high - low) * 0.3,
                "value": None if beyond else row.value,
                # An interval may be longer than the axis; it is cut at the edge of the chart.
                "low": None if beyond else max(row.low, low),
                "high": None if beyond else min(row.high, high),
                "seeds": list(row.seeds.values) if row.seeds and not beyond else [],
            }
        )
    near, far = {"filter": "!datum.beyond"}, {"filter": "datum.beyond"}
    seeds: list[Spec] = [near, {"flatten": ["seeds"]}]
    x = {"scale": {"domain": [low, high], "nice": False, "zero": False}, "axis": _axis(metric)}
    left = _left(data)
    layers: list[Spec] = [
        _names("name", "colour", left),
        _values("said", left),
        _rule("low", "high", x, transform=[near]),
        _dot("seeds", x, size=22, opacity=0.5, transform=seeds),
        _dot("value", x, transform=[near]),
        _rule("fade", "side", x, dash=[2, 4], transform=[far]),
        _dot("side", x, shape="arrow", transform=[far]),
    ]
    return draw(_panel(layers, data, left))


def differences(metric: Metric, pairs: Sequence[Paired], judged: JudgeDifference = judge) -> str:
    """A dot with its interval for each student minus another model, with a line at zero.

    The label of a single student names the model that it is compared with. Several students are all compared with the
    same model: their labels are their own names, and the page names the model.
    """
    data: list[Spec] = []
    for place, pair in enumerate(pairs):
        judgement, name = judged(pair, metric), number_format.minus(pair.b, pair.a)
        data.append(
            {
                "y": ROW * (place + 0.5),
                "name": name if pair.a == STUDENT else number_format.label(pair.a),
                "said": number_format.difference(pair, metric).replace(" points", " pp"),
                "told": f"{name}: {number_format.difference_interval(pair, metric)}, {judgement}",
                "colour": {"better": "var(--good)", "worse": "var(--bad)"}.get(judgement, "var(--ink-2)"),
                "value": pair.difference,
                "low": pair.low,
                "high": pair.high,
                "seeds": list(pair.seeds.values) if pair.seeds else [],
            }
        )
    reach = [0.0, *(bound for row in data for bound in (row["low"], row["high"], *row["seeds"]))]
    edge = (max(reach) - min(reach) or 1.0) * 0.12
    x = {"scale": {"domain": [min(reach) - edge, max(reach) + edge], "nice": False}, "axis": _axis(metric, ticks=3)}
    left = _left(data)
    layers: list[Spec] = [
        {"mark": {"type": "rule", "stroke": "var(--ink-2)", "aria": False}, "encoding": {"x": {"datum": 0, **x}}},
        _names("name", "colour", left),
        _values("said", left),
        _rule("low", "high", x),
        _dot("seeds", x, size=22, opacity=0.5, transform=[{"flatten": ["seeds"]}]),
        _dot("value", x),
    ]
    return draw(_panel(layers, data, left))


def curve(term: str, runs: Sequence[Curve], looks: Mapping[str, Look] = LOOKS) -> str:
    """One logged quantity over training, with a line for each run that logged it.

    With several students of several seeds, each line is the mean over a model's seeds, with its seeds faint behind it.
    """
    tokens = {tuple(point.get("tokens") for point in run.points) for run in runs}
    axis = "tokens" if len(tokens) == 1 and None not in next(iter(tokens)) else "step"
    several = len({run.seed for run in runs}) > 1
    lines = [
        _Line(run.model, f" (seed {run.seed})" if several else "", tuple(thinned(_points(run, axis, term))))
        for run in runs
    ]
    faint: list[_Line] = []
    if several and looks is not LOOKS:
        lines, faint = [_mean(model, lines) for model in dict.fromkeys(run.model for run in runs)], lines
    by_x: dict[float, list[str]] = {}
    for one in lines:
        for x, y in one.points:
            by_x.setdefault(x, []).append(f"{number_format.label(one.model)}{one.seed} {y:.4g}")
    models = list(dict.fromkeys(run.model for run in runs))
    x_encoding = {
        "field": "x",
        "type": "quantitative",
        "scale": {"nice": False, "zero": False},
        "axis": {"title": axis, "tickCount": 4, "format": "~s", "grid": False},
    }
    encoding = {
        "x": x_encoding,
        "y": {
            "field": "y",
            "type": "quantitative",
            "scale": {"zero": False, "nice": True},
            "axis": {"title": None, "tickCount": 4} | (RATE if term == "learning_rate" else {"format": NUMBER}),
        },
        "detail": {"field": "run"},
        "color": by_model(models, [look(model, looks).colour for model in models]),
    }
    dashed = encoding | {"strokeDash": by_model(models, [list(look(model, looks).dash) for model in models])}
    drawn = [_lines(faint, encoding, strokeWidth=0.8, strokeOpacity=0.35)] if faint else []
    drawn.append(_lines(lines, dashed, strokeWidth=1.2 if several and not faint else 1.8))
    width = WIDTH - 44 - 12
    drawn.append(hover(axis, by_x, x_encoding, width))
    padding = {"left": 44, "right": 12, "top": 8, "bottom": 40}
    return draw({"width": width, "height": 150, "padding": padding, "layer": drawn})


def domain(rows: Sequence[Result]) -> tuple[float, float]:
    """The shown part of the axis.

    A model far away from the others (most often the start of a pruned student) is drawn at the edge. If the axis
    included it, all other models would shrink to one dot.
    """
    core = [row for row in rows if kind(row.model) in (TEACHER, STUDENT, CONTROL)]
    shown = core if len(core) > 1 else list(rows)
    low, high = _reach(shown)
    for row in rows:
        if not math.isfinite(row.value):
            continue
        wider = min(low, row.low), max(high, row.high)
        if wider[1] - wider[0] <= 2 * (high - low):
            low, high = wider
    edge = (high - low or abs(high) or 1.0) * 0.06
    return low - edge, high + edge


def _reach(rows: Iterable[Result]) -> tuple[float, float]:
    bounds = [bound for row in rows for bound in (row.low, row.high, *(row.seeds.values if row.seeds else ()))]
    finite = [bound for bound in bounds if math.isfinite(bound)]
    return min(finite, default=0.0), max(finite, default=1.0)


@dataclass(frozen=True)
class _Line:
    """One line of a chart; ``seed`` is the text that tells it from the other seeds of its model."""

    model: str
    seed: str
    points: tuple[tuple[float, float], ...]


def _points(run: Curve, axis: str, term: str) -> list[tuple[float, float]]:
    return [(point[axis], point[term]) for point in run.points if math.isfinite(point.get(term, math.nan))]


def _mean(model: str, seeds: Sequence[_Line]) -> _Line:
    """The mean over a model's seeds, at each place where all of them have a point."""
    found: dict[float, list[float]] = {}
    own = [one for one in seeds if one.model == model]
    for x, y in (point for one in own for point in one.points):
        found.setdefault(x, []).append(y)
    return _Line(model, "", tuple((x, sum(ys) / len(ys)) for x, ys in sorted(found.items()) if len(ys) == len(own)))


def _lines(lines: Sequence[_Line], encoding: Spec, **mark: float) -> Spec:
    data = [{"x": x, "y": y, "run": one.model + one.seed, "model": one.model} for one in lines for x, y in one.points]
    whole = {"type": "line", "strokeJoin": "round", "aria": False, **mark}
    return {"data": {"values": data}, "mark": whole, "encoding": encoding}


def thinned(points: list[tuple[float, float]], most: int = POINTS) -> list[tuple[float, float]]:
    """At most this number of points: means of neighbours, each at the last of their steps."""
    each = -(-len(points) // most)
    if each <= 1:
        return points
    groups = [points[start : start + each] for start in range(0, len(points), each)]
    return [(group[-1][0], sum(y for _, y in group) / len(group)) for group in groups]


def hover(axis: str, found: Mapping[float, Sequence[str]], x_encoding: Spec, width: float) -> Spec:
    """Invisible bands over a chart of curves, which tell what is found at each place of the axis.

    Args:
        axis: the name of the axis in the text.
        found: for each place, the texts.
        x_encoding: the chart's x channel, for the field `x`.
        width: of the chart, in px.
    """
    hits = [{"x": x, "told": f"{axis} {x:,.0f}: " + ", ".join(texts)} for x, texts in sorted(found.items())]
    band = {"type": "rule", "stroke": "var(--ink)", "strokeWidth": max(2.0, width / len(hits)), "strokeOpacity": 0}
    told = {"field": "told", "type": "nominal"}
    return {"data": {"values": hits}, "mark": band, "encoding": {"x": x_encoding, "description": told}}


def _axis(metric: Metric, ticks: int = 4) -> Spec:
    return {"title": None, "tickCount": ticks, "format": "~%" if metric.percent else NUMBER}


def by_model(models: list[str], values: list[Any]) -> Spec:
    """A channel with one value for each model."""
    return {"field": "model", "type": "nominal", "legend": None, "scale": {"domain": models, "range": values}}


def _y() -> Spec:
    return {"field": "y", "type": "quantitative", "axis": None, "scale": None}


def _left(data: Sequence[Spec]) -> int:
    """The margin for the longest name. A name that is too long for a phone is cut; hovering shows it whole."""
    longest = max((len(row["name"]) for row in data), default=0)
    return LEFT if longest <= 17 else min(LEFT + 62, round(6.4 * longest) + 14)


def _names(field: str, colour: str, left: int) -> Spec:
    mark = {"type": "text", "align": "right", "baseline": "middle", "aria": False, "fontSize": 12, "limit": left - 14}
    return {"mark": mark, "encoding": {"x": {"value": -10}, "y": _y(), "text": {"field": field}, **_fill(colour)}}


def _values(field: str, left: int) -> Spec:
    mark = {"type": "text", "align": "left", "baseline": "middle", "aria": False, "fontSize": 12, "fill": "var(--ink)"}
    across = {"value": WIDTH - left - RIGHT + 8}
    return {"mark": mark, "encoding": {"x": across, "y": _y(), "text": {"field": field}}}


def _rule(low: str, high: str, x: Spec, dash: list[int] | None = None, transform: list[Spec] | None = None) -> Spec:
    mark: Spec = {"type": "rule", "strokeWidth": 2 if dash else 4, "strokeOpacity": 0.45, "aria": False}
    if dash:
        mark["strokeDash"] = dash
    colour = {"stroke": {"field": "colour", "type": "nominal", "scale": None}}
    encoding = {"x": {"field": low, "type": "quantitative", **x}, "x2": {"field": high}, "y": _y(), **colour}
    return {"transform": transform or [], "mark": mark, "encoding": encoding}


def _dot(
    field: str,
    x: Spec,
    size: int = 75,
    opacity: float = 1.0,
    shape: str = "",
    transform: list[Spec] | None = None,
) -> Spec:
    mark = {"type": "point", "filled": True, "size": size, "opacity": opacity}
    told = {"description": {"field": "told", "type": "nominal"}}
    across = {"field": field, "type": "quantitative", **x}
    shaped = {"shape": {"field": shape, "type": "nominal", "scale": None}} if shape else {}
    return {
        "transform": transform or [],
        "mark": mark,
        "encoding": {"x": across, "y": _y(), **_fill("colour"), **told, **shaped},
    }


def _fill(field: str) -> Spec:
    return {"fill": {"field": field, "type": "nominal", "scale": None}}


def _panel(layers: list[Spec], data: list[Spec], left: int) -> Spec:
    padding = {"left": left, "right": RIGHT, "top": 2, "bottom": 24}
    return {
        "width": WIDTH - left - RIGHT,
        "height": ROW * len(data),
        "padding": padding,
        "data": {"values": data},
        "layer": layers,
    }


def draw(spec: Spec) -> str:
    """A Vega-Lite specification as static SVG, with the page's axes."""
    import vl_convert

    axis = {
        "domainColor": "var(--rule)",
        "tickColor": "var(--rule)",
        "gridColor": "var(--rule)",
        "labelColor": "var(--ink-2)",
        "titleColor": "var(--ink-2)",
        "titleFontWeight": "normal",
        "labelFontSize": 11,
        "titleFontSize": 11,
        "tickSize": 4,
        "labelFlush": False,
    }
    config = {"font": "sans-serif", "view": {"stroke": None}, "axis": axis, "background": None}
    whole = {"autosize": {"type": "none"}, "config": config, **spec}
    svg: str = vl_convert.vegalite_to_svg(json.dumps(whole, allow_nan=False), vl_version=VEGA_LITE)
    return svg
