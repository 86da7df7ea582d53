"""Ranges: a forecast as its least, its expected and its greatest value."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Range:
    """A number that is not known yet. All three values have one unit, which the owner's docstring says."""

    low: float
    expected: float
    high: float

    def __post_init__(self) -> None:
        assert self.low <= self.expected <= self.high, (self.low, self.expected, self.high)

    @classmethod
    def exactly(cls, value: float) -> Self:
        """A number that is known."""
        return cls(value, value, value)

    @classmethod
    def around(cls, value: float, below: float, above: float) -> Self:
        """A value that may be `below` times smaller, or `above` times greater; both are factors from 1 on."""
        return cls(value / below, value, value * above)

    @classmethod
    def greatest(cls, several: Iterable["Range"]) -> Self:
        """The greatest of several numbers, none of which is below 0."""
        found = [cls.exactly(0.0), *several]
        low, expected, high = (max(getattr(one, name) for one in found) for name in ("low", "expected", "high"))
        return cls(low, expected, high)

    @property
    def is_exact(self) -> bool:
        """Whether the number is known."""
        return self.low == self.high

    def __add__(self, other: "Range | float") -> "Range":
        if not isinstance(other, Range):
            other = Range.exactly(other)
        return Range(self.low + other.low, self.expected + other.expected, self.high + other.high)

    def __mul__(self, other: "Range | float") -> "Range":
        if not isinstance(other, Range):
            other = Range.exactly(other)
        return Range(self.low * other.low, self.expected * other.expected, self.high * other.high)

    def __truediv__(self, other: "Range | float") -> "Range":
        if not isinstance(other, Range):
            other = Range.exactly(other)
        return Range(self.low / other.high, self.expected / other.expected, self.high / other.low)

    def less(self, other: "Range") -> "Range":
        """This number without a part of it, which is not greater than the whole."""
        expected = max(0.0, self.expected - other.expected)
        return Range(min(expected, max(0.0, self.low - other.high)), expected, max(expected, self.high - other.low))

    def at_most(self, most: float) -> "Range":
        """The smaller of this number and one that is known."""
        return Range(min(self.low, most), min(self.expected, most), min(self.high, most))

    __radd__, __rmul__ = __add__, __mul__

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def to_list(self) -> list[float]:
        """Plain JSON types."""
        return [self.low, self.expected, self.high]

    @classmethod
    def from_list(cls, values: Iterable[float]) -> Self:
        """The inverse of ``to_list``."""
        return cls(*values)


ZERO, ONE = Range.exactly(0.0), Range.exactly(1.0)
