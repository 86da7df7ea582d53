"""Judgements: which differences are beyond chance, alone, and where several students are judged at once.

Of twenty students that are no better than their control, one would seem so at 0.05. Where a report has several, what is
said of each is therefore corrected for all of them (Holm, *A simple sequentially rejective multiple test procedure*,
1979): in every metric, the students' differences from the control together, those from the start, and those from
placebos. Intervals stay those of each difference alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from potstill.report.data import Metric, Report, kind, students
from potstill.scoring.accuracy import holm
from potstill.scoring.statistics import Paired

Judgement = Literal["better", "worse", "different", "within chance"]
Judge = Callable[[Paired, Metric], Judgement]
Tone = Literal["good", "bad", "open"]


@dataclass(frozen=True)
class Figure:
    """A figure to be printed large, and what it is."""

    text: str
    about: str


@dataclass(frozen=True)
class Verdict:
    """``sentences`` hold the figures that the headline rests on."""

    headline: str
    tone: Tone
    figures: tuple[Figure, ...]
    sentences: tuple[str, ...]


def judge(pair: Paired, metric: Metric) -> Judgement:
    """Whether ``pair.a`` is better than ``pair.b``; ``different`` where the metric has no better direction."""
    if not pair.beyond_chance:
        return "within chance"
    if metric.better is None:
        return "different"
    return "better" if (pair.difference < 0) == (metric.better == "lower") else "worse"


def judge_of(report: Report) -> Judge:
    """How differences are judged on this report: each by itself, or corrected for all of its students."""
    if len(students(report)) < 2:
        return judge
    adjusted = adjusted_p(report)

    def corrected(pair: Paired, metric: Metric) -> Judgement:
        return judge(pair, metric) if adjusted[key(pair)] < 1 - report.confidence else "within chance"

    return corrected


def adjusted_p(report: Report) -> dict[str, float]:
    """Each difference's p after Holm's correction for the others of its metric and its kind, by :func:`key`."""
    families: dict[tuple[str, str], dict[str, float]] = {}
    for pair in report.paired:
        families.setdefault((pair.metric, kind(pair.b)), {})[key(pair)] = pair.p
    return {name: p for family in families.values() for name, p in holm(family).items()}


def key(pair: Paired) -> str:
    """What a difference is found by."""
    return f"{pair.metric}: {pair.a} - {pair.b}"
