"""Compare models on standard tasks: lm-eval's own figures, our intervals, and paired differences.

The value of a result is lm-eval's, to the last digit. Its interval, and the difference of two models, come from the
contribution of each item: a ratio of sums over items or, for a group, a weighted mean over its tasks, whose items are
resampled within their own task. A metric that is no such function of items (F1, BLEU) gets the interval of lm-eval's
own standard error, and is not paired. If lm-eval gives no standard error either (the Brier score), the figure has no
interval and makes no result.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import NormalDist
from typing import Any

import numpy as np

from potstill.errors import UserError
from potstill.metrics.bootstrap import (
    DEFAULT_RESAMPLING,
    Array,
    Paired,
    Resampling,
    Result,
    Spread,
    Sums,
    bootstrap,
    paired,
    stratified,
)
from potstill.metrics.lm_eval.items import as_sums, transform
from potstill.metrics.lm_eval.score import OF_ITEMS, MetricScore, TaskScores

ScoresByModel = Mapping[str, Sequence[TaskScores]]
"""The scores of each model on one task, one for each of its seeds."""


def compare(
    models: ScoresByModel, pairs: Sequence[tuple[str, str]], resampling: Resampling = DEFAULT_RESAMPLING
) -> tuple[list[Result], list[Paired]]:
    """Every model's metrics on one task, and the differences within pairs of models.

    A metric makes no result if it has no interval: it is not made of items, and a model lacks a standard error.

    Raises:
        UserError: the models were asked different items, a score is not a finite number, or a task has fewer than two
            items.
    """
    _check(models)
    rows, differences = [], []
    for metric in next(iter(models.values()))[0].scores:
        scores = {model: [seed.scores[metric] for seed in seeds] for model, seeds in models.items()}
        if _kind(scores) not in OF_ITEMS and any(one.stderr is None for each in scores.values() for one in each):
            continue
        rows += [_row(model, metric, each, resampling) for model, each in scores.items()]
        if _kind(scores) in OF_ITEMS:
            differences += [_difference((a, b), metric, (scores[a], scores[b]), resampling) for a, b in pairs]
    return rows, differences


def is_share(models: ScoresByModel, metric: str) -> bool:
    """Whether a metric is, for every model, a share of items that count 0 or 1 each."""
    scores = [seed.scores[metric] for seeds in models.values() for seed in seeds]
    return all(
        score.items and score.aggregation == "mean" and all(set(each) <= {0.0, 1.0} for each in score.items.values())
        for score in scores
    )


def _row(model: str, metric: str, seeds: Sequence[MetricScore], resampling: Resampling) -> Result:
    values = [score.value for score in seeds]
    if not np.isfinite(values).all():
        raise UserError(f"{model}, {metric}: {values} is not a finite number; the model is broken, train it again")
    value, spread = _mean(values), Spread(tuple(values)) if len(values) > 1 else None
    first = seeds[0]
    if first.aggregation not in OF_ITEMS:
        half = NormalDist().inv_cdf((1 + resampling.confidence) / 2) * _mean([score.stderr for score in seeds])
        return Result(model, metric, value, value - half, value + half, first.n, spread)
    if len(first.weights) > 1:
        whole, _ = stratified(_means(seeds), resampling, first.weights)
        return Result(model, metric, value, whole.low, whole.high, first.n, spread)
    row = bootstrap(model, metric, _sums(seeds), transform=transform(first), resampling=resampling)
    return replace(row, value=value, seeds=spread)


def _difference(
    names: tuple[str, str],
    metric: str,
    seeds: tuple[Sequence[MetricScore], Sequence[MetricScore]],
    resampling: Resampling,
) -> Paired:
    (one, other), first = seeds, seeds[0][0]
    difference = _mean([score.value for score in one]) - _mean([score.value for score in other])
    each = np.subtract([score.value for score in one], [score.value for score in other])
    spread = Spread(tuple(each.tolist())) if each.size > 1 else None
    if len(first.weights) > 1:
        ours, theirs = _means(one), _means(other)
        apart = {name: ours[name] - theirs[name] for name in ours}
        whole, _ = stratified(apart, resampling, first.weights)
        return Paired(*names, metric, difference, whole.low, whole.high, first.n, whole.p, spread)
    sums = _sums(one), _sums(other)
    found = paired(names, metric, sums, transform=transform(first), resampling=resampling)
    return replace(found, difference=difference, seeds=spread)


def _sums(seeds: Sequence[MetricScore]) -> Sums:
    each = [as_sums(score) for score in seeds]
    return Sums(np.stack([one.numerator for one in each]), each[0].denominator)


def _means(seeds: Sequence[MetricScore]) -> dict[str, Array]:
    """Each task's items, [P], as the mean over seeds."""
    return {name: np.mean([score.items[name] for score in seeds], axis=0) for name in seeds[0].items}


def _mean(values: Sequence[Any]) -> float:
    return float(values[0]) if len(values) == 1 else float(np.mean(values))


def _kind(scores: Mapping[str, Sequence[MetricScore]]) -> str:
    return next(iter(scores.values()))[0].aggregation


def _check(models: ScoresByModel) -> None:
    """Raise unless all models were asked the same items and have the same metrics."""
    every = [(model, seed) for model, seeds in models.items() for seed in seeds]
    name, first = every[0]
    for model, seed in every:
        if seed.fingerprint != first.fingerprint or seed.scores.keys() != first.scores.keys():
            raise UserError(
                f"{model} and {name} were asked different items of a task; `--force evaluate` asks both again"
            )
