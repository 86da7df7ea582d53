"""Compare models on standard tasks: lm-eval's own figures, our intervals, and paired differences.

The value of a result is lm-eval's, to the last digit. Its interval, and the difference of two models, come from the
contribution of each item: a ratio of sums over items or, for a group, a weighted mean over its tasks, whose items are
resampled within their own task. A metric that is no such function of items (F1, BLEU) gets the interval of lm-eval's
own standard error, and is not paired. If lm-eval gives no standard error either (the Brier score), the figure has no
interval and makes no result. With several seeds, intervals cover items and seeds (`intervals.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from potstill.errors import UserError
from potstill.metrics.bootstrap import DEFAULT_RESAMPLING, Resampling, Sums, bootstrap, paired
from potstill.metrics.intervals import UNBOUNDED, Array, Ends, from_standard_errors
from potstill.metrics.lm_eval.items import as_sums, transform
from potstill.metrics.lm_eval.score import OF_ITEMS, MetricScore, TaskScores
from potstill.metrics.results import Paired, Result, Spread
from potstill.metrics.stratified import stratified

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
    first = seeds[0]
    if first.aggregation not in OF_ITEMS:
        errors = [score.stderr for score in seeds if score.stderr is not None]
        row = from_standard_errors(values, errors, first.n, resampling.confidence).result(model, metric, first.n)
    elif len(first.weights) > 1:
        row = stratified(_items(seeds), resampling, first.weights, _bounds(seeds))[0].result(model, metric, first.n)
    else:
        row = bootstrap(model, metric, _sums(seeds), transform=transform(first), resampling=resampling)
    return replace(row, value=_mean(values), seeds=Spread.of(values))


def _difference(
    names: tuple[str, str],
    metric: str,
    seeds: tuple[Sequence[MetricScore], Sequence[MetricScore]],
    resampling: Resampling,
) -> Paired:
    (one, other), first = seeds, seeds[0][0]
    difference = _mean([score.value for score in one]) - _mean([score.value for score in other])
    each = np.subtract([score.value for score in one], [score.value for score in other])
    if len(first.weights) > 1:
        ours, theirs = _items(one), _items(other)
        apart = {name: ours[name] - theirs[name] for name in ours}
        (low, high), (other_low, other_high) = _bounds(one), _bounds(other)
        bounds = (low - other_high, high - other_low)
        found = stratified(apart, resampling, first.weights, bounds)[0].paired(names, metric, first.n)
    else:
        sums = _sums(one), _sums(other)
        found = paired(names, metric, sums, transform=transform(first), resampling=resampling)
    return replace(found, difference=difference, seeds=Spread.of(each))


def _sums(seeds: Sequence[MetricScore]) -> Sums:
    each = [as_sums(score) for score in seeds]
    return Sums(np.stack([one.numerator for one in each]), each[0].denominator)


def _bounds(seeds: Sequence[MetricScore]) -> Ends:
    """The least and the greatest value of a mean of items: 0 and 1 if each counts 0 or 1."""
    shares = all(set(each) <= {0.0, 1.0} for score in seeds for each in score.items.values())
    return (0.0, 1.0) if shares else UNBOUNDED


def _items(seeds: Sequence[MetricScore]) -> dict[str, Array]:
    """Each task's items: [S, P]."""
    return {name: np.asarray([score.items[name] for score in seeds], dtype=np.float64) for name in seeds[0].items}


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
