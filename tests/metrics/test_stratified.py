"""Stratified means: items are drawn within their subtask, and intervals keep their promise for few items."""

import numpy as np
import pytest

from potstill.metrics.bootstrap import Resampling
from potstill.metrics.stratified import stratified


def draws(resamples: int) -> Resampling:
    return Resampling(resamples=resamples)


def test_stratified_intervals_cover_the_truth_as_often_as_they_promise():
    # The difficulty of subtasks differs as in BLiMP. If the bootstrap ignored subtasks, or resampled them, intervals
    # would be far too wide and would always cover the truth.
    random, rates = np.random.default_rng(1), (0.1, 0.5, 0.7, 0.95)
    drawn = lambda: {f"s{n}": (random.random(60) < rate).astype(float) for n, rate in enumerate(rates)}  # noqa: E731
    overall = [stratified(drawn(), draws(400))[0] for _ in range(600)]
    covered = np.mean([each.low <= np.mean(rates) <= each.high for each in overall])
    assert 0.93 <= covered <= 0.98
    width = np.mean([each.high - each.low for each in overall])
    deviation = np.sqrt(sum(rate * (1 - rate) / 60 for rate in rates)) / len(rates)
    assert width == pytest.approx(2 * 1.96 * deviation, rel=0.1)


@pytest.mark.parametrize("items", [5, 10])
def test_subtasks_of_few_items_have_an_interval_that_covers_their_mean(items):
    random, rates = np.random.default_rng(2), np.linspace(0.2, 0.8, 8)
    drawn = lambda: {f"s{n}": (random.random(items) < rate).astype(float) for n, rate in enumerate(rates)}  # noqa: E731
    overall = [stratified(drawn(), draws(400), bounds=(0.0, 1.0))[0] for _ in range(300)]
    assert 0.935 <= np.mean([each.low <= 0.5 <= each.high for each in overall]) <= 0.985


def test_seeds_count_in_the_interval():
    random = np.random.default_rng(3)
    items = {name: random.normal(0, 1, 200) + np.array([[-1.0], [0.0], [1.0]]) for name in ("a", "b")}
    overall, _ = stratified(items)
    assert overall.seeds is not None
    assert overall.seeds.values == pytest.approx(sum(each.mean(1) for each in items.values()) / 2)
    # Student's t with two degrees of freedom: 4.303; the seeds' standard deviation is 1.
    assert overall.high - overall.low == pytest.approx(2 * 4.303 / np.sqrt(3), rel=0.05)
    assert overall.over_units[1] - overall.over_units[0] < 0.5


def test_strata_of_unequal_size_weigh_the_same_in_the_interval():
    random = np.random.default_rng(2)
    overall, _ = stratified({"a": (random.random(50) < 0.5).astype(float), "b": np.ones(5000)})
    assert overall.high - overall.low == pytest.approx(2 * 1.96 * np.sqrt(0.25 / 50) / 2, rel=0.1)
