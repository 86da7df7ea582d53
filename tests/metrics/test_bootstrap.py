"""Differences are paired, seeds are averaged, and the order of units does not matter."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.errors import UserError
from potstill.metrics.bootstrap import Resampling, Sums, bootstrap, paired


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


@given(st.integers(0, 2000), st.floats(-0.5, 0.5), st.sampled_from([1, 2, 3]), st.sampled_from([5, 10, 40]))
@settings(max_examples=100)
def test_p_and_interval_always_agree(seed, shift, seeds, units):
    one, random = scores(units, seed), np.random.default_rng(seed)
    moved = np.asarray(one.numerator) + random.normal(shift, 1, (seeds, units)) * np.asarray(one.denominator)
    pair = paired(("a", "b"), "x", (one, Sums(moved, one.denominator)), resampling=draws(400))
    assert (pair.p < 0.05) == (pair.low > 0 or pair.high < 0)


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


def test_units_without_a_token_are_no_trouble():
    row = bootstrap("m", "x", Sums([0.0, 4.0, 5.0], [0.0, 1.0, 1.0]), resampling=draws(400))
    assert row.value == 4.5
    assert row.n == 2, "a unit without a token is not counted"
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


def test_only_the_interval_of_a_share_ends_at_one():
    # The two seeds differ much, so the interval is wide.
    written, reference = [[9.0] * 8, [10.0] * 8], [10.0] * 8
    assert bootstrap("m", "right", Sums(written, reference)).high == 1
    assert bootstrap("m", "length", Sums(written, reference, can_exceed_one=True)).high > 1
