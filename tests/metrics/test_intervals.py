"""Intervals cover what they promise: for few units, for units of every kind, and for several seeds."""

import math

import numpy as np
import pytest

from potstill.metrics.bootstrap import Resampling, Sums, bootstrap, paired
from potstill.metrics.intervals import Sampled, expanded_tails, from_standard_errors, interval

FEW = Resampling(resamples=500)
TRIALS = 1000
UNITS = [10, 20, *(pytest.param(units, marks=pytest.mark.slow) for units in (60, 200))]


def tokens(random, units):
    return np.ceil(random.lognormal(5, 0.8, units))


def mean_of_skewed_losses(random, units):
    return Sums(random.lognormal(0, 0.5, units), np.ones(units)), math.exp(0.5**2 / 2)


def mean_with_extreme_outliers(random, units):
    return Sums(random.lognormal(0, 1, units), np.ones(units)), math.exp(1 / 2)


def ratio_of_sums(random, units):
    count = tokens(random, units)
    return Sums(count * 3 * random.lognormal(0, 0.3, units), count), 3 * math.exp(0.3**2 / 2)


def share(random, units):
    return Sums((random.random(units) < 0.3).astype(float), np.ones(units)), 0.3


def share_of_rare_ones(random, units):
    return Sums((random.random(units) < 0.05).astype(float), np.ones(units)), 0.05


@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize(
    "draw", [mean_of_skewed_losses, mean_with_extreme_outliers, ratio_of_sums, share, share_of_rare_ones]
)
def test_alone_intervals_cover_the_truth(draw, units):
    random = np.random.default_rng(units + 2)
    covered = 0
    for _ in range(TRIALS):
        sums, truth = draw(random, units)
        row = bootstrap("m", "x", sums, resampling=FEW)
        covered += row.low <= truth <= row.high
    # A few items have only a few possible shares, so that an interval of exactly 95% does not exist.
    assert 0.93 <= covered / TRIALS <= (1.0 if draw in (share, share_of_rare_ones) else 0.975)


def skewed_losses(random, units):
    return random.lognormal(0, 0.5, units), np.ones(units)


def heavy_tails(random, units):
    return random.standard_t(3, units), np.ones(units)


def losses_of_texts(random, units):
    count = tokens(np.random.default_rng(units), units)
    return count * random.lognormal(0, 0.5, units), count


def answers(random, units):
    return (random.random(units) < 0.3).astype(float), np.ones(units)


def rare_answers(random, units):
    return (random.random(units) < 0.05).astype(float), np.ones(units)


@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("draw", [skewed_losses, heavy_tails, losses_of_texts, answers, rare_answers])
def test_paired_two_equal_models_differ_one_time_in_twenty(draw, units):
    random, beyond = np.random.default_rng(units + 1), 0
    for _ in range(TRIALS):
        one, two = draw(random, units), draw(random, units)
        beyond += paired(("a", "b"), "x", (Sums(*one), Sums(*two)), resampling=FEW).beyond_chance
    assert (0.0 if "answers" in draw.__name__ else 0.015) <= beyond / TRIALS <= 0.07


# The standard deviations of the mean that come from the seed, from the units, and from units that one seed alone finds
# difficult.
@pytest.mark.parametrize("deviations", [(1, 0.1, 0), (1, 1, 0), (0.1, 1, 0), (0, 0.3, 1), (0, 1, 0.5), (1, 0, 1)])
@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("units", [20, 300])
def test_over_seeds_two_equal_trainings_differ_one_time_in_twenty(seeds, units, deviations):
    random, covered, trials = np.random.default_rng(seeds), 0, 400
    of_seed, of_unit, of_both = deviations
    draws = np.random.default_rng(0).multinomial(units, np.full(units, 1 / units), 400).T / units
    for _ in range(trials):
        each = random.normal(0, of_unit, units) + random.normal(0, of_both, (seeds, units))
        each = each * math.sqrt(units) + random.normal(0, of_seed, (seeds, 1))
        left_out = (each.sum(1, keepdims=True) - each) / (units - 1)
        found = interval(Sampled(each.mean(1), each.mean(0) @ draws, [left_out]))
        covered += found.low <= 0 <= found.high
        assert (found.p < 0.05) == (not found.low <= 0 <= found.high)
    # With two seeds t is 12.7: an interval that promises 95% covers more where units count too.
    assert 0.93 <= covered / trials <= (1.0 if seeds == 2 else 0.998)


def test_seeds_are_paired_and_a_teacher_without_seeds_is_met_by_each():
    random, ones = np.random.default_rng(0), np.ones(200)
    luck = np.array([[-1.0], [0.2], [0.9]])
    control = Sums(5 + luck + random.normal(0, 0.1, (3, 200)), ones)
    student = Sums(np.asarray(control.numerator) - 0.1 + random.normal(0, 0.1, (3, 200)), ones)
    # The luck of a seed is that of student and control alike, and cancels out.
    assert paired(("student", "control"), "loss", (student, control)).beyond_chance
    teacher = Sums(4.9 + random.normal(0, 0.1, 200), ones)
    against = paired(("student", "teacher"), "loss", (student, teacher))
    assert not against.beyond_chance
    assert against.over_units[1] - against.over_units[0] < 0.1 < against.high - against.low


def test_seeds_that_contradict_each_other_are_within_chance():
    # The seeds of the recipe `distilllama-mini`, whose mean is certain as far as the text goes.
    seeds = np.array([[0.001], [-0.375], [0.308]])
    control = np.random.default_rng(0).normal(3, 0.5, 300)
    pair = paired(("student", "control"), "kl", (Sums(control + seeds, np.ones(300)), Sums(control, np.ones(300))))
    assert not pair.beyond_chance
    assert pair.p > 0.5
    assert (pair.low, pair.high) == pytest.approx((-0.022 - 0.850, -0.022 + 0.850), abs=0.001)
    assert pair.over_units == pytest.approx((-0.022, -0.022))


def test_what_all_units_agree_on_may_be_otherwise_in_the_next():
    ones, zeros, each = np.ones(20), np.zeros(20), np.ones(20)
    none = bootstrap("m", "accuracy", Sums(zeros, each))
    # Clopper and Pearson: with a share of 16.8%, none of 20 is right in 2.5% of the samples.
    assert (none.low, none.high) == (0.0, pytest.approx(1 - 0.025 ** (1 / 20)))
    every = bootstrap("m", "accuracy", Sums(ones, each))
    assert (every.low, every.high) == (pytest.approx(0.025 ** (1 / 20)), 1.0)
    same = paired(("a", "b"), "accuracy", (Sums(ones, each), Sums(ones, each)))
    assert same.low < same.difference == 0 < same.high
    assert same.p == 1
    # The sign test of 20 pairs of one sign.
    apart = paired(("a", "b"), "accuracy", (Sums(ones, each), Sums(zeros, each)))
    assert apart.p == pytest.approx(2 * 0.5**20)
    assert apart.high == 1


def test_a_share_stays_between_0_and_1_and_a_loss_above_0():
    right = Sums(np.stack([np.arange(100) < 2, np.arange(100) < 9]), np.ones(100))
    row = bootstrap("m", "accuracy", right)
    assert row.low == 0
    assert row.high < 1
    assert bootstrap("m", "loss", Sums(np.stack([np.full(100, 0.1), np.full(100, 0.9)]), np.ones(100))).low == 0


def test_heavy_tails_make_intervals_wider():
    units = 100
    normal = np.random.default_rng(0).normal(0, 1, units)
    heavy = np.where(np.arange(units) < 4, 5.0, 0.0)
    for values, wider in ((normal, False), (heavy, True)):
        row = bootstrap("m", "x", Sums(values - 1, np.ones(units)))
        half = 1.984 * values.std(ddof=1) / math.sqrt(units)
        assert (row.high - row.value > 1.2 * half) == wider


def test_what_is_not_finite_has_no_width():
    huge = Sums([[800.0, 900.0], [1.0, 2.0]], [1.0, 1.0])
    row = bootstrap("m", "perplexity", huge, transform="exp")
    assert row.value == row.high == math.inf
    same = paired(("a", "b"), "perplexity", (huge, huge), transform="exp", resampling=FEW)
    assert math.isnan(same.difference)
    assert (same.p, same.beyond_chance) == (1.0, False)


@pytest.mark.parametrize("loss", [200, 350, 600])
def test_the_perplexity_of_a_diverged_model_has_a_finite_interval(loss):
    random, ones = np.random.default_rng(0), np.ones(50)
    bad, good = Sums(random.normal(loss, 1, 50), ones), Sums(random.normal(3, 1, 50), ones)
    pair = paired(("bad", "good"), "perplexity", (bad, good), transform="exp", resampling=FEW)
    assert pair.beyond_chance
    assert 0 < pair.low < pair.difference < pair.high < math.inf


def test_a_known_standard_error_becomes_an_interval_by_students_t():
    alone = from_standard_errors([0.5], [0.1], 20, 0.95)
    assert (alone.low, alone.high) == pytest.approx((0.5 - 2.093 * 0.1, 0.5 + 2.093 * 0.1), abs=1e-4)
    two = from_standard_errors([0.5, 0.7], [0.1, 0.1], 20, 0.95)
    assert two.over_units == pytest.approx((0.6 - 2.093 * 0.1, 0.6 + 2.093 * 0.1), abs=1e-4)
    assert two.high - two.value == pytest.approx(math.hypot(2.093 * 0.1, 12.706 * 0.1), abs=1e-3)


def test_quantiles_are_expanded_for_few_units():
    assert expanded_tails(10_000, 0.95) == pytest.approx((0.025, 0.975), abs=1e-4)
    low, high = expanded_tails(10, 0.95)
    assert (low, high) == pytest.approx((0.00855, 0.99145), abs=1e-4)
