"""Comparison: the metrics of several models on the same units, and the differences between pairs of them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from potstill.metrics.bootstrap import Resampling, Sums, Transform, bootstrap, paired
from potstill.metrics.continuations.similarity import RANDOM
from potstill.metrics.results import Paired, Result

TRANSFORMS: Mapping[str, Transform] = {"perplexity": "exp"}
"""By metric, what is applied to its ratio of sums."""


def compare(
    models: Iterable[str],
    pairs: Iterable[tuple[str, str]],
    metrics: Iterable[str],
    sums: Callable[[str, str], Sequence[Sums]],
    resampling: Resampling,
) -> tuple[list[Result], list[Paired]]:
    """The metrics of every model, and the differences within pairs of models that both have a metric.

    The values of random pairs are only told: models have no differences in them.

    Args:
        models: the names of the models.
        pairs: the names of the models of each difference.
        metrics: the metrics, in their order.
        sums: gives the sums of a model (first argument) for a metric, one for each seed of its training; none if the
            model has no such metric.
        resampling: how intervals are computed.

    Raises:
        UserError: no interval can be computed.
    """
    rows, differences, models, pairs = list[Result](), list[Paired](), list(models), list(pairs)
    for metric in metrics:
        transform = TRANSFORMS.get(metric, "identity")
        there = {name: _of_seeds(seeds) for name in models if (seeds := sums(name, metric))}
        for name, own in there.items():
            rows.append(bootstrap(name, metric, own, transform=transform, resampling=resampling))
        for one, other in pairs if not metric.endswith(RANDOM) else ():
            if one in there and other in there:
                both = there[one], there[other]
                differences.append(paired((one, other), metric, both, transform=transform, resampling=resampling))
    return rows, differences


def _of_seeds(seeds: Sequence[Sums]) -> Sums:
    """The sums of all seeds, which score the same units: the denominator is the first one's."""
    if len(seeds) == 1:
        return seeds[0]
    numerators = np.stack([np.asarray(each.numerator, float) for each in seeds])
    return replace(seeds[0], numerator=numerators)
