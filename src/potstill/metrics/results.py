"""Results of metrics: a model's figure, the difference of two models, their intervals, and the correction of several p.

Shapes: U units (passages, items), S seeds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

FEWEST_UNITS = 10
"""With fewer units no difference is beyond chance: their intervals cover less than they promise."""


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

    @classmethod
    def of(cls, values: Any) -> Self | None:
        """The spread of some numbers; None for a single one."""
        return cls(tuple(map(float, values))) if len(values) > 1 else None

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
    """The value of one metric of one model on ``n`` units, with its interval.

    With several seeds, ``value`` is their mean, and the interval covers chance in the units and in the seeds.
    ``over_units`` is then the interval over the units alone: it is true of these trainings, and not of others.
    """

    model: str
    metric: str
    value: float
    low: float
    high: float
    n: int
    seeds: Spread | None = None
    over_units: tuple[float, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return vars(self) | {"seeds": self.seeds and self.seeds.to_dict()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The inverse of ``to_dict``."""
        return cls(**data | _of_seeds(data))


@dataclass(frozen=True)
class Paired:
    """Model ``a`` minus model ``b`` on the same ``n`` units: the difference, its interval and its two-sided ``p``.

    ``p`` is one minus the confidence at which the interval would just touch zero. So ``p`` and interval always agree.
    Seeds and ``over_units`` are those of :class:`Result`.
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
    over_units: tuple[float, float] | None = None

    @property
    def too_few(self) -> bool:
        """Whether there are too few units to tell anything."""
        return self.n < FEWEST_UNITS

    @property
    def beyond_chance(self) -> bool:
        """Whether the interval leaves zero out, and there are enough units to trust it."""
        return not self.too_few and (self.low > 0 or self.high < 0)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return vars(self) | {"seeds": self.seeds and self.seeds.to_dict(), "beyond_chance": self.beyond_chance}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The inverse of ``to_dict``."""
        return cls(**{name: data[name] for name in data if name != "beyond_chance"} | _of_seeds(data))


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Each p after Holm's correction for all of them (*A simple sequentially rejective multiple test procedure*)."""
    ranked = sorted(p, key=lambda name: p[name])
    adjusted = np.maximum.accumulate([(len(p) - rank) * p[name] for rank, name in enumerate(ranked)])
    return {name: min(1.0, float(value)) for name, value in zip(ranked, adjusted, strict=True)}


def _of_seeds(data: dict[str, Any]) -> dict[str, Any]:
    over_units = data["over_units"]
    return {
        "seeds": Spread.from_dict(data["seeds"]) if data["seeds"] else None,
        "over_units": over_units and tuple(over_units),
    }
