"""Bootstrap intervals: of a model's metric, of the difference of two models, and of means over strata.

A metric over U units (passages, items) is a ratio of sums, ``sum(numerator) / sum(denominator)``: nats over predicted
tokens, nats over bytes, right answers over items. The bootstrap resamples units, because tokens of one passage are not
independent of each other. Intervals have bias correction and acceleration (BCa: Efron & Tibshirani, *An Introduction to
the Bootstrap*, 1993, ch. 14). Draws depend on the seed and U alone: every model and every metric meets the same draws,
so that differences are paired.

Shapes: U units, S seeds, R resamples.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from potstill.errors import UserError

Array = NDArray[np.float64]
"""Figures of any shape, in double precision."""
Transform = Literal["identity", "exp"]

_DRAWS_AT_ONCE = 2**22
"""Unit draws held in memory together: 32 MiB of indices, for any U and R."""

_NORMAL = NormalDist()


@dataclass(frozen=True)
class Resampling:
    """How intervals are computed: their confidence, the number R of draws of the units, and the seed of the draws."""

    confidence: float = 0.95
    resamples: int = 10_000
    seed: int = 0


DEFAULT_RESAMPLING = Resampling()


@dataclass(frozen=True, eq=False)
class Sums:
    """The scores of one model on each unit: ``numerator`` and ``denominator``, [U], or [S, U] for S seeds of one model.

    A denominator may be shared by all seeds ([U] beside a numerator of [S, U]).
    """

    numerator: ArrayLike
    denominator: ArrayLike

    def arrays(self, what: str) -> tuple[Array, Array]:
        """Both as float64 [S, U]. Raises UserError, which names ``what``, if no interval can be computed."""
        numerator = np.atleast_2d(np.asarray(self.numerator, dtype=np.float64))
        denominator = np.asarray(self.denominator, dtype=np.float64)
        assert numerator.ndim == 2, f"{what}: sums are [U] or [S, U], got {numerator.shape}"
        assert denominator.shape in (numerator.shape, numerator.shape[1:]), (
            f"{what}: numerator {numerator.shape} against denominator {denominator.shape}"
        )
        units = numerator.shape[1]
        if units < 2:
            raise UserError(
                f"{what}: {units} passage(s) to score, and an interval needs at least 2; hold out more text"
            )
        if not np.isfinite(numerator).all() or not np.isfinite(denominator).all():
            raise UserError(f"{what}: a passage's score is not a finite number; the model is broken, train it again")
        if (denominator < 0).any() or (denominator.sum(-1) <= 0).any():
            raise UserError(f"{what}: no token to score in any passage; hold out more text")
        return numerator, np.broadcast_to(denominator, numerator.shape)


@dataclass(frozen=True)
class Spread:
    """The values of two or more seeds, and how much they differ."""

    values: tuple[float, ...]

    @property
    def n(self) -> int:
        """How many seeds."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """The mean over seeds."""
        return float(np.mean(self.values))

    @property
    def deviation(self) -> float:
        """The sample standard deviation, over n - 1."""
        return float(np.std(self.values, ddof=1))

    @property
    def low(self) -> float:
        """The lowest seed."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The highest seed."""
        return max(self.values)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types. The derived figures are for readers; ``from_dict`` computes them again."""
        derived = {name: getattr(self, name) for name in ("n", "mean", "deviation", "low", "high")}
        return derived | {"values": list(self.values)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The inverse of ``to_dict``."""
        return cls(tuple(data["values"]))


@dataclass(frozen=True)
class Result:
    """The value of one metric of one model on ``n`` units, with its interval over units.

    With several seeds, ``value`` is their mean and the interval is that of the mean. How much the seeds differ is in
    ``seeds``, not in the interval.
    """

    model: str
    metric: str
    value: float
    low: float
    high: float
    n: int
    seeds: Spread | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return vars(self) | {"seeds": self.seeds and self.seeds.to_dict()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The inverse of ``to_dict``."""
        return cls(**data | {"seeds": _spread_from(data)})


@dataclass(frozen=True)
class Paired:
    """Model ``a`` minus model ``b`` on the same ``n`` units: the difference, its interval and its two-sided ``p``.

    ``p`` is one minus the confidence at which the interval would just touch zero. So ``p`` and interval always agree.
    """

    a: str
    b: str
    metric: str
    difference: float
    low: float
    high: float
    n: int
    p: float
    seeds: Spread | None = None

    @property
    def beyond_chance(self) -> bool:
        """Whether the interval leaves zero out, and all seeds (if there are several) lie on the same side of it."""
        lowest, highest = self.low, self.high
        if self.seeds is not None:
            lowest, highest = min(lowest, self.seeds.low), max(highest, self.seeds.high)
        return lowest > 0 or highest < 0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return vars(self) | {"seeds": self.seeds and self.seeds.to_dict(), "beyond_chance": self.beyond_chance}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The inverse of ``to_dict``."""
        return cls(**{name: data[name] for name in data if name != "beyond_chance"} | {"seeds": _spread_from(data)})


def bootstrap(
    model: str,
    metric: str,
    sums: Sums,
    *,
    transform: Transform = "identity",
    resampling: Resampling = DEFAULT_RESAMPLING,
) -> Result:
    """A model's metric with its interval over units.

    Intervals cover what they promise from some 100 units on; with 10 units a 95% interval covers 86–90% (measured).
    An interval of zero width means that all units agree, not that the figure is certain.

    ``transform`` is applied to the ratio: ``exp`` makes a perplexity of nats per token. Raises UserError for fewer
    than two units, for scores that are not finite, and if nothing was scored.
    """
    numerator, denominator = sums.arrays(f"{model}, {metric}")
    statistic = _Statistic([(numerator, denominator, 1.0)], transform)
    low, high, _ = _interval(statistic, resampling)
    seeds = [float(value) for value in _transformed(numerator.sum(1) / denominator.sum(1), transform)]
    return Result(model, metric, statistic.value(), low, high, numerator.shape[1], _spread(seeds))


def paired(
    names: tuple[str, str],
    metric: str,
    sums: tuple[Sums, Sums],
    *,
    transform: Transform = "identity",
    resampling: Resampling = DEFAULT_RESAMPLING,
) -> Paired:
    """The first of two models minus the second, on the same units in the same order.

    If both have the same number of seeds, seeds are paired (the student's with its control's). A model with one row is
    compared with each seed of the other. Raises UserError as ``bootstrap`` does.
    """
    (a, b), (sums_a, sums_b) = names, sums
    numerator_a, denominator_a = sums_a.arrays(f"{a}, {metric}")
    numerator_b, denominator_b = sums_b.arrays(f"{b}, {metric}")
    units = numerator_a.shape[1]
    assert units == numerator_b.shape[1], f"{metric}: {units} units of {a} against {numerator_b.shape[1]} of {b}"
    statistic = _Statistic([(numerator_a, denominator_a, 1.0), (numerator_b, denominator_b, -1.0)], transform)
    low, high, p = _interval(statistic, resampling)
    each_a = _transformed(numerator_a.sum(1) / denominator_a.sum(1), transform)
    each_b = _transformed(numerator_b.sum(1) / denominator_b.sum(1), transform)
    assert len(each_a) == len(each_b) or 1 in (len(each_a), len(each_b)), f"{metric}: seeds of {a} and {b} do not pair"
    seeds = [float(difference) for difference in each_a - each_b]
    return Paired(a, b, metric, statistic.value(), low, high, units, p, _spread(seeds))


@dataclass(frozen=True)
class _Statistic:
    """A signed sum of models, each the mean over its seeds of a transformed ratio of sums."""

    terms: list[tuple[Array, Array, float]]
    transform: Transform

    @property
    def units(self) -> int:
        return int(self.terms[0][0].shape[1])

    def value(self) -> float:
        return float(self._combine(lambda column: column.sum(keepdims=True))[0])

    def resampled(self, draws: NDArray[np.int64]) -> Array:
        """The statistic for each row of ``draws`` [R, U] of unit numbers: [R]."""
        return self._combine(lambda column: column[draws].sum(1))

    def without_each(self) -> Array:
        """The statistic with one unit left out, for each unit: [U]."""
        return self._combine(lambda column: column.sum() - column)

    def _combine(self, total: Callable[[Array], Array]) -> Array:
        result: Array = np.zeros(1)
        for numerator, denominator, sign in self.terms:
            # One seed at a time: equal models go through equal operations, so that their difference is exactly 0.
            ratios = [
                _transformed(total(numerators) / total(denominators), self.transform)
                for numerators, denominators in zip(numerator, denominator, strict=True)
            ]
            result = result + sign * (sum(ratios) / len(ratios))
        return result


def _transformed(ratio: Array, transform: Transform) -> Array:
    with np.errstate(over="ignore"):
        return np.exp(ratio) if transform == "exp" else ratio


def _spread_from(data: dict[str, Any]) -> Spread | None:
    return Spread.from_dict(data["seeds"]) if data["seeds"] else None


def _spread(values: list[float]) -> Spread | None:
    return Spread(tuple(values)) if len(values) > 1 else None


def _draws(units: int, resampling: Resampling) -> Iterator[NDArray[np.int64]]:
    generator = np.random.default_rng(resampling.seed)
    at_once = max(1, _DRAWS_AT_ONCE // units)
    for start in range(0, resampling.resamples, at_once):
        yield generator.integers(units, size=(min(at_once, resampling.resamples - start), units))


def bca_interval(
    value: float, resampled: Array, left_out: Array, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Low and high of the BCa interval, and the two-sided p at which that interval would just touch zero.

    It works for any statistic that can be computed on resampled units.

    Args:
        value: of the statistic.
        resampled: the statistic on each draw of units, [R].
        left_out: the statistic without each unit, [U].
        confidence: of the interval.
    """
    # A draw in which no unit has a token is 0/0 and is left out.
    values = np.sort(resampled[np.isfinite(resampled)])
    if not len(values) or values[0] == values[-1] or not np.isfinite(value):
        return value, value, 1.0 if value == 0 else 0.0
    with np.errstate(invalid="ignore"):
        acceleration = _acceleration(left_out)
    bias = _quantile_of(values, value)
    tails = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    shifted = bias + np.array([_NORMAL.inv_cdf(tail) for tail in tails])
    corrected = [_NORMAL.cdf(bias + z / (1 - acceleration * z)) for z in shifted]
    low, high = np.quantile(values, corrected)
    touching = _quantile_of(values, 0.0) - bias
    one_sided = _NORMAL.cdf(touching / (1 + acceleration * touching) - bias)
    return float(low), float(high), 2 * min(one_sided, 1 - one_sided)


def _interval(statistic: _Statistic, resampling: Resampling) -> tuple[float, float, float]:
    with np.errstate(invalid="ignore", divide="ignore"):
        values = np.concatenate([statistic.resampled(draws) for draws in _draws(statistic.units, resampling)])
        left_out = statistic.without_each()
    return bca_interval(statistic.value(), values, left_out, resampling.confidence)


def _quantile_of(values: Array, point: float) -> float:
    """The normal score of ``point`` among sorted ``values``. Ties count half; R draws resolve no less than 1/2R."""
    rank = (np.searchsorted(values, point, "left") + np.searchsorted(values, point, "right")) / 2
    return float(_NORMAL.inv_cdf(float(np.clip(rank, 0.5, len(values) - 0.5)) / len(values)))


def _acceleration(left_out: Array) -> float:
    """How the standard error changes with the value, from the jackknife [U]."""
    distance = np.mean(left_out) - left_out
    squares = float(np.sum(distance**2))
    if not np.isfinite(squares) or squares == 0:
        return 0.0
    return float(np.sum(distance**3)) / (6 * squares**1.5)


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Each p after Holm's correction for all of them (*A simple sequentially rejective multiple test procedure*)."""
    ranked = sorted(p, key=lambda name: p[name])
    adjusted = np.maximum.accumulate([(len(p) - rank) * p[name] for rank, name in enumerate(ranked)])
    return {name: min(1.0, float(value)) for name, value in zip(ranked, adjusted, strict=True)}


@dataclass(frozen=True)
class StratifiedMean:
    """The mean over all strata, or of one stratum, with its interval and its two-sided ``p``."""

    value: float
    low: float
    high: float
    p: float


def stratified(
    values: Mapping[str, Array],
    resampling: Resampling = DEFAULT_RESAMPLING,
    weights: Mapping[str, float] | None = None,
) -> tuple[StratifiedMean, dict[str, StratifiedMean]]:
    """The mean over subtasks of the mean over items, and each subtask's mean, by draws of items within their subtask.

    Args:
        values: the items of each subtask, [P].
        resampling: of the intervals.
        weights: each subtask's share of the whole; equal by default.
    """
    resampled = {
        name: _resampled_means(each, resampling.resamples, np.random.default_rng((resampling.seed, number)))
        for number, (name, each) in enumerate(values.items())
    }
    confidence = resampling.confidence
    means = {name: float(each.mean()) for name, each in values.items()}
    changes = {name: (each.mean() - each) / (len(each) - 1) for name, each in values.items()}
    subtasks = {
        name: StratifiedMean(
            means[name], *bca_interval(means[name], resampled[name], means[name] + changes[name], confidence)
        )
        for name in values
    }
    value = float(mean_over(means, weights))
    shares = {name: 1 / len(values) if weights is None else weights[name] for name in values}
    left_out = value + np.concatenate([shares[name] * change for name, change in changes.items()])
    return StratifiedMean(value, *bca_interval(value, mean_over(resampled, weights), left_out, confidence)), subtasks


def _resampled_means(values: Array, resamples: int, generator: np.random.Generator) -> Array:
    """The mean of each of R draws of the items with replacement: [R].

    Only a few different values occur. To draw how often each occurs is equivalent, and a hundred times as fast.
    """
    kinds, counts = np.unique(values, return_counts=True)
    return generator.multinomial(len(values), counts / len(values), size=resamples) @ kinds / len(values)


def mean_over(subtasks: Mapping[str, Any], weights: Mapping[str, float] | None = None) -> Any:
    """The mean over subtasks, of numbers or of arrays of one shape; ``weights`` as in :func:`stratified`."""
    if weights is None:
        return sum(subtasks.values()) / len(subtasks)
    return sum(weights[name] * each for name, each in subtasks.items())
