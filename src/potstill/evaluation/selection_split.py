"""Selection split: items that select snapshots are never reported, and reported items never select.

Text has a validation split for selection. If the recipe selects by another metric, half of the metric's items select
and the other half is reported. A hash of the item decides its half, so new items do not move old ones.
"""

import hashlib
from collections.abc import Callable
from typing import Literal

from potstill.recipe import Recipe

Split = Literal["selection", "reporting"]
"""The purpose of a split: to select snapshots, or to report. No item is in both."""


def splits_of(recipe: Recipe, *items: str) -> list[Split]:
    """The splits of a set of minimal pairs, of continuations or of a task, by its name or names.

    All items are reported if `select.by` has none of their metrics, such as `lambada/acc`.
    """
    chosen_on = recipe.select is not None and any(metric.partition("/")[0] in items for metric in recipe.select.by)
    return ["selection", "reporting"] if chosen_on else ["reporting"]


def split_of(item: str) -> Split:
    """The half to which an item belongs, if half of a metric's items select snapshots."""
    return "selection" if hashlib.sha256(item.encode()).digest()[0] % 2 == 0 else "reporting"


def in_split(split: Split) -> Callable[[str, int], bool]:
    """A test whether an item of a task is in a split, by the task's name and the item's number in lm-eval's order."""
    return lambda task, number: split_of(f"{task}/{number}") == split
