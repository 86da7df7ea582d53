"""Stratified means: the mean over subtasks of the mean over items, by draws of items within their own subtask.

A benchmark fixes its subtasks and chance does not, so that only items are drawn. ``intervals.py`` makes the interval.

Shapes: P items of a subtask, S seeds, R resamples.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from potstill.metrics.bootstrap import DEFAULT_RESAMPLING, Resampling
from potstill.metrics.intervals import UNBOUNDED, Array, Ends, Interval, Sampled, interval


def stratified(
    values: Mapping[str, Array],
    resampling: Resampling = DEFAULT_RESAMPLING,
    weights: Mapping[str, float] | None = None,
    bounds: Ends = UNBOUNDED,
) -> tuple[Interval, dict[str, Interval]]:
    """The mean over subtasks of the mean over items, and each subtask's mean, by draws of items within their subtask.

    Args:
        values: the items of each subtask, [P], or [S, P] for S seeds.
        resampling: of the intervals.
        weights: each subtask's share of the whole; equal by default.
        bounds: the least and the greatest value of an item.
    """
    items = {name: np.atleast_2d(np.asarray(each, dtype=np.float64)) for name, each in values.items()}
    shares = {name: 1 / len(items) if weights is None else weights[name] for name in items}
    drawn = {
        name: _resampled_means(each.mean(0), resampling.resamples, np.random.default_rng((resampling.seed, number)))
        for number, (name, each) in enumerate(items.items())
    }
    means = {name: each.mean(1) for name, each in items.items()}
    changes = {name: (means[name][:, None] - each) / max(each.shape[1] - 1, 1) for name, each in items.items()}
    subtasks = {
        name: interval(
            Sampled(means[name], drawn[name], [means[name][:, None] + changes[name]], bounds), resampling.confidence
        )
        for name in items
    }
    by_seed = mean_over(means, weights)
    left_out = [by_seed[:, None] + shares[name] * changes[name] for name in items]
    return interval(Sampled(by_seed, mean_over(drawn, weights), left_out, bounds), resampling.confidence), subtasks


def _resampled_means(values: Array, resamples: int, generator: np.random.Generator) -> Array:
    """The mean of each of R draws of the items with replacement: [R].

    Only a few different values occur. To draw how often each occurs is equivalent, and a hundred times as fast.
    """
    kinds, counts = np.unique(values, return_counts=True)
    return generator.multinomial(len(values), counts / len(values), size=resamples) @ kinds / len(values)


def mean_over(subtasks: Mapping[str, Any], weights: Mapping[str, float] | None = None) -> Any:
    """The mean over subtasks, of numbers or of arrays of one shape; ``weights`` as in :func:`stratified`."""
    if weights is None:
        return sum(subtasks.values()) / len(subtasks)
    return sum(weights[name] * each for name, each in subtasks.items())
