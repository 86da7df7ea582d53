"""What models cost and what they give: a table of size and speed, and charts of quality against speed and size."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from potstill.console import size
from potstill.metrics.results import Result
from potstill.metrics.speed import DECODE, DECODE_BATCH, PREFILL, PREFILL_BATCH, RatioToTeacher, Speed
from potstill.report import number_format
from potstill.report.charts import WIDTH, Look, Spec, draw, look
from potstill.report.data import CONTROL, START, STUDENT, TEACHER, Metric, Report, kind

RATES = {
    PREFILL: "Prompt, alone",
    PREFILL_BATCH: "Prompt, batch",
    DECODE: "Writing, alone",
    DECODE_BATCH: "Writing, batch",
}
HEIGHT, LABEL_HEIGHT = 190, 13
SHAPES = {TEACHER: "square", CONTROL: "diamond"}
LOWEST, HIGHEST = -0.25, 1.25
"""Shares of the way outside of these are drawn at the edge of the chart, as a triangle."""
MOST_LABELS = 8
"""With more points, names beside them would lie on each other. Hovering shows them."""


@dataclass(frozen=True)
class GainPoint:
    """A model's quality against its speed and size. Quality is the share of the way from start to teacher."""

    name: str
    quality: tuple[float, float, float]
    """The share, and the ends of its interval."""
    speed: RatioToTeacher
    """Tokens written per second, over the teacher's."""
    size: float
    """Parameters, over the teacher's."""
    look: Look
    shape: str
    label: str
    """The text beside the point; may be empty."""


def shares_of_the_way(rows: Sequence[Result], metric: Metric) -> dict[str, tuple[float, float, float]]:
    """Each model's share of the way from the start to the best teacher, and the ends of its interval.

    Start and teacher count as known: the interval is the model's own. Empty where no teacher is better than the start.
    """
    own = {row.model: row for row in rows if row.metric == metric.name}
    best = min if metric.better == "lower" else max
    teachers = [row.value for model, row in own.items() if kind(model) == TEACHER]
    if START not in own or not teachers:
        return {}
    start, teacher = own[START].value, best(teachers)
    if not math.isfinite(start - teacher) or best(teacher, start) == start:
        return {}

    def share(value: float) -> float:
        return (start - value) / (start - teacher)

    return {
        model: (share(row.value), *sorted((share(row.low), share(row.high))))  # type: ignore[misc]
        for model, row in own.items()
        if math.isfinite(row.value)
    }


def main_metric(report: Report) -> Metric | None:
    """The first metric that has a better direction: the loss, or the accuracy of answers."""
    measured = {row.metric for row in report.rows}
    return next((metric for metric in report.metrics if metric.better and metric.name in measured), None)


def points(
    rows: Sequence[Result], metric: Metric, speed: Speed, looks: Mapping[str, Look], run: str = ""
) -> list[GainPoint]:
    """A point for each model whose quality and speed are known.

    Args:
        rows: the results of every model.
        metric: the metric of quality.
        speed: of the same models.
        looks: each model's colour; with a `run`, only one for each run: that of the run's name.
        run: the name of the run, where several are drawn together.
    """
    found, shares, teacher = [], shares_of_the_way(rows, metric), speed.teacher
    for one in speed.models:
        ratio = speed.ratio(one.model, DECODE)
        if ratio is None or teacher is None or one.model not in shares:
            continue
        name = f"{run}: {number_format.inside(one.model)}" if run else number_format.label(one.model)
        drawn = looks[run] if run else look(one.model, looks)
        shape = SHAPES.get(kind(one.model), "circle")
        # Of several runs, only the students have labels: there are as many teachers and controls as runs.
        label = name if not run else "" if shape != "circle" else run if one.model == STUDENT else name
        share = one.parameters / teacher.parameters
        found.append(GainPoint(name, shares[one.model], ratio, share, drawn, shape, label))
    return found


def charts(found: Sequence[GainPoint], metric: Metric) -> list[dict[str, str]]:
    """The two charts with the texts above them: `label`, `about` and `svg`. Empty without points."""
    if not found:
        return []
    about = f"share of the way from start to teacher, in {number_format.metric_name(metric)}"
    speed = {"title": "tokens written per second ÷ the teacher’s", "format": "~g", "tickCount": 5}
    parameters = {"title": "parameters ÷ the teacher’s", "format": "~g", "tickCount": 5}
    return [
        {"label": "Quality against speed", "about": about, "svg": _chart(found, [one.speed for one in found], speed)},
        {
            "label": "Quality against size",
            "about": about,
            "svg": _chart(found, [RatioToTeacher(*3 * [one.size]) for one in found], parameters),
        },
    ]


def table(report: Report) -> dict[str, Any] | None:
    """The table of sizes and speeds: `rates` (titles), `lines`, and `notes`. None if nothing was measured."""
    speed = report.speed
    if speed is None:
        return None
    lines = []
    for one in speed.models:
        ratios = {rate: speed.ratio(one.model, rate) for rate in RATES}
        lines.append(
            {
                "model": one.model,
                "parameters": number_format.count(one.parameters),
                "number_format": one.number_format,
                "bytes": None if one.bytes is None else size(one.bytes),
                "memory": None if one.memory is None else size(one.memory),
                "rates": [_rate(one.median(rate), None if one is speed.teacher else ratios[rate]) for rate in RATES],
            }
        )
    notes, metric = _notes(speed), main_metric(report)
    if metric is not None and not shares_of_the_way(report.rows, metric):
        notes.append(f"There is no chart: no teacher is better than the start in {number_format.metric_name(metric)}.")
    return {"rates": list(RATES.values()) if speed.rounds else [], "lines": lines, "notes": notes}


def _rate(rate: float | None, ratio: RatioToTeacher | None) -> dict[str, str] | None:
    if rate is None:
        return None
    return {"text": f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}", "ratio": "" if ratio is None else times(ratio)}


def times(ratio: RatioToTeacher) -> str:
    """A ratio with its spread: 1.92 × [1.88, 1.97]."""
    return f"{ratio.median:.2f} × [{ratio.low:.2f}, {ratio.high:.2f}]"


def _notes(speed: Speed) -> list[str]:
    shared: dict[str, list[str]] = {}
    for one in speed.models:
        if one.measured_as is not None:
            shared.setdefault(one.measured_as, []).append(number_format.inside(one.model))
    alike = [
        f"{number_format.label(measured)} was measured; {number_format.listed(others)} "
        f"{'has' if len(others) == 1 else 'have'} the same shape and therefore the same speed."
        for measured, others in shared.items()
        if speed.rounds
    ]
    return [*alike, *speed.notes]


def _chart(found: Sequence[GainPoint], across: Sequence[RatioToTeacher], axis: Spec) -> str:
    ends = [end for ratio in across for end in ratio]
    low, high = min(ends), max(ends)
    logarithmic = high > 8 * low
    edge = 1.25 if logarithmic else 0.1 * ((high - low) or high)
    scale: Spec = {"domain": [low / edge, high * edge] if logarithmic else [low - edge, high + edge], "nice": False}
    scale |= {"type": "log"} if logarithmic else {"zero": False}
    reach = [min(max(end, LOWEST), HIGHEST) for one in found for end in one.quality]
    bottom, top = min(0.0, *reach) - 0.08, max(1.0, *reach) + 0.08

    def middle(start: float, end: float) -> float:
        return (start * end) ** 0.5 if logarithmic else (start + end) / 2

    # A label stands on the side with more room, beyond the end of the point's bar.
    data = [
        _datum(one, ratio, bool(middle(ratio.low, ratio.high) > middle(low, high)))
        for one, ratio in zip(found, across, strict=True)
    ]
    _spread_labels(data, (top - bottom) * LABEL_HEIGHT / HEIGHT)
    x: Spec = {"type": "quantitative", "scale": scale, "axis": axis | {"grid": False}}
    y_axis = {"title": None, "format": "~%", "tickCount": 5}
    y: Spec = {"type": "quantitative", "scale": {"domain": [bottom, top], "nice": False}, "axis": y_axis}
    at = {"x": {"field": "x", **x}, "y": {"field": "y", **y}}
    stroke = {"stroke": {"field": "colour", "type": "nominal", "scale": None}}
    fill = {"fill": {"field": "colour", "type": "nominal", "scale": None}}
    shape = {"shape": {"field": "shape", "type": "nominal", "scale": None}}
    told = {"description": {"field": "told", "type": "nominal"}}
    rule = {"type": "rule", "strokeWidth": 3, "strokeOpacity": 0.4, "aria": False}
    layers: list[Spec] = [
        {"mark": rule, "encoding": {"x": {"field": "x_low", **x}, "x2": {"field": "x_high"}, "y": at["y"], **stroke}},
        {"mark": rule, "encoding": {"x": at["x"], "y": {"field": "y_low", **y}, "y2": {"field": "y_high"}, **stroke}},
        {
            "mark": {"type": "point", "filled": True, "size": 85, "opacity": 1},
            "encoding": {**at, **fill, **shape, **told},
        },
    ]
    if sum(bool(one.label) for one in found) <= MOST_LABELS:
        layers += [
            _labels(data, side, {"x": {"field": "label_x", **x}, "y": {"field": "label_y", **y}, **fill})
            for side in (True, False)
        ]
    padding = {"left": 44, "right": 12, "top": 8, "bottom": 40}
    whole = {"width": WIDTH - 56, "height": HEIGHT, "padding": padding, "data": {"values": data}, "layer": layers}
    return draw(whole)


def _datum(one: GainPoint, across: RatioToTeacher, on_the_right: bool) -> Spec:
    share, low, high = (min(max(end, LOWEST), HIGHEST) for end in one.quality)
    told = f"{one.name}: {one.quality[0]:.0%} [{one.quality[1]:.0%}, {one.quality[2]:.0%}] of the way"
    told += f"; {times(one.speed)} of the teacher’s speed; {one.size:.2f} × its parameters"
    beyond = "" if share == one.quality[0] else "triangle-up" if one.quality[0] > share else "triangle-down"
    return {
        "x": across.median,
        "x_low": across.low,
        "x_high": across.high,
        "y": share,
        "y_low": low,
        "y_high": high,
        "label_x": across.low if on_the_right else across.high,
        "label_y": share,
        "label": f"{one.label} ({one.quality[0]:.0%})" if one.label and beyond else one.label,
        "told": told.replace("-", number_format.MINUS),
        "colour": one.look.colour,
        "shape": beyond or one.shape,
        "right": on_the_right,
    }


def _spread_labels(data: Sequence[Spec], least: float) -> None:
    """Move labels apart, to at least this distance, upwards."""
    lowest = -math.inf
    for row in sorted((row for row in data if row["label"]), key=lambda row: row["y"]):
        row["label_y"] = lowest = max(row["y"], lowest + least)


def _labels(data: Sequence[Spec], on_the_right: bool, encoding: Spec) -> Spec:
    side = {"align": "right", "dx": -9} if on_the_right else {"align": "left", "dx": 9}
    mark = {"type": "text", "baseline": "middle", "fontSize": 12, "aria": False, **side}
    rows = [row for row in data if row["right"] == on_the_right]
    return {"data": {"values": rows}, "mark": mark, "encoding": encoding | {"text": {"field": "label"}}}
