"""Intervals have the promised coverage, differences are paired, and the order of units does not matter."""

import json
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.errors import UserError
from potstill.metrics.bootstrap import Paired, Resampling, Result, Spread, Sums, bootstrap, holm, paired, stratified


def draws(resamples: int = 10_000, seed: int = 0) -> Resampling:
    return Resampling(resamples=resamples, seed=seed)


def scores(units: int, seed: int, mean: float = 4.0) -> Sums:
    random = np.random.default_rng(seed)
    tokens = random.integers(20, 200, units).astype(float)
    return Sums(tokens * random.gamma(4, mean / 4, units), tokens)


UNITS = st.builds(scores, st.integers(8, 60), st.integers(0, 10_000))


def test_value_is_the_ratio_of_sums_and_not_the_mean_of_ratios():
    row = bootstrap("m", "loss", Sums([1.0, 30.0], [1.0, 10.0]), resampling=draws(200))
    assert row.value == pytest.approx(31 / 11)
    assert row.n == 2


def test_perplexity_is_the_exponential_of_the_loss_in_value_and_interval():
    sums = scores(200, 0)
    loss, perplexity = bootstrap("m", "loss", sums), bootstrap("m", "perplexity", sums, transform="exp")
    assert perplexity.value == pytest.approx(math.exp(loss.value))
    assert perplexity.low == pytest.approx(math.exp(loss.low), rel=2e-3)
    assert perplexity.high == pytest.approx(math.exp(loss.high), rel=2e-3)


@pytest.mark.parametrize("transform", ["identity", "exp"])
def test_intervals_cover_the_truth_as_often_as_they_promise(transform):
    truth = math.exp(2.0) if transform == "exp" else 2.0
    rows = [
        bootstrap("m", "x", scores(120, trial, mean=2.0), transform=transform, resampling=draws(600))
        for trial in range(400)
    ]
    covered = np.mean([row.low <= truth <= row.high for row in rows])
    assert 0.915 <= covered <= 0.98


def test_a_true_null_is_beyond_chance_one_time_in_twenty():
    random = np.random.default_rng(5)
    found = 0
    for _ in range(400):
        tokens, hard = random.integers(20, 200, 120).astype(float), random.normal(4, 1, 120)
        one, two = (Sums(tokens * (hard + random.normal(0, 0.2, 120)), tokens) for _ in range(2))
        found += paired(("a", "b"), "loss", (one, two), resampling=draws(600)).beyond_chance
    assert found / 400 <= 0.085


def test_pairs_see_what_separate_intervals_hide():
    random = np.random.default_rng(1)
    tokens, hard = random.integers(20, 200, 300).astype(float), random.normal(4, 1, 300)
    one, two = Sums(tokens * hard, tokens), Sums(tokens * (hard + 0.05 + random.normal(0, 0.1, 300)), tokens)
    rows = bootstrap("a", "loss", one), bootstrap("b", "loss", two)
    assert rows[0].high > rows[1].low, "the intervals overlap"
    difference = paired(("a", "b"), "loss", (one, two))
    assert difference.beyond_chance
    assert difference.p < 0.001


@given(UNITS)
@settings(max_examples=40)
def test_the_interval_holds_the_estimate(sums):
    row = bootstrap("m", "x", sums, resampling=draws(400))
    assert row.low <= row.value <= row.high


@given(UNITS, st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_the_order_of_units_changes_nothing_in_the_estimate(sums, random):
    order = list(range(len(sums.numerator)))
    random.shuffle(order)
    shuffled = Sums(np.asarray(sums.numerator)[order], np.asarray(sums.denominator)[order])
    value = bootstrap("m", "x", sums, resampling=draws(50)).value
    assert bootstrap("m", "x", shuffled, resampling=draws(50)).value == pytest.approx(value, rel=1e-12)


@given(UNITS, st.integers(0, 1000), st.sampled_from(["identity", "exp"]))
@settings(max_examples=40)
def test_swapping_the_models_swaps_the_sign(sums, seed, transform):
    other = Sums(
        np.asarray(sums.numerator) * np.random.default_rng(seed).normal(1, 0.1, len(sums.numerator)), sums.denominator
    )
    there = paired(("a", "b"), "x", (sums, other), transform=transform, resampling=draws(400))
    back = paired(("b", "a"), "x", (other, sums), transform=transform, resampling=draws(400))
    assert back.difference == -there.difference
    width = there.high - there.low
    assert back.low == pytest.approx(-there.high, abs=1e-9 + 1e-6 * width)
    assert back.high == pytest.approx(-there.low, abs=1e-9 + 1e-6 * width)
    assert back.beyond_chance == there.beyond_chance
    assert back.p == pytest.approx(there.p, abs=1e-9)


@given(UNITS, st.sampled_from(["identity", "exp"]))
@settings(max_examples=30)
def test_equal_models_differ_by_nothing(sums, transform):
    same = paired(("a", "b"), "x", (sums, sums), transform=transform, resampling=draws(200))
    assert (same.difference, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)
    assert not same.beyond_chance


@given(st.integers(0, 2000), st.floats(-0.3, 0.3))
@settings(max_examples=60)
def test_p_and_interval_always_agree(seed, shift):
    one = scores(40, seed)
    moved = np.asarray(one.numerator) + np.random.default_rng(seed).normal(shift, 1, 40) * np.asarray(one.denominator)
    pair = paired(("a", "b"), "x", (one, Sums(moved, one.denominator)), resampling=draws(400))
    if abs(pair.p - 0.05) > 0.01:
        assert (pair.p < 0.05) == pair.beyond_chance


def test_the_same_seed_draws_the_same():
    sums = scores(50, 3)
    assert bootstrap("m", "x", sums, resampling=draws(seed=1)) == bootstrap("m", "x", sums, resampling=draws(seed=1))
    assert bootstrap("m", "x", sums, resampling=draws(seed=1)) != bootstrap("m", "x", sums, resampling=draws(seed=2))


def test_seeds_are_averaged_and_their_spread_is_told():
    one, tokens = np.asarray(scores(50, 3).numerator), scores(50, 3).denominator
    row = bootstrap("m", "x", Sums(np.stack([one, one * 1.1, one * 0.9]), tokens), resampling=draws(400))
    alone = bootstrap("m", "x", Sums(one, tokens), resampling=draws(400))
    assert alone.seeds is None
    assert row.seeds is not None
    assert row.value == pytest.approx(alone.value) == pytest.approx(row.seeds.mean)
    assert row.seeds.n == 3
    assert row.seeds.low == pytest.approx(0.9 * alone.value)
    assert row.seeds.high == pytest.approx(1.1 * alone.value)
    assert row.seeds.deviation == pytest.approx(0.1 * alone.value)


def test_seeds_are_paired_seed_for_seed_and_against_one_model():
    one, tokens = np.asarray(scores(50, 3).numerator), scores(50, 3).denominator
    students, controls = Sums(np.stack([one, one * 1.1]), tokens), Sums(np.stack([one + 5, one * 1.1 + 5]), tokens)
    pair = paired(("student", "control"), "loss", (students, controls), resampling=draws(400))
    assert pair.seeds is not None
    assert pair.seeds.deviation == pytest.approx(0, abs=1e-12)
    against_one = paired(("student", "teacher"), "loss", (students, Sums(one, tokens)), resampling=draws(400))
    assert against_one.seeds is not None
    assert against_one.seeds.low == pytest.approx(0, abs=1e-12)


def test_seeds_that_disagree_are_within_chance_whatever_the_text_says():
    pair = Paired("a", "b", "loss", -0.1, -0.12, -0.08, 304, 0.001, Spread((-0.3, 0.1)))
    assert not pair.beyond_chance


def test_rows_and_pairs_survive_json():
    row = Result("student", "loss", 4.68, 4.6, 4.75, 304, Spread((4.66, 4.7)))
    pair = Paired("student", "control", "loss", -0.1, -0.12, -0.08, 304, 0.001, Spread((-0.1, -0.11)))
    assert Result.from_dict(json.loads(json.dumps(row.to_dict()))) == row
    assert Paired.from_dict(json.loads(json.dumps(pair.to_dict()))) == pair
    assert pair.to_dict()["beyond_chance"] is True
    alone = Result("student", "loss", 4.68, 4.6, 4.75, 304)
    assert Result.from_dict(json.loads(json.dumps(alone.to_dict()))) == alone


def test_units_without_a_token_are_no_trouble():
    row = bootstrap("m", "x", Sums([0.0, 4.0, 5.0], [0.0, 1.0, 1.0]), resampling=draws(400))
    assert row.value == 4.5
    assert math.isfinite(row.low)
    assert math.isfinite(row.high)


@pytest.mark.parametrize(
    ("numerator", "denominator", "said"),
    [
        ([], [], "0 passage"),
        ([1.0], [1.0], "1 passage"),
        ([1.0, math.nan], [1.0, 1.0], "not a finite number"),
        ([1.0, math.inf], [1.0, 1.0], "not a finite number"),
        ([0.0, 0.0], [0.0, 0.0], "no token to score"),
        ([[1.0, 2.0], [1.0, 2.0]], [[1.0, 1.0], [0.0, 0.0]], "no token to score"),
    ],
)
def test_what_no_interval_can_be_told_of_is_refused_by_name(numerator, denominator, said):
    with pytest.raises(UserError, match=said) as refused:
        bootstrap("student", "loss", Sums(numerator, denominator))
    assert "student, loss" in str(refused.value)


def test_many_units_fit_in_memory():
    units = 10_000
    tracemalloc.start()
    bootstrap("m", "x", scores(units, 0), resampling=draws(2_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150e6, "all draws at once would be 160 MB of indices, and as much again for each column"


def test_stratified_intervals_cover_the_truth_as_often_as_they_promise():
    # The difficulty of subtasks differs as in BLiMP. If the bootstrap ignored subtasks, or resampled them, intervals
    # would be far too wide and would always cover the truth.
    random, rates = np.random.default_rng(1), (0.1, 0.5, 0.7, 0.95)
    drawn = lambda: {f"s{n}": (random.random(60) < rate).astype(float) for n, rate in enumerate(rates)}  # noqa: E731
    overall = [stratified(drawn(), draws(400))[0] for _ in range(600)]
    covered = np.mean([each.low <= np.mean(rates) <= each.high for each in overall])
    assert 0.92 <= covered <= 0.975
    width = np.mean([each.high - each.low for each in overall])
    deviation = np.sqrt(sum(rate * (1 - rate) / 60 for rate in rates)) / len(rates)
    assert width == pytest.approx(2 * 1.96 * deviation, rel=0.05)


def test_strata_of_unequal_size_weigh_the_same_in_the_interval():
    random = np.random.default_rng(2)
    overall, _ = stratified({"a": (random.random(50) < 0.5).astype(float), "b": np.ones(5000)})
    assert overall.high - overall.low == pytest.approx(2 * 1.96 * np.sqrt(0.25 / 50) / 2, rel=0.1)


def test_holm_by_hand():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == pytest.approx(
        {"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02}
    )
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
