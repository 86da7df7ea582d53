"""Comparison: every model that has a metric gets a figure, and every pair that has it a difference."""

import numpy as np
import pytest

from potstill.metrics.bootstrap import Resampling, Sums, bootstrap, paired
from potstill.metrics.comparison import compare

FEW = Resampling(resamples=200)
ONES = np.ones(20)
NATS = np.linspace(1, 3, 20)
SCORES = {
    ("teacher", "loss"): [Sums(NATS, ONES)],
    ("student", "loss"): [Sums(NATS + 1, ONES), Sums(NATS + 2, ONES)],
    ("control", "loss"): [Sums(NATS + 2, ONES), Sums(NATS + 3, ONES)],
    ("student", "kl"): [Sums(NATS, ONES), Sums(NATS, ONES)],
    ("control", "rouge_random"): [Sums(ONES, ONES)],
    ("student", "rouge_random"): [Sums(ONES, ONES)],
    ("student", "perplexity"): [Sums(NATS, ONES)],
}


def compared(*metrics):
    pairs = [("student", "control"), ("student", "start")]
    return compare(["teacher", "student", "control"], pairs, metrics, lambda *of: SCORES.get(of, []), resampling=FEW)


def test_the_seeds_of_a_model_are_one_figure():
    rows, (difference,) = compared("loss")
    assert [row.model for row in rows] == ["teacher", "student", "control"]
    student = Sums(np.stack([NATS + 1, NATS + 2]), ONES)
    control = Sums(np.stack([NATS + 2, NATS + 3]), ONES)
    assert rows[1] == bootstrap("student", "loss", student, resampling=FEW)
    assert difference == paired(("student", "control"), "loss", (student, control), resampling=FEW)


def test_models_without_a_metric_are_not_compared_by_it():
    rows, differences = compared("kl")
    assert [row.model for row in rows] == ["student"]
    assert differences == []


def test_random_pairs_are_told_and_not_compared():
    rows, differences = compared("rouge_random")
    assert [row.model for row in rows] == ["student", "control"]
    assert differences == []


def test_a_perplexity_is_the_exponential_of_its_ratio():
    (row,), _ = compared("perplexity")
    assert row.value == pytest.approx(np.exp(2))
