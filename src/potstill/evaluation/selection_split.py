"""Splits: what is chosen on is not reported, and what is reported is not chosen on.

A text has a validation split. Of the items of any other metric, half are chosen on where the recipe chooses by it, and
the others are reported; which half an item is in, a hash of it says, so that more items do not move the others.
"""

import hashlib
from collections.abc import Callable
from typing import Literal

from potstill.recipe import Recipe

Split = Literal["selection", "reporting"]
"""What a split is for: to choose on, or to report. No item is in both."""


def splits_of(recipe: Recipe, *items: str) -> list[Split]:
    """The splits of the items of a set of minimal pairs or of a task, by its name or names; all of them are reported
    where nothing is chosen by them, be it by one of several metrics (`lambada/acc`)."""
    chosen_on = recipe.select is not None and any(metric.partition("/")[0] in items for metric in recipe.select.by)
    return ["selection", "reporting"] if chosen_on else ["reporting"]


def split_of(item: str) -> Split:
    """Which half an item belongs to, where half of a metric's items are chosen on."""
    return "selection" if hashlib.sha256(item.encode()).digest()[0] % 2 == 0 else "reporting"


def in_split(split: Split) -> Callable[[str, int], bool]:
    """Whether an item of a task is in a half, by the task's name and the item's number: lm-eval keeps their order."""
    return lambda task, number: split_of(f"{task}/{number}") == split
