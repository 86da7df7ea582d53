"""The best of several candidates is chosen; among ties, the earliest; if all tie, the last."""

import numpy as np
import pytest

from potstill.metrics.bootstrap import Resampling, Sums, paired
from potstill.metrics.selection import Criterion, choose, judged_by

ITEMS = 200
LOSS, RIGHT = Criterion("loss", "lower"), Criterion("right", "higher")


def _losses(*means, noise=0.5, own=0.05, seed=0):
    """Candidates whose losses have these means: items are equally difficult for all, up to some noise."""
    draw = np.random.default_rng(seed)
    common = draw.normal(0, noise, ITEMS)
    made = {}
    for at, mean in enumerate(means):
        each = draw.normal(0, own, ITEMS)
        made[f"c{at}"] = {"loss": Sums(mean + common + each - each.mean(), np.ones(ITEMS))}
    return made


HOW = {"resampling": Resampling(resamples=2000)}


def chosen(candidates, criteria, **how):
    return choose(candidates, criteria, list(candidates)[-1], **how)


def test_the_best_is_taken_where_it_is_beyond_chance():
    # The spread over items (0.5) hides differences of 0.1; the paired bootstrap shows them.
    choice = chosen(_losses(3.0, 2.8, 2.7, 2.9), [LOSS], **HOW)
    assert (choice.best, choice.chosen) == ("c2", "c2")
    assert [standing.tied for standing in choice.standings] == [False, False, True, False]


def test_of_ties_the_earlier_one_is_taken():
    choice = chosen(_losses(3.0, 2.701, 2.9, 2.7), [LOSS], **HOW)
    assert (choice.best, choice.chosen) == ("c3", "c1")


def test_without_pairing_it_would_be_a_tie():
    # The same candidates with shuffled items: without pairing, the difference is within chance.
    scores, draw = _losses(2.75, 2.7, 9.0), np.random.default_rng(1)
    shuffled = draw.permutation(np.asarray(scores["c0"]["loss"].numerator))
    assert chosen(scores, [LOSS], **HOW).chosen == "c1"
    assert chosen(scores | {"c0": {"loss": Sums(shuffled, np.ones(ITEMS))}}, [LOSS], **HOW).chosen == "c0"


def test_the_intervals_are_those_of_the_paired_bootstrap():
    scores = _losses(3.0, 2.8)
    resampling = Resampling(confidence=0.9, resamples=2000)
    standing = chosen(scores, [LOSS], resampling=resampling).standings[0]
    pair = paired(("a", "b"), "loss", (scores["c0"]["loss"], scores["c1"]["loss"]), resampling=resampling)
    assert (standing.difference, standing.low, standing.high) == (
        pytest.approx(pair.difference),
        pytest.approx(pair.low),
        pytest.approx(pair.high),
    )


def test_higher_may_be_better():
    scores = _losses(3.0, 2.8, 2.9)
    assert chosen(scores, [Criterion("loss", "higher")], **HOW).chosen == "c0"


def test_equal_weights_are_equal():
    scores = _losses(2.7)
    choice = chosen({"a": scores["c0"], "b": scores["c0"]}, [LOSS], **HOW)
    assert choice.best == "a"
    assert [standing.difference for standing in choice.standings] == [0.0, 0.0]


@pytest.mark.parametrize("criteria", [[RIGHT], [RIGHT, LOSS]])
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_metric_that_tells_nothing_keeps_the_last_and_not_the_mean_behind_it(criteria, share):
    names = ["step 1", "step 2", "step 3", "mean of the last 2"]
    same = {"right": Sums(np.full(ITEMS, share), np.ones(ITEMS)), "loss": Sums(np.ones(ITEMS), np.ones(ITEMS))}
    choice = choose(dict.fromkeys(names, same), criteria, "step 3", **HOW)
    assert choice.all_tie
    assert choice.chosen == "step 3"


@pytest.mark.parametrize("criteria", [[LOSS], [LOSS, RIGHT]])
def test_a_few_items_tell_nothing(criteria):
    def few(items):
        return {
            f"c{at}": {
                "loss": Sums(np.full(items, at + 1.0), np.ones(items)),
                "right": Sums(np.zeros(items), np.ones(items)),
            }
            for at in range(3)
        }

    assert chosen(few(9), criteria, **HOW).all_tie
    assert chosen(few(9), criteria, **HOW).chosen == "c2"
    enough = chosen(few(10), criteria, **HOW)
    assert (enough.all_tie, enough.chosen) == (False, "c0")


def test_a_single_candidate_ties_with_nothing():
    assert not chosen(_losses(3.0), [LOSS], **HOW).all_tie


def _two(losses, right):
    """Candidates with a loss and a share of right items, without noise."""
    return {
        f"c{at}": {
            "loss": Sums(np.full(ITEMS, loss), np.ones(ITEMS)),
            "right": Sums(np.arange(ITEMS) < share * ITEMS, np.ones(ITEMS)),
        }
        for at, (loss, share) in enumerate(zip(losses, right, strict=True))
    }


def test_ranks_are_weighted_and_equal_ones_share_theirs():
    scores = _two([1.0, 2.0, 3.0, 3.0], [0.1, 0.5, 0.9, 0.5])
    # By loss 1, 2, 3.5, 3.5; by right answers 4, 2.5, 1, 2.5.
    assert judged_by(scores, [LOSS, RIGHT]) == pytest.approx([2.5, 2.25, 2.25, 3.0])
    twice = [LOSS, Criterion("right", "higher", 3.0)]
    assert judged_by(scores, twice) == pytest.approx([3.25, 2.375, 1.625, 2.75])
    assert chosen(scores, twice, **HOW).best == "c2"


def test_by_ranks_too_a_tie_is_a_tie():
    apart, near = _two([1.0, 2.0, 3.0], [0.9, 0.5, 0.1]), _two([1.0, 1.0, 3.0], [0.50, 0.505, 0.1])
    assert [each.tied for each in chosen(apart, [LOSS, RIGHT], **HOW).standings] == [True, False, False]
    choice = chosen(near, [LOSS, RIGHT], **HOW)
    assert (choice.best, choice.chosen) == ("c1", "c0")
    assert not choice.standings[2].tied


def test_metrics_may_have_other_items():
    scores = _two([1.0, 2.0], [0.2, 0.1])
    wide = {
        name: each | {"right": Sums(np.tile(each["right"].numerator, 3), np.ones(3 * ITEMS))}
        for name, each in scores.items()
    }
    assert chosen(wide, [LOSS, RIGHT], **HOW).chosen == "c0"


def test_a_tie_is_not_called_too_often_nor_too_seldom():
    # Two candidates with the same true mean: they must tie in about 95 of 100 trials.
    tied, few = 0, Resampling(resamples=400)
    for world in range(100):
        draw = np.random.default_rng(1000 + world)
        scores = {name: {"loss": Sums(draw.normal(3, 0.3, ITEMS), np.ones(ITEMS))} for name in ("a", "b")}
        tied += all(standing.tied for standing in chosen(scores, [LOSS], resampling=few).standings)
    assert 88 <= tied <= 100
