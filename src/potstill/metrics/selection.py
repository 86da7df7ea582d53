"""Selection: the best of several snapshots by their scores on the same items; among ties, the first.

With one metric, a paired bootstrap over items (`bootstrap.py`) compares the best with every other candidate. With
several metrics, each metric ranks the candidates (the best has rank 1, equal ones share a rank), and the weighted mean
of the ranks decides. The items of each metric are then resampled, and the interval is the percentile interval, because
ranks are too coarse for a jackknife. A candidate ties with the best one unless it is worse beyond chance. If all
candidates tie, the metric tells nothing, and the last weights are kept.

Shapes: C candidates, U items of a metric, R resamples.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from potstill.metrics.bootstrap import DEFAULT_RESAMPLING, Resampling, Sums, paired
from potstill.metrics.intervals import Array, expanded_tails
from potstill.metrics.results import FEWEST_UNITS

_COUNTS_AT_ONCE = 2**22
"""Numbers held in memory together, for any U and R."""


@dataclass(frozen=True)
class Criterion:
    """A metric of the choice, its better direction, and its weight among several metrics."""

    metric: str
    better: Literal["lower", "higher"]
    weight: float = 1.0


@dataclass(frozen=True)
class Standing:
    """One candidate, and its distance from the best one.

    ``value`` is its metric, or its mean rank. ``difference`` is its value minus the best one's; ``low`` and ``high``
    are the interval of the difference.
    """

    name: str
    value: float
    difference: float
    low: float
    high: float
    tied: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return dict(vars(self))


@dataclass(frozen=True)
class Choice:
    """The best candidate, the chosen one, and all of them in the order in which they were given."""

    best: str
    chosen: str
    standings: tuple[Standing, ...]

    @property
    def all_tie(self) -> bool:
        """Whether the metric tells none of several candidates apart."""
        return len(self.standings) > 1 and all(standing.tied for standing in self.standings)


def choose(
    candidates: Mapping[str, Mapping[str, Sums]],
    criteria: Sequence[Criterion],
    last: str,
    *,
    resampling: Resampling = DEFAULT_RESAMPLING,
) -> Choice:
    """Choose one of several candidates.

    Args:
        candidates: by name, each with its sums ([U]) by metric. The first candidate that ties with the best is chosen.
        criteria: the metrics of the choice.
        last: the candidate that is chosen if all tie.
        resampling: of the intervals.

    Raises:
        UserError: there are too few items, or a score is not a finite number.
    """
    assert candidates, "there is no candidate"
    names, values = list(candidates), judged_by(candidates, criteria)
    lower_is_better = len(criteria) > 1 or criteria[0].better == "lower"
    # argmin and argmax take the first of equal candidates.
    best = int(np.argmin(values) if lower_is_better else np.argmax(values))
    if len(criteria) == 1:
        intervals = _by_metric(candidates, criteria[0].metric, names[best], resampling)
    else:
        intervals = _by_rank(candidates, criteria, best, resampling)
    standings = tuple(
        Standing(name, float(value), float(value - values[best]), low, high, tied)
        for name, value, (low, high, tied) in zip(names, values, intervals, strict=True)
    )
    choice = Choice(names[best], next(standing.name for standing in standings if standing.tied), standings)
    return replace(choice, chosen=last) if choice.all_tie else choice


def judged_by(candidates: Mapping[str, Mapping[str, Sums]], criteria: Sequence[Criterion]) -> Array:
    """The figure that decides, for each candidate, [C]: the only metric, or the weighted mean of the ranks."""
    values = [_values(candidates, one.metric) for one in criteria]
    return values[0] if len(criteria) == 1 else _mean_rank([each[:, None] for each in values], criteria)[:, 0]


def _by_metric(
    candidates: Mapping[str, Mapping[str, Sums]], metric: str, best: str, resampling: Resampling
) -> list[tuple[float, float, bool]]:
    """Each candidate's interval of its difference from the best, and whether it ties with it."""
    pairs = (
        paired((name, best), metric, (scores[metric], candidates[best][metric]), resampling=resampling)
        for name, scores in candidates.items()
    )
    return [(pair.low, pair.high, not pair.beyond_chance) for pair in pairs]


def _by_rank(
    candidates: Mapping[str, Mapping[str, Sums]], criteria: Sequence[Criterion], best: int, resampling: Resampling
) -> list[tuple[float, float, bool]]:
    """As :func:`_by_metric`, by the mean rank."""
    # Every metric has its own items, and its own draws.
    drawn = [
        _resampled(candidates, one.metric, resampling.resamples, (resampling.seed, at))
        for at, one in enumerate(criteria)
    ]
    ranks = _mean_rank(drawn, criteria)
    units = min(np.size(scores[one.metric].denominator) for scores in candidates.values() for one in criteria)
    tails = expanded_tails(units, resampling.confidence)
    ends = np.nanquantile(ranks - ranks[best], tails, axis=1).T.tolist()
    return [(low, high, units < FEWEST_UNITS or low <= 0 <= high) for low, high in ends]


def _values(candidates: Mapping[str, Mapping[str, Sums]], metric: str) -> Array:
    found = [scores[metric].arrays(f"{name}, {metric}") for name, scores in candidates.items()]
    return np.asarray([numerator[0].sum() / denominator[0].sum() for numerator, denominator in found])


def _resampled(
    candidates: Mapping[str, Mapping[str, Sums]], metric: str, resamples: int, seed: tuple[int, int]
) -> Array:
    """Each candidate's metric on each draw of items: [C, R]."""
    arrays = [scores[metric].arrays(f"{name}, {metric}") for name, scores in candidates.items()]
    numerators = np.stack([numerator[0] for numerator, _ in arrays])
    denominators = np.stack([denominator[0] for _, denominator in arrays])
    with np.errstate(invalid="ignore", divide="ignore"):
        parts = [
            (numerators @ counts.T) / (denominators @ counts.T)
            for counts in _counts(numerators.shape[1], resamples, seed)
        ]
    return np.concatenate(parts, axis=1)


def _counts(units: int, resamples: int, seed: tuple[int, int]) -> Iterator[Array]:
    """How often each item was drawn: [R, U], in pieces."""
    generator, at_once = np.random.default_rng(seed), max(1, _COUNTS_AT_ONCE // units)
    for start in range(0, resamples, at_once):
        size = min(at_once, resamples - start)
        yield generator.multinomial(units, np.full(units, 1 / units), size=size).astype(float)


def _mean_rank(values: Sequence[Array], criteria: Sequence[Criterion]) -> Array:
    """The weighted mean of the ranks that several metrics, each [C, R], give: [C, R]."""
    total = sum(one.weight for one in criteria)
    weighted = [
        one.weight / total * _ranks(each if one.better == "lower" else -each)
        for one, each in zip(criteria, values, strict=True)
    ]
    return np.asarray(sum(weighted))


def _ranks(values: Array) -> Array:
    """Ranks within each column of [C, R]: the lowest value has rank 1, and equal values share a rank."""
    found = np.empty_like(values)
    for column in range(values.shape[1]):
        own = values[:, column]
        ordered = np.sort(own)
        found[:, column] = (np.searchsorted(ordered, own, "left") + np.searchsorted(ordered, own, "right") + 1) / 2
    return found
