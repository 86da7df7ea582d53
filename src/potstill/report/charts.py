"""The page's charts: Vega-Lite specifications, drawn to static SVG while the page is made.

Static SVG keeps the page at some hundred kilobytes, readable without JavaScript, in print and by a screen reader.
Colours are the page's own CSS variables, so that charts turn dark with it. What a mark says in its ``description``
becomes its aria-label, and page.js shows that on hover.
"""

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from potstill.report import wording
from potstill.report.data import CONTROL, LABELS, START, STUDENT, TEACHER, Curve, Metric
from potstill.report.verdict import judge
from potstill.scoring.statistics import Paired, Row

Spec = dict[str, Any]

VEGA_LITE = "5.20"
"""The grammar's version these specifications are written for; vl-convert ships several."""

WIDTH, LEFT, RIGHT = 340, 108, 58
"""Of one panel in px: all of it, the margin with names, the margin with values. Panels shrink to a phone unscaled."""

ROW = 24
POINTS = 100
"""Points a curve is drawn with; longer logs are averaged down to it."""

NUMBER = ",.4~r"
RATE = {"labelExpr": "datum.value ? format(datum.value, '.0e') : '0'"}

COLOURS = {TEACHER: "var(--teacher)", START: "var(--start)", STUDENT: "var(--student)", CONTROL: "var(--control)"}
DASHES = {CONTROL: [5, 3]}
ORDER = (TEACHER, STUDENT, CONTROL, START)


def intervals(metric: Metric, rows: Sequence[Row]) -> str:
    """Dot and interval for each model, the names on the left and the values on the right."""
    ordered = sorted(rows, key=lambda row: ORDER.index(row.model) if row.model in ORDER else len(ORDER))
    low, high = domain(ordered)
    data: list[Spec] = []
    for place, row in enumerate(ordered):
        beyond = row.value > high or row.value < low
        data.append(
            {
                "y": ROW * (place + 0.5),
                "name": LABELS.get(row.model, row.model),
                "said": wording.value(row, metric),
                "told": f"{LABELS.get(row.model, row.model)}: {metric.label} {wording.interval(row, metric)}",
                "colour": COLOURS.get(row.model, "var(--ink-2)"),
                "beyond": beyond,
                "arrow": "triangle-right" if row.value > high else "triangle-left",
                "side": (high if row.value > high else low) if beyond else row.value,
                "fade": high - (high - low) * 0.3 if row.value > high else low + (high - low) * 0.3,
                "value": None if beyond else row.value,
                "low": None if beyond else row.low,
                "high": None if beyond else row.high,
                "seeds": list(row.seeds.values) if row.seeds and not beyond else [],
            }
        )
    near, far = {"filter": "!datum.beyond"}, {"filter": "datum.beyond"}
    seeds: list[Spec] = [near, {"flatten": ["seeds"]}]
    x = {"scale": {"domain": [low, high], "nice": False, "zero": False}, "axis": _axis(metric)}
    layers: list[Spec] = [
        _names("name", "colour"),
        _values("said"),
        _rule("low", "high", x, transform=[near]),
        _dot("seeds", x, size=22, opacity=0.5, transform=seeds),
        _dot("value", x, transform=[near]),
        _rule("fade", "side", x, dash=[2, 4], transform=[far]),
        _dot("side", x, shape="arrow", transform=[far]),
    ]
    return _draw(_panel(layers, data, ROW * len(data)))


def differences(metric: Metric, pairs: Sequence[Paired]) -> str:
    """Dot and interval of the student minus another model, beside the zero that chance would give."""
    data: list[Spec] = []
    for place, pair in enumerate(pairs):
        judgement = judge(pair, metric)
        data.append(
            {
                "y": ROW * (place + 0.5),
                "name": wording.minus(pair.b),
                "said": wording.difference(pair, metric).replace(" points", " pp"),
                "told": f"{wording.minus(pair.b)}: {wording.difference_interval(pair, metric)}, {judgement}",
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
    layers: list[Spec] = [
        {"mark": {"type": "rule", "stroke": "var(--ink-2)", "aria": False}, "encoding": {"x": {"datum": 0, **x}}},
        _names("name", "colour"),
        _values("said"),
        _rule("low", "high", x),
        _dot("seeds", x, size=22, opacity=0.5, transform=[{"flatten": ["seeds"]}]),
        _dot("value", x),
    ]
    return _draw(_panel(layers, data, ROW * len(data)))


def curve(term: str, runs: Sequence[Curve]) -> str:
    """One logged quantity over training, a line for each run that logged it."""
    tokens = {tuple(point.get("tokens") for point in run.points) for run in runs}
    axis = "tokens" if len(tokens) == 1 and None not in next(iter(tokens)) else "step"
    data: list[Spec] = []
    by_x: dict[float, list[tuple[Curve, float]]] = {}
    for run in runs:
        for x, y in _thinned([(point[axis], point[term]) for point in run.points if _finite(point, term)]):
            data.append({"x": x, "y": y, "run": f"{run.model} {run.seed}", "model": run.model})
            by_x.setdefault(x, []).append((run, y))
    several = len({run.seed for run in runs}) > 1
    hits = [
        {"x": x, "told": f"{axis} {x:,.0f}: " + ", ".join(_told(run, y, several) for run, y in found)}
        for x, found in sorted(by_x.items())
    ]
    models = list(dict.fromkeys(run.model for run in runs))
    x_encoding = {
        "field": "x",
        "type": "quantitative",
        "scale": {"nice": False, "zero": False},
        "axis": {"title": axis, "tickCount": 4, "format": "~s", "grid": False},
    }
    line = {
        "data": {"values": data},
        "mark": {"type": "line", "strokeWidth": 1.2 if several else 1.8, "strokeJoin": "round", "aria": False},
        "encoding": {
            "x": x_encoding,
            "y": {
                "field": "y",
                "type": "quantitative",
                "scale": {"zero": False, "nice": True},
                "axis": {"title": None, "tickCount": 4} | (RATE if term == "learning_rate" else {"format": NUMBER}),
            },
            "detail": {"field": "run"},
            "color": _by_model(models, [COLOURS.get(model, "var(--ink-2)") for model in models]),
            "strokeDash": _by_model(models, [DASHES.get(model, []) for model in models]),
        },
    }
    width = WIDTH - 44 - 12
    band = {"type": "rule", "stroke": "var(--ink)", "strokeWidth": max(2.0, width / len(hits)), "strokeOpacity": 0}
    hit = {
        "data": {"values": hits},
        "mark": band,
        "encoding": {"x": x_encoding, "description": {"field": "told", "type": "nominal"}},
    }
    padding = {"left": 44, "right": 12, "top": 8, "bottom": 40}
    return _draw({"width": width, "height": 150, "padding": padding, "layer": [line, hit]})


def domain(rows: Sequence[Row]) -> tuple[float, float]:
    """The part of the axis worth showing.

    A model far outside the others (the start of a pruned student, most often) is left out and drawn at the edge: to
    scale it would press all that matters into one dot.
    """
    core = [row for row in rows if row.model in (TEACHER, STUDENT, CONTROL)]
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


def _reach(rows: Iterable[Row]) -> tuple[float, float]:
    bounds = [bound for row in rows for bound in (row.low, row.high, *(row.seeds.values if row.seeds else ()))]
    finite = [bound for bound in bounds if math.isfinite(bound)]
    return min(finite, default=0.0), max(finite, default=1.0)


def _finite(point: dict[str, float], term: str) -> bool:
    return term in point and math.isfinite(point[term])


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most POINTS means of neighbours, each at the last step it stands for."""
    each = -(-len(points) // POINTS)
    if each <= 1:
        return points
    groups = [points[start : start + each] for start in range(0, len(points), each)]
    return [(group[-1][0], sum(y for _, y in group) / len(group)) for group in groups]


def _told(run: Curve, y: float, several: bool) -> str:
    seed = f" (seed {run.seed})" if several else ""
    return f"{LABELS.get(run.model, run.model)}{seed} {y:.4g}"


def _axis(metric: Metric, ticks: int = 4) -> Spec:
    return {"title": None, "tickCount": ticks, "format": "~%" if metric.percent else NUMBER}


def _by_model(models: list[str], values: list[Any]) -> Spec:
    return {"field": "model", "type": "nominal", "legend": None, "scale": {"domain": models, "range": values}}


def _y() -> Spec:
    return {"field": "y", "type": "quantitative", "axis": None, "scale": None}


def _names(field: str, colour: str) -> Spec:
    mark = {"type": "text", "align": "right", "baseline": "middle", "aria": False, "fontSize": 12, "limit": LEFT - 14}
    return {"mark": mark, "encoding": {"x": {"value": -10}, "y": _y(), "text": {"field": field}, **_fill(colour)}}


def _values(field: str) -> Spec:
    mark = {"type": "text", "align": "left", "baseline": "middle", "aria": False, "fontSize": 12, "fill": "var(--ink)"}
    across = {"value": WIDTH - LEFT - RIGHT + 8}
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


def _panel(layers: list[Spec], data: list[Spec], height: int) -> Spec:
    padding = {"left": LEFT, "right": RIGHT, "top": 2, "bottom": 24}
    return {
        "width": WIDTH - LEFT - RIGHT,
        "height": height,
        "padding": padding,
        "data": {"values": data},
        "layer": layers,
    }


def _draw(spec: Spec) -> str:
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
