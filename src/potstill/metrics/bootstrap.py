"""Bootstrap: a model's metric and the difference of two models, with intervals over units and seeds.

A metric over U units (passages, items) is a ratio of sums, ``sum(numerator) / sum(denominator)``: nats over predicted
tokens, nats over bytes, right answers over items. The bootstrap resamples units, because tokens of one passage are not
independent of each other. Draws depend on the seed and U alone: every model and every metric meets the same draws, so
that differences are paired. ``intervals.py`` makes the interval.

Shapes: U units, S seeds, R resamples.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from potstill.errors import UserError
from potstill.metrics.intervals import UNBOUNDED, Array, Ends, Interval, Sampled, interval
from potstill.metrics.results import Paired, Result

Transform = Literal["identity", "exp"]

_DRAWS_AT_ONCE = 2**22
"""Unit draws held in memory together: 32 MiB of indices, for any U and R."""


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
    can_exceed_one: bool = field(default=False, kw_only=True)
    """Whether the figure may be above 1 although it is not for any of these units: a ratio of lengths, or nats. A KL of
    0 on every unit is no share of units."""

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


def bootstrap(
    model: str,
    metric: str,
    sums: Sums,
    *,
    transform: Transform = "identity",
    resampling: Resampling = DEFAULT_RESAMPLING,
) -> Result:
    """A model's metric with its interval over units and seeds.

    ``transform`` is applied to the ratio: ``exp`` makes a perplexity of nats per token. Raises UserError for fewer
    than two units, for scores that are not finite, and if nothing was scored.
    """
    numerator, denominator = sums.arrays(f"{model}, {metric}")
    statistic = _Statistic([(numerator, denominator)])
    found = _interval(statistic, _bounds(sums, numerator, denominator), resampling)
    if transform == "exp":
        found = found.exponential(statistic.by_seed())
    return found.result(model, metric, _scored(denominator))


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
    ours, theirs = (each.arrays(f"{name}, {metric}") for name, each in zip(names, sums, strict=True))
    (seeds, units), (other_seeds, other_units) = ours[0].shape, theirs[0].shape
    assert units == other_units, f"{metric}: {units} units of {names[0]} against {other_units} of {names[1]}"
    assert seeds == other_seeds or 1 in (seeds, other_seeds), f"{metric}: seeds of {' and '.join(names)} do not pair"
    (low, high), (other_low, other_high) = _bounds(sums[0], *ours), _bounds(sums[1], *theirs)
    bounds = (low - other_high, high - other_low) if transform == "identity" else UNBOUNDED
    found = _interval(_Statistic([ours, theirs], transform), bounds, resampling)
    return found.paired(names, metric, min(_scored(ours[1]), _scored(theirs[1])))


def _scored(denominator: Array) -> int:
    """The number of units that have something to score."""
    return int((denominator > 0).any(0).sum())


@dataclass(frozen=True)
class _Statistic:
    """A transformed ratio of sums of one model, or the difference of two, for each seed."""

    terms: list[tuple[Array, Array]]
    transform: Transform = "identity"

    @property
    def units(self) -> int:
        return int(self.terms[0][0].shape[1])

    def by_seed(self) -> Array:
        """The statistic of each seed: [S]."""
        return self._of_seeds(lambda column: column.sum(keepdims=True))[:, 0]

    def resampled(self, draws: NDArray[np.int64]) -> Array:
        """The mean over seeds for each row of ``draws`` [R, U] of unit numbers: [R]."""
        return self._of_seeds(lambda column: column[draws].sum(1)).mean(0)

    def without_each(self) -> Array:
        """The statistic of each seed with one unit left out, for each unit: [S, U]."""
        return self._of_seeds(lambda column: column.sum() - column)

    def _of_seeds(self, total: Callable[[Array], Array]) -> Array:
        # One seed at a time: equal models go through equal operations, so that their difference is exactly 0.
        figures = [
            np.stack(
                [_transformed(total(one) / total(other), self.transform) for one, other in zip(*term, strict=True)]
            )
            for term in self.terms
        ]
        with np.errstate(invalid="ignore"):
            return figures[0] if len(figures) == 1 else figures[0] - figures[1]


def _interval(statistic: _Statistic, bounds: Ends, resampling: Resampling) -> Interval:
    with np.errstate(invalid="ignore", divide="ignore"):
        draws = np.concatenate([statistic.resampled(draws) for draws in _draws(statistic.units, resampling)])
        left_out = statistic.without_each()
    return interval(Sampled(statistic.by_seed(), draws, [left_out], bounds), resampling.confidence)


def _transformed(ratio: Array, transform: Transform) -> Array:
    with np.errstate(over="ignore"):
        return np.exp(ratio) if transform == "exp" else ratio


def _bounds(sums: Sums, numerator: Array, denominator: Array) -> Ends:
    """The least and the greatest value of a ratio: 0 and 1 for a share, whose sums are counts (ties count half)."""
    if (numerator < 0).any():
        return UNBOUNDED
    counts = (numerator <= denominator).all() and (numerator % 0.5 == 0).all()
    return 0.0, 1.0 if counts and not sums.can_exceed_one else np.inf


def _draws(units: int, resampling: Resampling) -> Iterator[NDArray[np.int64]]:
    generator = np.random.default_rng(resampling.seed)
    at_once = max(1, _DRAWS_AT_ONCE // units)
    for start in range(0, resampling.resamples, at_once):
        yield generator.integers(units, size=(min(at_once, resampling.resamples - start), units))
