"""Charts of snapshots over training: for each metric and split, a line with its interval for each training; teachers
and the start are horizontal lines."""

from collections.abc import Mapping, Sequence
from typing import Any

from potstill.report import number_format
from potstill.report.charts import LOOKS, NUMBER, WIDTH, Look, Spec, by_model, draw, look
from potstill.report.data import Metric, Report, SnapshotPoint

SPLITS = {"selection": "on the items of the selection", "reporting": "held out"}
FAR = 2.0
"""A horizontal line further away than this many times the range of the curves is written above the chart instead."""
EARLY = 4
"""If the last step is more than this many times the middle one, the axis is logarithmic."""


def panels(report: Report, looks: Mapping[str, Look] = LOOKS) -> list[dict[str, Any]]:
    """A chart for each metric and split, with the texts above it: `label`, `about`, `better`, `svg`."""
    known = {metric.name: metric for metric in report.metrics}
    found = []
    for name, split in dict.fromkeys((one.metric, one.split) for one in report.snapshots):
        rows = [one for one in report.snapshots if (one.metric, one.split) == (name, split)]
        if not any(one.step for one in rows):
            continue
        metric = known.get(name) or Metric(name, name, "", None)
        about = SPLITS[split]
        if across := [number_format.label(one.model) + f" {one.value:.4g}" for one in _far(rows)]:
            about += f"; off the chart: {number_format.listed(across)}"
        found.append(
            {"label": metric.label, "about": about, "better": metric.better, "svg": chart(metric, rows, looks)}
        )
    return found


def chart(metric: Metric, rows: Sequence[SnapshotPoint], looks: Mapping[str, Look] = LOOKS) -> str:
    """One metric on one split over the steps of each training, as SVG."""
    trained, far = [one for one in rows if one.step], _far(rows)
    across = [one for one in rows if not one.step and one not in far]
    models = list(dict.fromkeys(one.model for one in rows))
    several = len({one.seed for one in trained}) > 1
    x, y = _x(trained), {"type": "quantitative", "scale": {"zero": False, "nice": True}}
    axis = {"title": None, "tickCount": 4, "format": "~%" if metric.percent else NUMBER}
    colour = by_model(models, [look(model, looks).colour for model in models])
    dash = by_model(models, [list(look(model, looks).dash) for model in models])
    lines = {"x": x, "y": {"field": "value", "axis": axis, **y}, "detail": {"field": "run"}, "color": colour}
    bounds = {"y": {"field": "low", "axis": axis, **y}, "y2": {"field": "high"}}
    told = {"description": {"field": "told", "type": "nominal"}}
    data = [_point(metric, one, several) for one in trained]
    layers: list[Spec] = [
        {
            "data": {"values": [{"value": one.value, "model": one.model} for one in across]},
            "mark": {"type": "rule", "strokeWidth": 1.2, "strokeDash": [2, 3], "aria": False},
            "encoding": {"y": {"field": "value", "axis": axis, **y}, "color": colour},
        },
        {
            "mark": {"type": "area", "opacity": 0.14, "aria": False},
            "encoding": {"x": x, **bounds, "detail": {"field": "run"}, "fill": colour},
        },
        {
            "mark": {"type": "line", "strokeWidth": 1.2 if several else 1.8, "aria": False},
            "encoding": lines | {"strokeDash": dash},
        },
        {"mark": {"type": "point", "filled": True, "size": 16, "opacity": 1}, "encoding": lines | told},
        {
            "transform": [{"filter": "datum.chosen"}],
            "mark": {"type": "point", "filled": False, "size": 90, "strokeWidth": 2, "opacity": 1, "aria": False},
            "encoding": lines,
        },
    ]
    padding = {"left": 44, "right": 12, "top": 8, "bottom": 40}
    return draw({"width": WIDTH - 56, "height": 150, "padding": padding, "data": {"values": data}, "layer": layers})


def _x(trained: Sequence[SnapshotPoint]) -> Spec:
    steps = sorted({one.step or 0 for one in trained})
    scale: Spec = {"nice": False, "zero": False}
    if steps[len(steps) // 2] * EARLY < steps[-1]:
        scale["type"] = "log"
    axis = {"title": "step", "tickCount": 4, "format": "~s", "grid": False}
    return {"field": "step", "type": "quantitative", "scale": scale, "axis": axis}


def _point(metric: Metric, one: SnapshotPoint, several: bool) -> Spec:
    seed = f" (seed {one.seed})" if several else ""
    told = f"{number_format.label(one.model)}{seed}, step {one.step:,}: {metric.label} {one.value:.4g}"
    told += f" [{one.low:.4g}, {one.high:.4g}]" + (", chosen" if one.chosen else "")
    figures = {"step": one.step, "value": one.value, "low": one.low, "high": one.high, "chosen": one.chosen}
    return figures | {"model": one.model, "run": f"{one.model}{seed}", "told": told}


def _far(rows: Sequence[SnapshotPoint]) -> list[SnapshotPoint]:
    """Horizontal lines that would squeeze the curves, most often the start of a pruned student."""
    trained = [one for one in rows if one.step]
    low, high = min(one.low for one in trained), max(one.high for one in trained)
    room = FAR * (high - low)
    return [one for one in rows if not one.step and max(one.value - high, low - one.value) > room]
