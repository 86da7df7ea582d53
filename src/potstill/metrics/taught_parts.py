"""Taught parts: the scores of held-out items apart for each teacher and each set of teachers that teach such items.

Shapes: U items.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from potstill.data.row_teachers import NOBODY, Teachers, parts_of
from potstill.metrics.bootstrap import Sums

COMPARED = ("kl_to_teacher", "agreement")
"""Metrics that compare a model with an item's teachers."""
BY_PART = ("loss", *COMPARED, "accuracy")
"""The metrics that are told for each part, such as `loss/maths`."""
FEWEST = 2
"""The fewest items of a part: an interval needs as many."""


class ItemScores(Protocol):
    """The scores of one model of one seed, by item."""

    def sums(self, metric: str) -> Sums:
        """Numerator and denominator of a metric for each item."""


@dataclass(frozen=True)
class TaughtParts:
    """The parts of U items, by the teachers of each."""

    sets: Sequence[Teachers]
    names: Sequence[str]
    """The names of all teachers."""

    @cached_property
    def numbers(self) -> list[tuple[int, ...]]:
        """The numbers of each item's teachers."""
        places = {name: number for number, name in enumerate(self.names)}
        return [tuple(places[name] for name in teachers) for teachers in self.sets]

    @cached_property
    def parts(self) -> dict[str, NDArray[np.bool_]]:
        """Which items belong to each part, [U], without parts of fewer than two items."""
        found = {name: np.asarray(own, bool) for name, own in parts_of(self.sets, self.names)}
        return {name: own for name, own in found.items() if own.sum() >= FEWEST}

    def metrics(self, metrics: Sequence[str]) -> list[str]:
        """The metrics, and those of each part. What compares with teachers is left out where there are none."""
        taught = sum(bool(teachers) for teachers in self.sets) >= FEWEST
        kept = [name for name in metrics if taught or name.partition("/")[0] not in COMPARED]
        for name in [name for name in kept if name in BY_PART]:
            kept += [f"{name}/{part}" for part in self.parts if part != NOBODY or name not in COMPARED]
        return kept


@dataclass(frozen=True)
class PartScores:
    """Scores that also have the metrics of each part."""

    each: ItemScores
    parts: TaughtParts

    def sums(self, metric: str) -> Sums:
        """Numerator and denominator of a metric for each item that counts in it."""
        name, _, part = metric.partition("/")
        of_part = self.parts.parts.get(part)
        found = self.each.sums(metric if of_part is None else name)
        numerator, denominator = np.asarray(found.numerator), np.asarray(found.denominator)
        counts = np.ones(len(denominator), bool) if of_part is None else of_part
        if name in COMPARED:
            counts = counts & (denominator > 0)
        return replace(found, numerator=numerator[counts], denominator=denominator[counts])
