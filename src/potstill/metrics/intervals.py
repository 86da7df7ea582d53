"""Intervals: what is known of a figure from few units, from units that differ in kind, and from several seeds.

*Units.* A bootstrap interval with bias correction and acceleration (BCa: Efron & Tibshirani, *An Introduction to the
Bootstrap*, 1993, ch. 14) is too narrow for few units: at 20, an interval of 95% covers 88 to 91%. So its ends are moved
outwards by the ratio of Student's t to the normal quantile, and by ``sqrt(n / (n - 1))``, because the bootstrap divides
by n (as in the expanded percentile interval of Hesterberg, *What Teachers Should Know About the Bootstrap*, 2015). The
degrees of freedom are those of the variance, which heavy tails make uncertain: ``2 / (2 / (n - 1) + kurtosis / n)``,
where the excess kurtosis is the units' own and at least 0; those of several strata are combined as Satterthwaite does
(1946). Sparse differences, such as 4 right answers more among 200, are one kind of heavy tails. An interval by the
jackknife's standard error with the same t is better if the tails are symmetric, and worse if they are skewed. Each end
is the outer one of both.

Below 60 units also of a third: the studentised bootstrap (Efron & Tibshirani, ch. 12.5), which resamples the figure
divided by its own standard error. A few units show only a part of a strong skew, such as that of a lognormal with
σ = 1. So its quantiles count with the factor by which the 95% ones exceed Student's t, as simulations bear out.

*Seeds.* Units and seeds are crossed: each seed is scored on the same units, so that both are random effects (Clark,
*The language-as-fixed-effect fallacy*, 1973). Student's t with S - 1 degrees of freedom gives the seeds' half-width,
from the standard deviation between seeds. This one has a part that is also in the variance over units: each seed finds
other units difficult. The units' half-width is taken without that part, and both half-widths are combined as the root
of the sum of their squares (MOVER: Zou & Donner, *Construction of confidence limits about effect measures*, 2008). The
interval is never narrower than that over units alone. With two seeds it is wide: t is 12.7.

*Agreement.* If all units of a share agree (20 of 20 right), the share of units that might do otherwise is at most
``1 - (alpha / 2) ** (1 / n)`` (Clopper & Pearson, 1934), by the smallest stratum. For other figures the interval then
has no width.

Shapes: U units, S seeds, R resamples.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from potstill.metrics.results import Paired, Result, Spread

Array = NDArray[np.float64]
"""Figures of any shape, in double precision."""

Ends = tuple[float, float]
"""Low and high."""

UNBOUNDED: Ends = (-math.inf, math.inf)

_LEAST_ALPHA = 1e-12
"""The smallest p; an interval that leaves zero out even so has p = 0."""
_HUGE = 1e60
"""The squares of differences between larger figures (the perplexities of a diverged model) may overflow."""
_FEW_UNITS = 60
"""Below this number of units, an interval is also that of the studentised bootstrap."""
_STUDENTISED_DRAWS = 1000
_USUAL_ALPHA = 0.05
_ROUNDING = 1e-14
"""Relative differences between units that rounding makes."""


@dataclass(frozen=True)
class Interval:
    """A figure with its interval and its two-sided p; ``seeds`` and ``over_units`` are those of ``Result``."""

    value: float
    low: float
    high: float
    p: float
    seeds: Spread | None = None
    over_units: Ends | None = None

    def exponential(self, by_seed: Array) -> "Interval":
        """The interval of the mean of ``exp(by_seed)`` from that of the mean of ``by_seed``, [S]."""
        with np.errstate(over="ignore"):
            seeds = np.exp(by_seed)
            value = float(seeds.mean())
            ends = (self.low, self.high, *(self.over_units or ()))
            low, high, *over_units = (value * float(np.exp(end - self.value)) for end in ends)
            of_units = (over_units[0], over_units[1]) if over_units else None
            return Interval(value, low, high, math.nan, Spread.of(seeds), of_units)

    def result(self, model: str, metric: str, n: int) -> Result:
        """The figure as the metric of a model on ``n`` units."""
        return Result(model, metric, self.value, self.low, self.high, n, self.seeds, self.over_units)

    def paired(self, names: tuple[str, str], metric: str, n: int) -> Paired:
        """The figure as the difference of two models on ``n`` units."""
        return Paired(*names, metric, self.value, self.low, self.high, n, self.p, self.seeds, self.over_units)


@dataclass(frozen=True, eq=False)
class Sampled:
    """A figure, and what resampling and leaving out told of it.

    ``by_seed`` is the figure of each seed, [S]. ``draws`` is the mean over seeds on each draw of units, [R].
    ``left_out`` has each seed's figure without each unit, [S, U], an array for each stratum. ``bounds`` are the least
    and the greatest value that the figure can have.
    """

    by_seed: Array
    draws: Array
    left_out: Sequence[Array]
    bounds: Ends = UNBOUNDED

    @property
    def value(self) -> float:
        """The mean over seeds."""
        return float(np.mean(self.by_seed))

    def scaled(self, factor: float) -> "Sampled":
        """The figure in another unit."""
        left_out, (low, high) = [each * factor for each in self.left_out], self.bounds
        return Sampled(self.by_seed * factor, self.draws * factor, left_out, (low * factor, high * factor))


def interval(sampled: Sampled, confidence: float = 0.95) -> Interval:
    """The interval of a figure over its units and, if there are several, its seeds."""
    value, seeds = sampled.value, Spread.of(sampled.by_seed)
    if not math.isfinite(value):
        over_units = (value, value) if seeds else None
        return Interval(value, value, value, 1.0 if math.isnan(value) else 0.0, seeds, over_units)
    size = max(1.0, float(np.max(np.abs(sampled.by_seed))) / _HUGE)
    ends = _EndsByAlpha(sampled.scaled(1 / size))
    low, high = _inside(ends.whole(1 - confidence), sampled.bounds, size)
    over_units = _inside(ends.over_units(1 - confidence), sampled.bounds, size) if seeds else None
    return Interval(value, low, high, ends.p(), seeds, over_units)


def from_standard_errors(values: Sequence[float], errors: Sequence[float], n: int, confidence: float) -> Interval:
    """The interval of a figure of ``n`` units whose standard error is known, one for each seed, but not its units."""
    value, error, alpha = float(np.mean(values)), float(np.mean(errors)), 1 - confidence
    half = _student(max(n - 1, 1), alpha) * error
    of_seeds = math.sqrt(np.var(values, ddof=1) / len(values)) if len(values) > 1 else 0.0
    whole = math.hypot(half, _student(len(values) - 1, alpha) * of_seeds) if of_seeds else half
    over_units = (value - half, value + half) if len(values) > 1 else None
    return Interval(value, value - whole, value + whole, math.nan, Spread.of(values), over_units)


def _inside(ends: Ends, bounds: Ends, size: float) -> Ends:
    return max(ends[0] * size, bounds[0]), min(ends[1] * size, bounds[1])


class _EndsByAlpha:
    """The ends of an interval, for any two-sided error rate alpha."""

    def __init__(self, sampled: Sampled) -> None:
        self._value, self._bounds = sampled.value, sampled.bounds
        self._seeds = len(sampled.by_seed)
        # A draw in which no unit has a token is 0/0 and is left out.
        self._draws = np.sort(sampled.draws[np.isfinite(sampled.draws)])
        strata = [_Stratum(each) for each in sampled.left_out if each.shape[1] > 1]
        self._fewest = min((stratum.units for stratum in strata), default=1)
        self._variance = sum(stratum.variance for stratum in strata)
        if self._variance:
            self._degrees = self._variance**2 / sum(one.variance**2 / one.degrees for one in strata if one.variance)
            self._widened = math.sqrt(self._variance / sum(one.variance * (1 - 1 / one.units) for one in strata))
            self._acceleration = _acceleration(np.concatenate([one.deviations for one in strata]))
            few = sum(stratum.units for stratum in strata) < _FEW_UNITS
            self._studentised = _Studentised(_studentised_draws(strata), self._degrees) if few else None
        if self._seeds > 1:
            shared = sum(stratum.shared for stratum in strata)
            self._seed_error = math.sqrt(float(np.var(sampled.by_seed, ddof=1)) / self._seeds)
            self._unshared = math.sqrt(max(0.0, 1 - shared / self._seeds / self._variance)) if self._variance else 1.0

    def over_units(self, alpha: float) -> Ends:
        """The ends of the interval over units alone."""
        value = self._value
        if not self._variance:
            return self._of_agreement(alpha)
        t, z = _student(self._degrees, alpha), _normal(alpha)
        low, high = self._bca(z)
        wider, error = self._widened * t / z, math.sqrt(self._variance)
        below, above = max((value - low) * wider, t * error), max((high - value) * wider, t * error)
        if self._studentised is not None:
            of_draws = self._studentised.halves(alpha)
            below, above = max(below, of_draws[0] * error), max(above, of_draws[1] * error)
        return value - below, value + above

    def whole(self, alpha: float) -> Ends:
        """The ends of the interval over units and seeds."""
        low, high = self.over_units(alpha)
        if self._seeds == 1:
            return low, high
        value, of_seeds = self._value, _student(self._seeds - 1, alpha) * self._seed_error
        below, above = (math.hypot(self._unshared * half, of_seeds) for half in (value - low, high - value))
        return min(low, value - below), max(high, value + above)

    def p(self) -> float:
        """The alpha at which the interval would just touch zero."""
        if self._value == 0:
            return 1.0
        if self._leaves_zero_out(_LEAST_ALPHA):
            return 0.0
        if not self._leaves_zero_out(1 - 1e-9):
            return 1.0
        touching, beyond = math.log(_LEAST_ALPHA), 0.0
        for _ in range(50):
            middle = (touching + beyond) / 2
            if self._leaves_zero_out(math.exp(middle)):
                beyond = middle
            else:
                touching = middle
        return math.exp(beyond)

    def _leaves_zero_out(self, alpha: float) -> bool:
        low, high = self.whole(alpha)
        return low > 0 or high < 0

    def _of_agreement(self, alpha: float) -> Ends:
        (lowest, highest), value = self._bounds, self._value
        if not math.isfinite(highest - lowest):
            return value, value
        unseen = 1 - (alpha / 2) ** (1 / self._fewest)
        return value - unseen * (value - lowest), value + unseen * (highest - value)

    def _bca(self, z: float) -> Ends:
        from scipy.special import ndtr

        if not len(self._draws):
            return self._value, self._value
        last, ends = len(self._draws) - 1, []
        for shifted in (self._bias - z, self._bias + z):
            room = 1 - self._acceleration * shifted
            rank = last * float(ndtr(self._bias + shifted / room)) if room > 0 else last * float(shifted > 0)
            below = min(int(rank), last - 1) if last else 0
            one, other = self._draws[below], self._draws[min(below + 1, last)]
            ends.append(float(one + (rank - below) * (other - one)))
        return ends[0], ends[1]

    @cached_property
    def _bias(self) -> float:
        """The normal score of the value among its draws. Ties count half; R draws resolve no less than 1/2R."""
        from scipy.special import ndtri

        draws = self._draws
        rank = (np.searchsorted(draws, self._value, "left") + np.searchsorted(draws, self._value, "right")) / 2
        return float(ndtri(np.clip(rank, 0.5, len(draws) - 0.5) / len(draws)))


class _Stratum:
    """The variance of a figure that comes from one stratum of units, by the jackknife.

    Args:
        left_out: the figure of each seed without each unit, [S, U].
    """

    def __init__(self, left_out: Array) -> None:
        seeds, self.units = left_out.shape
        # Without its only unit with a token, a figure is 0/0.
        known = np.where(np.isfinite(left_out), left_out, np.nan)
        with np.errstate(invalid="ignore"):
            each = np.nan_to_num(known - np.nanmean(known, axis=1, keepdims=True))
        self.deviations: Array = each.mean(0)
        scaled, squares = 1 - 1 / self.units, float(np.sum(self.deviations**2))
        if squares <= self.units * (_ROUNDING * np.nanmax(np.abs(known), initial=0)) ** 2:
            squares = 0.0
        self.variance = scaled * squares
        # The variance that a seed's figure has because each seed finds other units difficult.
        self.shared = scaled * float(np.sum((each - self.deviations) ** 2)) / (seeds - 1) if seeds > 1 else 0.0

    @property
    def degrees(self) -> float:
        """The degrees of freedom of the variance."""
        kurtosis = self.units * float(np.sum(self.deviations**4)) / float(np.sum(self.deviations**2)) ** 2 - 3
        return 2 / (2 / (self.units - 1) + max(0.0, kurtosis) / self.units)


class _Studentised:
    """The half-widths of the studentised bootstrap, in standard errors.

    Args:
        draws: distances in standard errors, of some draws of the units.
        degrees: the degrees of freedom of the variance.
    """

    def __init__(self, draws: Array, degrees: float) -> None:
        self._draws = np.sort(draws) if len(draws) else np.zeros(1)
        t = _student(degrees, _USUAL_ALPHA)
        self._excess = [max(1.0, half / t) for half in self._quantiles(_USUAL_ALPHA)]

    def halves(self, alpha: float) -> tuple[float, float]:
        """Below and above the figure, times the excess over Student's t at 95%."""
        below, above = self._quantiles(alpha)
        return below * self._excess[0], above * self._excess[1]

    def _quantiles(self, alpha: float) -> tuple[float, float]:
        least, greatest = np.quantile(self._draws, [alpha / 2, 1 - alpha / 2])
        return float(greatest), -float(least)


def _studentised_draws(strata: Sequence[_Stratum]) -> Array:
    """The figure's distance from its value on each draw of units, over its standard error on that draw: [draws].

    The figure is taken as linear in its units, as the jackknife takes it. A draw whose units are all equal has no
    standard error and is left out.
    """
    generator = np.random.default_rng(0)
    distance, variance = np.zeros(_STUDENTISED_DRAWS), np.zeros(_STUDENTISED_DRAWS)
    for one in strata:
        of_units = -(one.units - 1) * one.deviations
        drawn = of_units[generator.integers(one.units, size=(_STUDENTISED_DRAWS, one.units))]
        distance += drawn.mean(1)
        variance += drawn.var(1, ddof=1) / one.units
    known = variance > (_ROUNDING * np.abs(distance).max()) ** 2
    draws: Array = distance[known] / np.sqrt(variance[known])
    return draws


def _acceleration(deviations: Array) -> float:
    """How the standard error changes with the value, from the jackknife [U]."""
    return float(-np.sum(deviations**3) / (6 * np.sum(deviations**2) ** 1.5))


def expanded_tails(units: int, confidence: float) -> Ends:
    """The quantiles of U units' draws that bound a percentile interval, expanded for few units (Hesterberg, 2015)."""
    from scipy.special import ndtr

    tail = float(ndtr(-math.sqrt(units / (units - 1)) * _student(units - 1, 1 - confidence)))
    return tail, 1 - tail


def _student(degrees: float, alpha: float) -> float:
    """The two-sided quantile of Student's t. scipy.special takes a third of a second to import."""
    from scipy.special import stdtrit

    return -float(stdtrit(degrees, alpha / 2))


def _normal(alpha: float) -> float:
    from scipy.special import ndtri

    return -float(ndtri(alpha / 2))
