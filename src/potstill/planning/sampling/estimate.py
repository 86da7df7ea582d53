"""Estimates from a sample: a ratio and its interval."""

import math
import random
from collections.abc import Sequence

from potstill.planning.ranges import Range

ERRORS = 3.0
"""The half-width of an interval, in standard errors."""
OF_ONE = 1.5
"""The factor by which the ratio of a single unit may be wrong."""


def drawn(population: int, most: int) -> list[int]:
    """The places of at most `most` units, drawn at random in the same way each time, in their order."""
    return sorted(random.Random(0).sample(range(population), min(population, most)))


def ratio(values: Sequence[float], sizes: Sequence[float], population: float) -> Range:
    """The sum of values over the sum of sizes, in a population from which some units were drawn at random.

    The error is that of a ratio estimator, with its correction for a finite population (Cochran, Sampling Techniques,
    chapter 6).

    Args:
        values: of the drawn units, none below 0.
        sizes: of the same units, such as 1 for a mean; their sum is above 0.
        population: the number of all units.
    """
    count, found = len(values), sum(values) / sum(sizes)
    if count >= population:
        return Range.exactly(found)
    if count == 1:
        return Range.around(found, OF_ONE, OF_ONE)
    spread = math.sqrt(
        sum((value - found * size) ** 2 for value, size in zip(values, sizes, strict=True)) / (count - 1)
    )
    error = ERRORS * spread / (sum(sizes) / count) * math.sqrt((1 - count / population) / count)
    return Range(max(0.0, found - error), found, found + error)


def mean(values: Sequence[float], population: float) -> Range:
    """The mean of a population of which some units were drawn at random."""
    return ratio(values, [1.0] * len(values), population)
