"""The section about on-policy training: what students wrote while they were trained, over steps and by position.

Shapes: R kept samples.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

from potstill.metrics.bootstrap import Resampling, Sums, bootstrap
from potstill.metrics.results import FEWEST_UNITS
from potstill.report import number_format
from potstill.report.charts import LOOKS, NUMBER, WIDTH, Look, Spec, by_model, draw, hover, look, sample, thinned
from potstill.report.data import Curve, Metric, ReportedRollouts, ShownRollout
from potstill.report.token_colours import coloured, full_colour

QUANTITIES = (
    Metric("length", "Length", "tokens per written answer", None),
    Metric("stopped", "Stopped by itself", "share of the written answers", None, percent=True),
    Metric("entropy", "Entropy of the student", "nats per written token", None),
    Metric("kl", "KL(student ‖ teacher)", "nats per written token", "lower"),
    Metric("overlap", "Overlap", "of the 16 likeliest tokens of both models", "higher", percent=True),
    Metric("age", "Age", "steps since the answers were written", None),
)
RATES = {"written_per_second": "Written", "scored_per_second": "Scored", "trained_per_second": "Trained"}
KL = Metric("kl", "KL", "nats per written token", "lower")
MOST_POINTS, LEAST_POINTS = 60, 20
"""The most points of a chart, which all curves share, and the least that each of them has."""
MOST_TOKENS = 256
"""The page shows this number of tokens of an answer."""
RESAMPLING = Resampling(resamples=1000)
"""Enough for a band that is drawn."""
EARLY_LOOK = Look("var(--start)", (5, 3))

Rollouts = Sequence[tuple[int, Sequence[float]]]


def section(trainings: Sequence[ReportedRollouts], looks: Mapping[str, Look] = LOOKS) -> dict[str, Any] | None:
    """What the template shows; None if no student wrote anything."""
    from markupsafe import Markup

    if not trainings:
        return None
    curves, models = [one.curve for one in trainings], [one.curve.model for one in trainings]
    shown = [answer for one in trainings for answer in (*one.early, *one.late)]
    most = full_colour(kl for answer in shown for _, kl in answer.tokens)
    drawn = [metric for metric in QUANTITIES if _is_drawn(metric, curves)]
    return {
        "seed": curves[0].seed,
        "averaged": any(len(curve.points) > _most_points(curves) for curve in curves),
        "samples": {model: Markup(sample(model, looks)) for model in models},
        "preflights": [(one.curve.model, one.preflight) for one in trainings if one.preflight],
        "panels": [{"metric": metric, "svg": Markup(chart(metric, curves, looks))} for metric in drawn],
        "positions": [_positions(one, looks) for one in trainings if _sets(one.rollouts)],
        "times": [line for curve in curves if (line := _time(curve))],
        "rates": list(RATES.values()),
        "most": most,
        "answers": [
            {
                "model": one.curve.model,
                "groups": [
                    (when, [_answer(answer, most) for answer in answers])
                    for when, answers in (("The first answers", one.early), ("The last answers", one.late))
                    if answers
                ],
            }
            for one in trainings
            if one.early or one.late
        ],
    }


def chart(metric: Metric, curves: Sequence[Curve], looks: Mapping[str, Look] = LOOKS) -> str:
    """One figure of the written answers over the steps, as SVG: faint points, and a line of their running mean."""
    most = _most_points(curves)
    points = {curve.model: thinned(_points(curve, metric.name), most) for curve in curves}
    lines = {model: _running_mean(each) for model, each in points.items()}
    told: dict[float, list[str]] = {}
    for model, each in lines.items():
        for step, value in each:
            said = f"{100 * value:.3g}%" if metric.percent else f"{value:.4g}"
            told.setdefault(step, []).append(f"{number_format.label(model)} {said}")
    models = list(points)
    axis = {"title": "step", "tickCount": 4, "format": "~s", "grid": False}
    x = {"field": "x", "type": "quantitative", "scale": {"nice": False, "zero": False}, "axis": axis}
    y_axis = {"title": None, "tickCount": 4, "format": "~%" if metric.percent else NUMBER}
    y = {"field": "y", "type": "quantitative", "scale": {"zero": False, "nice": True}, "axis": y_axis}
    colour = by_model(models, [look(model, looks).colour for model in models])
    dash = by_model(models, [list(look(model, looks).dash) for model in models])
    width = WIDTH - 56
    layers: list[Spec] = [
        {
            "data": {"values": _rows(points)},
            "mark": {"type": "point", "filled": True, "size": 9, "opacity": 0.35, "aria": False},
            "encoding": {"x": x, "y": y, "color": colour},
        },
        {
            "data": {"values": _rows(lines)},
            "mark": {"type": "line", "strokeWidth": 1.8, "strokeJoin": "round", "aria": False},
            "encoding": {"x": x, "y": y, "color": colour, "strokeDash": dash},
        },
        hover("step", told, x, width),
    ]
    padding = {"left": 44, "right": 12, "top": 8, "bottom": 40}
    return draw({"width": width, "height": 150, "padding": padding, "layer": layers})


@dataclass(frozen=True)
class PositionBin:
    """The KL at some neighbouring positions of the written answers, from 1, with its interval over samples.

    ``low`` and ``high`` are None where too few samples are that long to tell.
    """

    first: int
    last: int
    tokens: int
    kl: float
    low: float | None
    high: float | None


def by_position(rollouts: Rollouts) -> list[PositionBin]:
    """The mean KL by position. Bins double: 1, 2 to 3, 4 to 7, ...; the last one ends with the longest sample."""
    known = [[value for value in kl if math.isfinite(value)] for _, kl in rollouts]
    longest, found, first = max(map(len, known), default=0), [], 1
    while first <= longest:
        last = min(2 * first - 1, longest)
        inside = [kl[first - 1 : last] for kl in known if len(kl) >= first]
        sums, counts = [sum(each) for each in inside], [len(each) for each in inside]
        low = high = None
        if len(inside) >= FEWEST_UNITS:
            interval = bootstrap("student", KL.name, Sums(sums, counts, can_exceed_one=True), resampling=RESAMPLING)
            low, high = interval.low, interval.high
        found.append(PositionBin(first, last, sum(counts), sum(sums) / sum(counts), low, high))
        first *= 2
    return found


def position_chart(sets: Mapping[str, Rollouts], looks: Mapping[str, Look]) -> str:
    """The KL by position of each set of samples, as SVG; above it the number of tokens of each bin."""
    bins = {name: by_position(rollouts) for name, rollouts in sets.items()}
    # A wide interval of few samples is cut: the axis would shrink the curves to one line.
    highest = 1.5 * max(0.0, *(one.kl for each in bins.values() for one in each)) or 1.0
    rows: list[Spec] = [
        {
            "x": math.sqrt(one.first * one.last),
            "y": one.kl,
            "low": None if one.low is None else max(one.low, 0.0),
            "high": None if one.high is None else min(one.high, highest),
            "count": _short(one.tokens),
            "model": name,
            "told": _told(name, one),
        }
        for name, each in bins.items()
        for one in each
    ]
    edges = sorted({one.first for each in bins.values() for one in each})
    scale = {"type": "log", "nice": False, "domain": [0.8, 1.25 * max(row["x"] for row in rows)]}
    axis = {"title": "position in the answer", "values": edges, "format": "d", "grid": False, "labelOverlap": "parity"}
    x = {"field": "x", "type": "quantitative", "scale": scale, "axis": axis}
    y_axis = {"title": None, "tickCount": 4, "format": NUMBER}
    y = {"type": "quantitative", "scale": {"domain": [0, highest], "nice": False}, "axis": y_axis}
    names = list(sets)
    colour = by_model(names, [look(name, looks).colour for name in names])
    dash = by_model(names, [list(look(name, looks).dash) for name in names])
    kl, told = {"field": "y", **y}, {"description": {"field": "told", "type": "nominal"}}
    layers: list[Spec] = [
        {
            "transform": [{"filter": "isValid(datum.low)"}],
            "mark": {"type": "area", "opacity": 0.14, "aria": False},
            "encoding": {"x": x, "y": {"field": "low", **y}, "y2": {"field": "high"}, "fill": colour},
        },
        {
            "mark": {"type": "line", "strokeWidth": 1.8, "aria": False},
            "encoding": {"x": x, "y": kl, "color": colour, "strokeDash": dash},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 26, "opacity": 1},
            "encoding": {"x": x, "y": kl, "color": colour, **told},
        },
    ]
    layers += [_counts(name, -9 - 13 * place, x, colour) for place, name in enumerate(reversed(names))]
    padding = {"left": 44, "right": 16, "top": 10 + 13 * len(names), "bottom": 40}
    return draw({"width": WIDTH - 60, "height": 150, "padding": padding, "data": {"values": rows}, "layer": layers})


def _counts(name: str, height: int, x: Spec, colour: Spec) -> Spec:
    """The numbers of tokens of one set, in a row above the chart."""
    mark = {"type": "text", "fontSize": 9.5, "aria": False}
    across = {"x": x, "y": {"value": height}, "text": {"field": "count"}, "color": colour}
    return {"transform": [{"filter": {"field": "model", "equal": name}}], "mark": mark, "encoding": across}


def _positions(training: ReportedRollouts, looks: Mapping[str, Look]) -> dict[str, Any]:
    """The chart by position of one training, with its legend."""
    from markupsafe import Markup

    model, sets = training.curve.model, _sets(training.rollouts)
    names = list(sets)
    # What was late is what the student has become, and has its look; a single set is late as well.
    own = {names[-1]: Look(look(model, looks).colour)} | ({names[0]: EARLY_LOOK} if len(names) > 1 else {})
    return {
        "model": model,
        "legend": [(name, Markup(sample(name, own))) for name in names],
        "svg": Markup(position_chart(sets, own)),
    }


def _sets(rollouts: Rollouts) -> dict[str, Rollouts]:
    """The samples of the first and of the last third of the steps, with a name that tells the steps."""
    scored = [one for one in rollouts if any(map(math.isfinite, one[1]))]
    if not scored:
        return {}
    first, last = (end(step for step, _ in scored) for end in (min, max))
    if first == last:
        return {f"step {first:,}": scored}
    third = (last - first) / 3
    thirds = ([one for one in scored if one[0] <= first + third], [one for one in scored if one[0] >= last - third])
    return {f"steps {each[0][0]:,} to {each[-1][0]:,}": each for each in map(_by_step, thirds)}


def _by_step(rollouts: Rollouts) -> Rollouts:
    return sorted(rollouts, key=lambda one: one[0])


def _told(name: str, one: PositionBin) -> str:
    where = f"token {one.first:,}" if one.first == one.last else f"tokens {one.first:,} to {one.last:,}"
    interval = "" if one.low is None else f" [{one.low:.3g}, {one.high:.3g}]"
    return f"{name}, {where}: KL {one.kl:.3g}{interval} nats over {one.tokens:,} tokens"


def _is_drawn(metric: Metric, curves: Sequence[Curve]) -> bool:
    """Whether a figure was logged. An age of 0 throughout says nothing."""
    values = [value for curve in curves for _, value in _points(curve, metric.name)]
    return any(values) if metric.name == "age" else bool(values)


def _most_points(curves: Sequence[Curve]) -> int:
    return max(LEAST_POINTS, MOST_POINTS // len(curves))


def _points(curve: Curve, name: str) -> list[tuple[float, float]]:
    return [(point["step"], point[name]) for point in curve.points if math.isfinite(point.get(name, math.nan))]


def _running_mean(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Each point's mean with its neighbours, a tenth of all points together."""
    reach = len(points) // 20
    values = [y for _, y in points]
    return [(x, mean(values[max(0, place - reach) : place + reach + 1])) for place, (x, _) in enumerate(points)]


def _rows(points: Mapping[str, Sequence[tuple[float, float]]]) -> list[Spec]:
    return [{"x": x, "y": y, "model": model} for model, each in points.items() for x, y in each]


def _short(count: int) -> str:
    """A count in little room: 960, 1.2k, 12k."""
    return f"{count}" if count < 1000 else f"{count / 1000:.1f}k" if count < 10_000 else f"{count / 1000:.0f}k"


def _time(curve: Curve) -> dict[str, Any] | None:
    """Tokens per second of each kind of work, and writing's share of the time; None if nothing was logged."""
    each = {name: [value for _, value in _points(curve, name)] for name in (*RATES, "time_writing", "tokens")}
    if not any(each.values()):
        return None
    rates = [f"{median(each[name]):,.0f}" if each[name] else "" for name in RATES]
    share, tokens = each["time_writing"], each["tokens"]
    return {
        "model": curve.model,
        "rates": rates,
        "share": f"{mean(share):.0%}" if share else "",
        "tokens": f"{mean(tokens):,.0f}" if tokens else "",
    }


def _answer(answer: ShownRollout, most: float) -> dict[str, Any]:
    known = [kl for _, kl in answer.tokens if kl is not None and math.isfinite(kl)]
    age = f", written at {answer.written_at:,}" if answer.written_at != answer.step else ""
    return {
        "step": f"Step {answer.step:,}{age}",
        "ended": "stopped by itself" if answer.stopped else "cut at the limit",
        "kl": f"{mean(known):.3g}" if known else "",
        "length": "1 token" if len(answer.tokens) == 1 else f"{len(answer.tokens):,} tokens",
        "prompt": answer.prompt,
        "tokens": [
            coloured(text, kl if kl is not None and math.isfinite(kl) else None, most) | {"kl": kl}
            for text, kl in answer.tokens[:MOST_TOKENS]
        ],
        "left": max(0, len(answer.tokens) - MOST_TOKENS),
    }
