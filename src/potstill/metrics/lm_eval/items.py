"""Some items of a task: the figure on these items alone, and the sums that it is a ratio of.

lm-eval gives a figure for all items. If half of the items select the snapshot, this module computes the reported figure
from the contributions of the other half, as lm-eval would.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np

from potstill.metrics.bootstrap import Sums
from potstill.metrics.lm_eval.score import MetricScore

Wanted = Callable[[str, int], bool]
"""Whether a part has an item, which is given as its task and its number in that task."""


def part(score: MetricScore, wanted: Wanted) -> MetricScore:
    """The same metric on some of its items. It has no standard error: lm-eval's own is for all items."""
    items = {task: [one for at, one in enumerate(each) if wanted(task, at)] for task, each in score.items.items()}
    n = sum(map(len, items.values()))
    half = replace(score, items=items, stderr=None, n=n)
    return replace(half, value=value(half))


def value(score: MetricScore) -> float:
    """The value of a metric, computed from its items."""
    sums = as_sums(score)
    ratio = float(np.sum(sums.numerator) / np.sum(sums.denominator))
    return math.exp(ratio) if transform(score) == "exp" else ratio


def as_sums(score: MetricScore) -> Sums:
    """The contribution of each item, [P] over all tasks. The value is the ratio of the sums, or e to that power.

    An item of a group is weighted by its task's share of the group.
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
    """The function that turns the ratio into the value."""
    return "exp" if score.aggregation in ("perplexity", "weighted_perplexity") else "identity"
