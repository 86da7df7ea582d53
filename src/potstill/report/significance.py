"""Judge whether differences are beyond chance: one alone, or several students together.

Among twenty students that are no better than their control, one would seem better at 0.05. A report with several
students therefore corrects its judgements (Holm, *A simple sequentially rejective multiple test procedure*, 1979). For
each metric, it corrects together the students' differences from the control, those from the start, and those from
placebos. Metrics of one family (all standard tasks) are corrected together, also for a single student. Intervals are
not corrected.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from potstill.metrics.results import Paired, holm
from potstill.report.data import Metric, Report, kind

Judgement = Literal["better", "worse", "different", "within chance", "too few to tell"]
UNDECIDED: tuple[Judgement, ...] = ("within chance", "too few to tell")
"""The judgements of a difference that is not beyond chance."""
JudgeDifference = Callable[[Paired, Metric], Judgement]
Tone = Literal["good", "bad", "open"]


@dataclass(frozen=True)
class KeyFigure:
    """A figure that is printed large, and its description."""

    text: str
    about: str


@dataclass(frozen=True)
class Verdict:
    """The verdict at the top of the page; ``sentences`` hold the figures behind the headline."""

    headline: str
    tone: Tone
    figures: tuple[KeyFigure, ...]
    sentences: tuple[str, ...]


def judge(pair: Paired, metric: Metric) -> Judgement:
    """Whether ``pair.a`` is better than ``pair.b``; ``different`` if the metric has no better direction.

    With too few units, it is ``too few to tell``, whatever the interval.
    """
    if pair.too_few:
        return "too few to tell"
    if not pair.beyond_chance:
        return "within chance"
    if metric.better is None:
        return "different"
    return "better" if (pair.difference < 0) == (metric.better == "lower") else "worse"


def judge_of(report: Report) -> JudgeDifference:
    """The judge of this report's differences, with the correction for its students and families of metrics."""
    beyond = beyond_chance(report.paired, _families(report), report.confidence)

    def corrected(pair: Paired, metric: Metric) -> Judgement:
        judgement = judge(pair, metric)
        return judgement if beyond[key(pair)] or pair.too_few else "within chance"

    return corrected


def beyond_chance(paired: Sequence[Paired], families: Mapping[str, str], confidence: float) -> dict[str, bool]:
    """Whether each of an evaluation's differences is beyond chance, by :func:`key`.

    Args:
        paired: all differences.
        families: by metric, the name of its family; a metric without one is judged alone.
        confidence: of the intervals.
    """
    p, several = adjusted(paired, families), len({pair.a for pair in paired}) > 1
    return {
        key(pair): pair.beyond_chance and (p[key(pair)] < 1 - confidence or not (several or pair.metric in families))
        for pair in paired
    }


def adjusted_p(report: Report) -> dict[str, float]:
    """Each difference's p after Holm's correction for its metric and the kind of ``pair.b``, by :func:`key`."""
    return adjusted(report.paired, _families(report))


def adjusted(paired: Sequence[Paired], families: Mapping[str, str]) -> dict[str, float]:
    """As :func:`adjusted_p`; metrics of one family are corrected together."""
    groups: dict[tuple[str, str], dict[str, float]] = {}
    for pair in paired:
        family = families.get(pair.metric, pair.metric)
        groups.setdefault((family, kind(pair.b)), {})[key(pair)] = pair.p
    return {name: p for group in groups.values() for name, p in holm(group).items()}


def _families(report: Report) -> dict[str, str]:
    return {metric.name: metric.family for metric in report.metrics if metric.family}


def key(pair: Paired) -> str:
    """The key of a difference in the results of this module."""
    return f"{pair.metric}: {pair.a} - {pair.b}"
