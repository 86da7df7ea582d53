"""Accuracy counts wins and ties, seeds are averaged and paired, and equal models do not differ."""

import json

import numpy as np
import pytest

from potstill.errors import UserError
from potstill.metrics.bootstrap import Resampling, Sums, bootstrap, paired
from potstill.metrics.minimal_pairs.accuracy import ROUNDING, accuracy, compare
from potstill.metrics.minimal_pairs.score import PairScores, Reading
from potstill.metrics.stratified import stratified

WITH_START = Reading(start=0, prefix_space=True)


def draws(resamples: int = 10_000, seed: int = 0) -> Resampling:
    return Resampling(resamples=resamples, seed=seed)


def scores(margins, pairs="same", reading=WITH_START):
    """Scores of one model with these margins of the good sentences over the bad ones."""
    margins = {name: np.asarray(each, float) for name, each in margins.items()}
    return PairScores(
        {name: each - 20 for name, each in margins.items()},
        {name: np.full(len(each), -20.0) for name, each in margins.items()},
        pairs,
        reading,
    )


def drawn(random, rates, pairs):
    """A model that wins with these rates in each subtask."""
    return scores({f"s{n}": np.where(random.random(pairs) < rate, 1.0, -1.0) for n, rate in enumerate(rates)})


ONE = {"small": [1, -1], "large": [1, 1, 1, 0, 0, -1, -1, -1, -1, -1]}


@pytest.mark.parametrize(("ties", "large"), [("half", 0.4), ("correct", 0.5), ("wrong", 0.3)])
def test_overall_is_the_unweighted_mean_and_ties_are_counted_apart(ties, large):
    found = accuracy("m", "blimp", [scores(ONE)], ties=ties, resampling=draws(100))
    assert found.overall.value == pytest.approx((0.5 + large) / 2)
    assert found.subtasks["large"].value == pytest.approx(large)
    assert found.counts["large"].won == (3,)
    assert found.counts["large"].tied == (2,)
    assert found.overall.n == 12
    assert found.ties == ties


def test_a_difference_that_is_rounding_is_a_tie():
    found = accuracy(
        "m",
        "blimp",
        [scores({"a": [ROUNDING / 3, -ROUNDING / 3, 3 * ROUNDING, -1]})],
        resampling=draws(100),
    )
    assert found.counts["a"].tied == (2,)
    assert found.counts["a"].won == (1,)


def test_seeds_are_averaged_and_each_is_told():
    two = [scores({"a": [1, 1, 1, -1], "b": [1, -1]}), scores({"a": [1, -1, -1, -1], "b": [1, 1]})]
    found = accuracy("m", "blimp", two, resampling=draws(100))
    assert found.overall.seeds.values == pytest.approx((0.625, 0.625))
    assert found.subtasks["a"].seeds.values == pytest.approx((0.75, 0.25))
    assert found.subtasks["a"].value == pytest.approx(0.5)
    assert found.counts["b"].won == (1, 2)


def test_the_interval_is_that_of_the_mean_over_subtasks():
    found, credit = (
        accuracy("m", "blimp", [scores(ONE)]),
        {"small": [1, 0], "large": [1, 1, 1, 0.5, 0.5, 0, 0, 0, 0, 0]},
    )
    overall, subtasks = stratified({name: np.asarray(each, float) for name, each in credit.items()}, bounds=(0.0, 1.0))
    assert (found.overall.value, found.overall.low, found.overall.high) == (overall.value, overall.low, overall.high)
    assert {name: (row.low, row.high) for name, row in found.subtasks.items()} == {
        name: (each.low, each.high) for name, each in subtasks.items()
    }


def test_one_subtask_has_the_interval_that_drawing_pairs_one_by_one_gives():
    random = np.random.default_rng(0)
    wins, others = random.random((2, 300)) < np.array([[0.9], [0.8]])
    one, two = (scores({"a": np.where(each, 1, -1)}) for each in (wins, others))
    sums = [Sums(each.astype(float), np.ones(300)) for each in (wins, others)]
    found, expected = accuracy("m", "x", [one]).overall, bootstrap("m", "x", sums[0])
    # Two sets of 10,000 draws: their quantiles differ by no more than one pair of 300.
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.004)
    apart, known = compare(("a", "b"), "x", ([one], [two])).overall, paired(("a", "b"), "x", sums)
    assert apart.difference == pytest.approx(known.difference)
    assert (apart.low, apart.high) == pytest.approx((known.low, known.high), abs=0.005)


def test_a_model_does_not_differ_from_itself():
    one = drawn(np.random.default_rng(3), (0.3, 0.6), 100)
    found = compare(("a", "b"), "blimp", ([one], [one]), resampling=draws(200))
    assert found.overall.difference == 0
    assert found.overall.p == 1
    assert found.differing == []


def test_equal_models_differ_in_no_subtask_nineteen_times_in_twenty():
    random, rates = np.random.default_rng(4), np.linspace(0.3, 0.8, 20)
    pairs_of = lambda: [drawn(random, rates, 200)]  # noqa: E731
    found = [compare(("a", "b"), "x", (pairs_of(), pairs_of()), resampling=draws(2000)) for _ in range(100)]
    # Without a correction, two trials in three find a difference.
    assert np.mean([any(row.beyond_chance for row in each.subtasks.values()) for each in found]) > 0.4
    assert np.mean([bool(each.differing) for each in found]) <= 0.12
    assert np.mean([each.overall.beyond_chance for each in found]) <= 0.12


def test_what_is_better_in_one_subtask_is_found_there():
    random = np.random.default_rng(5)
    better, worse = drawn(random, (0.9, 0.5, 0.6), 500), drawn(random, (0.6, 0.5, 0.6), 500)
    found = compare(("a", "b"), "blimp", ([better], [worse]))
    assert found.differing == ["s0"]
    assert found.overall.low > 0
    back = compare(("b", "a"), "blimp", ([worse], [better]))
    assert back.overall.difference == pytest.approx(-found.overall.difference)


def test_pairs_see_what_separate_intervals_hide():
    random = np.random.default_rng(6)
    hard = random.normal(0, 3, 1000)
    one, two = scores({"a": hard + 0.2}), scores({"a": hard})
    apart = compare(("a", "b"), "x", ([one], [two])).overall
    rows = [accuracy("m", "x", [each]).overall for each in (one, two)]
    assert apart.beyond_chance
    assert rows[1].high > rows[0].low


def test_seeds_that_disagree_are_within_chance():
    ones, zeros = np.ones(90), -np.ones(90)
    student = [scores({"a": np.concatenate([ones, zeros, ones])}), scores({"a": np.concatenate([zeros, zeros, ones])})]
    control = [scores({"a": np.concatenate([zeros, zeros, ones])}), scores({"a": np.concatenate([zeros, ones, zeros])})]
    same = compare(("a", "b"), "x", (student, control[:1])).overall
    assert same.seeds.values == pytest.approx((1 / 3, 0))
    assert not same.beyond_chance


def test_figures_hang_on_the_seed_alone_and_go_into_json():
    random = np.random.default_rng(7)
    one, two = drawn(random, (0.3, 0.6), 100), drawn(random, (0.4, 0.6), 100)

    def figures(seed):
        apart = compare(("a", "b"), "x", ([one], [two]), resampling=draws(300, seed))
        return json.dumps([accuracy("a", "x", [one], resampling=draws(300, seed)).to_dict(), apart.to_dict()])

    assert figures(0) == figures(0)
    assert figures(0) != figures(1)
    assert json.loads(figures(0))[0]["subtasks"]["s1"]["pairs"] == 100


def test_what_cannot_be_compared_is_refused():
    one = scores(ONE)
    with pytest.raises(UserError, match="different minimal pairs"):
        compare(("a", "b"), "x", ([one], [scores(ONE, pairs="other")]))
    for reading in (Reading(None, True), Reading(0, False)):
        with pytest.raises(UserError, match="read both alike"):
            compare(("a", "b"), "x", ([one], [scores(ONE, reading=reading)]))
    # Tokenizers have different start tokens: such scores can be compared.
    compare(("a", "b"), "x", ([one], [scores(ONE, reading=Reading(7, True))]), resampling=draws(50))


def test_broken_scores_and_single_pairs_are_refused():
    with pytest.raises(UserError, match="large is not a finite number"):
        accuracy("m", "x", [scores(ONE | {"large": [1, np.nan]})])
    with pytest.raises(UserError, match="needs at least 2"):
        accuracy("m", "x", [scores({"a": [1.0]})])
