"""The first screen: the figures beside the verdict that tell what was kept, and how much smaller and faster it is."""

from collections.abc import Sequence

from potstill.metrics.speed import DECODE
from potstill.report import number_format
from potstill.report.cost_and_gain import main_metric, shares_of_the_way
from potstill.report.data import STUDENT, TEACHER, Metric, Model, Report, kind, students
from potstill.report.significance import KeyFigure

ALIKE = 0.05
"""Ratios that differ from 1 by less are told as equal."""


def key_figures(report: Report) -> list[KeyFigure]:
    """The quality that a single student kept, and how much smaller and faster students are than the first teacher.

    Only what the run measured: a figure that is not known is left out.
    """
    who = students(report)
    if not who:
        return []
    found = [_quality(report), _size(report, who[0]), _speed(report, who[0])]
    return [figure for figure in found if figure is not None]


def _quality(report: Report) -> KeyFigure | None:
    """The share of the teacher's score or, for a loss, of the way from the start to the teacher."""
    metric = main_metric(report)
    if metric is None or students(report) != [STUDENT]:
        return None
    name = number_format.metric_name(metric)
    if metric.percent and metric.better == "higher":
        share, whose = _share_of_teacher(report, metric), f"of the teacher’s {name}"
    else:
        share = shares_of_the_way(report.rows, metric).get(STUDENT)
        whose = f"of the way from start to teacher, in {name}"
    # Less than nothing is a loss, and the verdict tells it.
    if share is None or share[0] < 0:
        return None
    middle, low, high = (f"{end:.0%}".replace("-", number_format.MINUS) for end in share)
    return KeyFigure(middle, f"{whose} [{low},\N{NO-BREAK SPACE}{high}]")


def _share_of_teacher(report: Report, metric: Metric) -> tuple[float, float, float] | None:
    rows = {row.model: row for row in report.rows if row.metric == metric.name}
    best = max((row.value for model, row in rows.items() if kind(model) == TEACHER), default=0.0)
    if best <= 0 or STUDENT not in rows:
        return None
    own = rows[STUDENT]
    return own.value / best, own.low / best, own.high / best


def _size(report: Report, student: str) -> KeyFigure | None:
    teacher = _parameters(report.models, TEACHER)
    own = _parameters(report.models, student)
    if not teacher or not own:
        return None
    ratio = teacher / own
    counts = f"{number_format.count(own)} parameters instead of {number_format.count(teacher)}"
    if abs(ratio - 1) < ALIKE:
        return KeyFigure("1×", f"the teacher’s size: {counts}")
    if ratio > 1:
        return KeyFigure(_times(ratio), f"smaller than the teacher: {counts}")
    return KeyFigure(_times(1 / ratio), f"larger than the teacher: {counts}")


def _parameters(models: Sequence[Model], role: str) -> int | None:
    return next((one.parameters for one in models if role in (one.role, kind(one.role))), None)


def _speed(report: Report, student: str) -> KeyFigure | None:
    ratio = None if report.speed is None else report.speed.ratio(student, DECODE)
    if ratio is None or report.speed is None:
        return None
    middle, low, high = ratio
    word = "faster"
    if low <= 1 <= high:
        word = "the speed"
    elif middle < 1:
        # A student that takes twice the time is told as 2× slower.
        word, middle, low, high = "slower", 1 / middle, 1 / high, 1 / low
    said = f"{word} {'of' if word == 'the speed' else 'than'} the teacher when it writes"
    # With the digits of its interval: 1.75 in [1.72, 1.77] must not be told as 1.8.
    return KeyFigure(f"{middle:.2f}×", f"{said} [{low:.2f},\N{NO-BREAK SPACE}{high:.2f}], on {report.speed.device}")


def _times(ratio: float) -> str:
    return f"{ratio:.0f}×" if ratio >= 99.5 else f"{ratio:.2g}×" if ratio >= 10 else f"{ratio:.1f}×"
