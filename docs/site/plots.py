"""Plots: each table of an experiment's page that has intervals, drawn. The table stays, and says what is drawn."""

import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import vl_convert

TABLE = re.compile(r"(?:^\|.*\|\n)+", re.MULTILINE)
NUMBER = r"[-+−]?\d[\d,]*(?:\.\d+)?"
WITH_INTERVAL = re.compile(rf"({NUMBER})\s*\[({NUMBER}),\s*({NUMBER})\]")
WITH_DEVIATION = re.compile(rf"({NUMBER})\s*±\s*({NUMBER})")
INTERVAL = re.compile(rf"\[({NUMBER}),\s*({NUMBER})\]")
MOST_PANELS, MOST_ROWS = 6, 12
INK, LINE, WIDTH, STEP = "#8a8a8a", "#3b5bdb", 200, 20


class Bar(NamedTuple):
    """One row of a panel."""

    name: str
    value: float
    low: float
    high: float


class Panel(NamedTuple):
    """The figures of one metric, one below the other."""

    title: str
    rows: list[Bar]


def with_plots(text: str, folder: Path, stem: str) -> str:
    """The text of a page with a picture before each table that has intervals.

    Args:
        text: the page.
        folder: where the pictures go.
        stem: how their names begin.
    """

    def drawn(found: re.Match[str]) -> str:
        panels = [one for one in _panels(found.group()) if _tells(one)][:MOST_PANELS]
        if not panels:
            return found.group()
        name = f"{stem}-{found.start()}.svg"
        (folder / name).write_text(_draw(panels), encoding="utf-8")
        told = "Bars are the intervals, or the standard deviations, of the table below"
        return f"![{told}: {', '.join(panel.title for panel in panels)}.]({name})\n\n{found.group()}"

    return TABLE.sub(drawn, text)


def _tells(panel: Panel) -> bool:
    return 2 <= len(panel.rows) <= MOST_ROWS and len({row.value for row in panel.rows}) > 1


def _panels(table: str) -> Iterator[Panel]:
    head, _, *rows = ([cell.strip() for cell in line.strip("|\n").split(" | ")] for line in table.splitlines())
    rows = [[cell.strip("| ") for cell in row] for row in rows if len(row) == len(head)]
    head = [cell.strip("| ") for cell in head]
    ranges = [name for name in head if "interval" in name]
    if ranges and "metric" in head and "mean" in head:
        yield from _of_metrics(head, rows, ranges[0])
        return
    for place, name in enumerate(head[1:], start=1):
        found = [Bar(row[0], *figures) for row in rows if (figures := _figures(row[place])) is not None]
        yield Panel(name.partition(",")[0], found)


def _of_metrics(head: Sequence[str], rows: Sequence[Sequence[str]], ranges: str) -> Iterator[Panel]:
    """The panels of a table that has a row for each variant and metric."""
    metric, mean, interval = (head.index(name) for name in ("metric", "mean", ranges))
    for name in dict.fromkeys(row[metric] for row in rows):
        own = [row for row in rows if row[metric] == name]
        bars = [
            Bar(row[0], _number(row[mean]), *map(_number, found.groups()))
            for row in own
            if (found := INTERVAL.search(row[interval])) is not None
        ]
        yield Panel(f"{name}, difference", bars)


def _figures(cell: str) -> tuple[float, float, float] | None:
    if (found := WITH_INTERVAL.search(cell)) is not None:
        value, low, high = map(_number, found.groups())
        return value, low, high
    if (found := WITH_DEVIATION.search(cell)) is not None:
        value, deviation = map(_number, found.groups())
        return value, value - deviation, value + deviation
    return None


def _number(text: str) -> float:
    return float(text.replace(",", "").replace("−", "-"))


def _draw(panels: Sequence[Panel]) -> str:
    spec = {
        "columns": min(2, len(panels)),
        # Names are measured in another font than the reader's.
        "padding": {"left": 40, "right": 20, "top": 5, "bottom": 5},
        "concat": [_panel(panel) for panel in panels],
        "background": None,
        "config": {
            "font": "sans-serif",
            "axis": {"labelColor": INK, "titleColor": INK, "gridOpacity": 0.25, "labelLimit": 180},
            "title": {"color": INK, "anchor": "start", "fontWeight": "normal"},
            "view": {"stroke": None},
        },
    }
    svg: str = vl_convert.vegalite_to_svg(json.dumps(spec, allow_nan=False))
    return svg


def _panel(panel: Panel) -> dict[str, Any]:
    values = [row._asdict() for row in panel.rows if math.isfinite(row.high - row.low)]
    y = {"field": "name", "type": "nominal", "sort": None, "title": None}
    x = {"type": "quantitative", "scale": {"zero": False}, "title": None, "axis": {"tickCount": 4}}
    bars: dict[str, Any] = {
        "mark": {"type": "rule", "color": LINE, "strokeWidth": 2, "opacity": 0.6},
        "encoding": {"y": y, "x": {**x, "field": "low"}, "x2": {"field": "high"}},
    }
    dots: dict[str, Any] = {
        "mark": {"type": "circle", "color": LINE, "size": 50, "opacity": 1},
        "encoding": {"y": y, "x": {**x, "field": "value"}},
    }
    layers = [bars, dots]
    if panel.title.endswith("difference"):
        zero = {"mark": {"type": "rule", "color": INK, "strokeDash": [4, 3]}, "encoding": {"x": {"datum": 0}}}
        layers.insert(0, zero)
    return {
        "title": panel.title,
        "width": WIDTH,
        "height": {"step": STEP},
        "data": {"values": values},
        "layer": layers,
    }
