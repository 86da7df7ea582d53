"""Parts of a task: a figure on some of its items, and what it is a ratio of.

lm-eval gives a figure for all items. Where half of them are chosen on, the figure that is reported is computed again
here from what each of the others contributed, in the way that lm-eval does it.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np

from potstill.metrics.bootstrap import Sums
from potstill.metrics.lm_eval.score import MetricScore

Wanted = Callable[[str, int], bool]
"""Whether an item is in a part: its task, and its number there."""


def part(score: MetricScore, wanted: Wanted) -> MetricScore:
    """The same metric on some of its items; lm-eval's own standard error is of all of them, and is left out."""
    items = {task: [one for at, one in enumerate(each) if wanted(task, at)] for task, each in score.items.items()}
    n = sum(map(len, items.values()))
    half = replace(score, items=items, stderr=None, n=n)
    return replace(half, value=value(half))


def value(score: MetricScore) -> float:
    """The metric's value, from its items."""
    sums = as_sums(score)
    ratio = float(np.sum(sums.numerator) / np.sum(sums.denominator))
    return math.exp(ratio) if transform(score) == "exp" else ratio


def as_sums(score: MetricScore) -> Sums:
    """What each item adds, [P] over all tasks: the value is the ratio of the sums, or e to its power.

    Of a group, each item counts by its task's share of the group.
    """
    pairs = sum(map(len, score.items.values()))
    numerators, denominators = [], []
    for task, items in score.items.items():
        each = np.asarray(items, dtype=np.float64)
        if score.aggregation == "mean":
            numerators.append(each * (score.weights[task] * pairs / len(each)))
            denominators.append(np.ones(len(each)))
        elif score.aggregation == "perplexity":
            numerators.append(-each)
            denominators.append(np.ones(len(each)))
        else:
            numerators.append(-each[:, 0] / (math.log(2) if score.aggregation == "bits_per_byte" else 1.0))
            denominators.append(each[:, 1])
    return Sums(np.concatenate(numerators), np.concatenate(denominators))


def transform(score: MetricScore) -> Literal["identity", "exp"]:
    """What makes a value of the ratio."""
    return "exp" if score.aggregation in ("perplexity", "weighted_perplexity") else "identity"
