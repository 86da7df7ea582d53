"""Accuracy on minimal pairs: by subtask and overall, with intervals, and the difference of two models.

Overall accuracy is the unweighted mean over subtasks, as BLiMP reports it. The bootstrap is stratified: it draws pairs
within their own subtask (``stratified.py``). BLiMP's pairs are made from templates; they are less independent of each
other than the bootstrap assumes.

Shapes: P pairs of a subtask, S seeds of one model, R resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from potstill.errors import UserError
from potstill.metrics.bootstrap import DEFAULT_RESAMPLING, Resampling, Sums
from potstill.metrics.intervals import Array, Ends
from potstill.metrics.minimal_pairs.score import PairScores
from potstill.metrics.results import Paired, Result, holm
from potstill.metrics.stratified import stratified

Ties = Literal["half", "correct", "wrong"]
CREDIT: dict[Ties, float] = {"half": 0.5, "correct": 1.0, "wrong": 0.0}

SHARE: Ends = (0.0, 1.0)
DIFFERENCE_OF_SHARES: Ends = (-1.0, 1.0)

ROUNDING = 1e-4
"""Nats. Float32 cannot tell two sums apart that differ by less. A model in bfloat16 rounds more: there, rounding can
decide a pair."""


@dataclass(frozen=True)
class Count:
    """The number of a subtask's pairs, and how many of them each seed of a model won and tied."""

    pairs: int
    won: tuple[int, ...]
    tied: tuple[int, ...]


@dataclass(frozen=True)
class Accuracy:
    """One model's accuracy overall and on each subtask, with the counts behind it and the rule for ties."""

    overall: Result
    subtasks: dict[str, Result]
    counts: dict[str, Count]
    ties: Ties

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        subtasks = {name: row.to_dict() | vars(self.counts[name]) for name, row in self.subtasks.items()}
        return {"overall": self.overall.to_dict(), "ties": self.ties, "subtasks": subtasks}


@dataclass(frozen=True)
class Comparison:
    """The difference of two models, overall and on each subtask.

    ``adjusted`` holds each subtask's p after Holm's correction (*A simple sequentially rejective multiple test
    procedure*, 1979). Without it, three of 67 subtasks would differ at 0.05 between two equal models.
    """

    overall: Paired
    subtasks: dict[str, Paired]
    adjusted: dict[str, float]
    ties: Ties
    confidence: float

    @property
    def differing(self) -> list[str]:
        """The subtasks that differ beyond chance after the correction, the largest difference first."""
        beyond = [
            name
            for name, pair in self.subtasks.items()
            if pair.beyond_chance and self.adjusted[name] < 1 - self.confidence
        ]
        return sorted(beyond, key=lambda name: -abs(self.subtasks[name].difference))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        subtasks = {name: pair.to_dict() | {"adjusted_p": self.adjusted[name]} for name, pair in self.subtasks.items()}
        return {
            "overall": self.overall.to_dict(),
            "ties": self.ties,
            "subtasks": subtasks,
            "differing": self.differing,
        }


def accuracy(
    model: str,
    metric: str,
    scores: Sequence[PairScores],
    *,
    ties: Ties = "half",
    resampling: Resampling = DEFAULT_RESAMPLING,
) -> Accuracy:
    """A model's accuracy, with intervals over pairs.

    Args:
        model: its name.
        metric: the name of the figure: "blimp", "blimp_supplement".
        scores: of the model, one for each of its seeds.
        ties: how to count a pair whose sentences are equally probable. "half": as a coin would. "correct": as lm-eval
            and BabyLM's public pipeline do, because they list the acceptable sentence first. "wrong".
        resampling: of the intervals.

    Raises:
        UserError: a score is not a finite number, or a subtask has fewer than two pairs.
    """
    _check(model, scores)
    credit = _credit(scores, ties)
    overall, subtasks = stratified(credit, resampling, bounds=SHARE)
    counts = {name: Count(each.shape[1], *_counts(scores, name)) for name, each in credit.items()}
    rows = {name: each.result(model, f"{metric}/{name}", counts[name].pairs) for name, each in subtasks.items()}
    pairs = sum(count.pairs for count in counts.values())
    return Accuracy(overall.result(model, metric, pairs), rows, counts, ties)


def compare(
    names: tuple[str, str],
    metric: str,
    scores: tuple[Sequence[PairScores], Sequence[PairScores]],
    *,
    ties: Ties = "half",
    resampling: Resampling = DEFAULT_RESAMPLING,
) -> Comparison:
    """The first of two models minus the second, on the same pairs. The arguments are those of ``accuracy``.

    If both have the same number of seeds, seeds are paired. A model with one seed is compared with each seed of the
    other.

    Raises:
        UserError: the models were scored on different pairs or read in different ways; and as ``accuracy``.
    """
    (a, b), (scores_a, scores_b) = names, scores
    _check(f"{a} and {b}", [*scores_a, *scores_b])
    assert len(scores_a) == len(scores_b) or 1 in (len(scores_a), len(scores_b)), f"{metric}: seeds do not pair"
    credit_a, credit_b = _credit(scores_a, ties), _credit(scores_b, ties)
    difference = {name: credit_a[name] - credit_b[name] for name in credit_a}
    overall, subtasks = stratified(difference, resampling, bounds=DIFFERENCE_OF_SHARES)
    counts = {name: each.shape[1] for name, each in difference.items()}
    rows = {name: each.paired(names, f"{metric}/{name}", counts[name]) for name, each in subtasks.items()}
    whole = overall.paired(names, metric, sum(counts.values()))
    return Comparison(whole, rows, holm({name: row.p for name, row in rows.items()}), ties, resampling.confidence)


def _credit(scores: Sequence[PairScores], ties: Ties) -> dict[str, Array]:
    """The credit of each pair, 0 to 1: [S, P] for each subtask."""
    credit = {}
    for name in scores[0].good:
        margins = _margins(scores, name)
        credit[name] = np.where(np.abs(margins) <= ROUNDING, CREDIT[ties], margins > 0)
    return credit


def as_sums(scores: PairScores, ties: Ties) -> Sums:
    """A model's credit for each pair, [P] over all subtasks; the ratio of the sums is the mean over subtasks."""
    credit = [each[0] for each in _credit([scores], ties).values()]
    pairs = sum(map(len, credit))
    shares = [each * (pairs / (len(credit) * len(each))) for each in credit]
    return Sums(np.concatenate(shares), np.ones(pairs))


def _counts(scores: Sequence[PairScores], name: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    margins = _margins(scores, name)
    won, tied = (margins > ROUNDING).sum(1), (np.abs(margins) <= ROUNDING).sum(1)
    return tuple(won.tolist()), tuple(tied.tolist())


def _margins(scores: Sequence[PairScores], name: str) -> Array:
    return np.stack([each.good[name] - each.bad[name] for each in scores])


def _check(who: str, scores: Sequence[PairScores]) -> None:
    first = scores[0]
    for each in scores:
        if each.pairs != first.pairs:
            raise UserError(f"{who}: scored on different minimal pairs; score both on the same")
        ours, theirs = ((each.reading.start is None, each.reading.prefix_space) for each in (first, each))
        if ours != theirs:
            raise UserError(
                f"{who}: one was read with a start token or a prefix space, the other without; read both alike"
            )
        for name in each.good:
            if len(each.good[name]) < 2:
                raise UserError(f"{who}: {name} has {len(each.good[name])} pair, and an interval needs at least 2")
            if not np.isfinite([each.good[name], each.bad[name]]).all():
                raise UserError(f"{who}: a score of {name} is not a finite number; the model is broken, train it again")
