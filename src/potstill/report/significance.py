"""Judgements: which differences are beyond chance, alone, and where several students are judged at once.

Of twenty students that are no better than their control, one would seem so at 0.05. Where a report has several, what is
said of each is therefore corrected for all of them (Holm, *A simple sequentially rejective multiple test procedure*,
1979): in every metric, the students' differences from the control together, those from the start, and those from
placebos. Metrics of one family, as all standard tasks are, are corrected together, also for a single student. Intervals
stay those of each difference alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from potstill.metrics.bootstrap import Paired, holm
from potstill.report.data import Metric, Report, kind

Judgement = Literal["better", "worse", "different", "within chance"]
JudgeDifference = Callable[[Paired, Metric], Judgement]
Tone = Literal["good", "bad", "open"]


@dataclass(frozen=True)
class KeyFigure:
    """A figure to be printed large, and what it is."""

    text: str
    about: str


@dataclass(frozen=True)
class Verdict:
    """``sentences`` hold the figures that the headline rests on."""

    headline: str
    tone: Tone
    figures: tuple[KeyFigure, ...]
    sentences: tuple[str, ...]


def judge(pair: Paired, metric: Metric) -> Judgement:
    """Whether ``pair.a`` is better than ``pair.b``; ``different`` where the metric has no better direction."""
    if not pair.beyond_chance:
        return "within chance"
    if metric.better is None:
        return "different"
    return "better" if (pair.difference < 0) == (metric.better == "lower") else "worse"


def judge_of(report: Report) -> JudgeDifference:
    """How differences are judged on this report: each by itself, or corrected for all of its students or its family."""
    beyond = beyond_chance(report.paired, _families(report), report.confidence)

    def corrected(pair: Paired, metric: Metric) -> Judgement:
        return judge(pair, metric) if beyond[key(pair)] else "within chance"

    return corrected


def beyond_chance(paired: Sequence[Paired], families: Mapping[str, str], confidence: float) -> dict[str, bool]:
    """Whether each of an evaluation's differences is beyond chance, by :func:`key`.

    Args:
        paired: all differences.
        families: of the metrics that are judged together with others, the name that those have in common.
        confidence: of the intervals.
    """
    p, several = adjusted(paired, families), len({pair.a for pair in paired}) > 1
    return {
        key(pair): pair.beyond_chance and (p[key(pair)] < 1 - confidence or not (several or pair.metric in families))
        for pair in paired
    }


def adjusted_p(report: Report) -> dict[str, float]:
    """Each difference's p after Holm's correction for the others of its metric and its kind, by :func:`key`."""
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
    """What a difference is found by."""
    return f"{pair.metric}: {pair.a} - {pair.b}"
