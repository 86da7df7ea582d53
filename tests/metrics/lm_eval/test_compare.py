import math
from dataclasses import replace

import numpy as np
import pytest

from potstill.errors import UserError
from potstill.metrics.bootstrap import Resampling, Sums, bootstrap, paired
from potstill.metrics.lm_eval.compare import compare, is_share
from potstill.metrics.lm_eval.score import MetricScore, TaskScores

HOW = Resampling(resamples=2000)
RANDOM = np.random.default_rng(0)


def _score(items, aggregation="mean", value=None, weights=None, stderr=0.1):
    means = {name: float(np.mean(each)) if aggregation == "mean" else 0.0 for name, each in items.items()}
    weights = weights or dict.fromkeys(items, 1 / len(items))
    value = sum(weights[name] * means[name] for name in items) if value is None else value
    n = sum(map(len, items.values()))
    kept = items if aggregation != "other" else {}
    return MetricScore(value, stderr, n, "higher", aggregation, {k: list(v) for k, v in kept.items()}, weights)


def _task(**scores):
    scores = {f"t/{name}": score for name, score in scores.items()}
    return TaskScores("0", "same", {"t": 0}, scores, {}, 0, 0)


def _coins(share, n=300):
    return {"t": (RANDOM.random(n) < share).astype(float).tolist()}


def test_a_mean_is_lm_evals_with_our_interval():
    items, others = _coins(0.6), _coins(0.4)
    models = {"student": [_task(acc=_score(items))], "start": [_task(acc=_score(others))]}
    (row, _), (pair,) = compare(models, [("student", "start")], HOW)
    expected = bootstrap("student", "t/acc", Sums(items["t"], np.ones(300)), resampling=HOW)
    assert row == expected
    assert pair.beyond_chance
    assert pair.difference > 0


def test_the_value_is_lm_evals_even_where_sums_round_otherwise():
    own = math.nextafter(np.mean(_coins(0.5)["t"]), 1)
    row = compare({"student": [_task(acc=_score(_coins(0.5), value=own))]}, [], HOW)[0][0]
    assert row.value == own


def test_perplexities_are_of_the_right_ratio():
    logs = (-RANDOM.gamma(2, 2, 200)).tolist()
    weighted = [[log, words] for log, words in zip(logs, RANDOM.integers(1, 9, 200).tolist(), strict=True)]
    nats, words = -sum(logs), sum(words for _, words in weighted)
    scores = {
        "perplexity": _score({"t": logs}, "perplexity", math.exp(nats / 200)),
        "weighted_perplexity": _score({"t": weighted}, "weighted_perplexity", math.exp(nats / words)),
        "bits_per_byte": _score({"t": weighted}, "bits_per_byte", nats / words / math.log(2)),
    }
    rows, _ = compare({"start": [_task(**scores)]}, [], HOW)
    whole = bootstrap("start", "t/perplexity", Sums(-np.array(logs), np.ones(200)), transform="exp", resampling=HOW)
    assert (rows[0].low, rows[0].high) == (whole.low, whole.high)
    for row, score in zip(rows, scores.values(), strict=True):
        assert row.value == score.value
        assert row.low < row.value < row.high


def test_differences_are_paired_and_seeds_are_kept():
    start = _coins(0.5)
    better = {"t": np.maximum(start["t"], RANDOM.random(300) < 0.1).tolist()}
    much = {"t": np.maximum(start["t"], RANDOM.random(300) < 0.2).tolist()}
    models = {
        "student": [_task(acc=_score(better)), _task(acc=_score(much))],
        "start": [_task(acc=_score(start))],
    }
    rows, (pair,) = compare(models, [("student", "start")], HOW)
    sums = Sums([better["t"], much["t"]], np.ones(300)), Sums(start["t"], np.ones(300))
    expected = paired(("student", "start"), "t/acc", sums, resampling=HOW)
    assert (pair.low, pair.high, pair.p) == (expected.low, expected.high, expected.p)
    assert pair.seeds.values == pytest.approx(expected.seeds.values)
    assert rows[0].seeds.values == (
        models["student"][0].scores["t/acc"].value,
        models["student"][1].scores["t/acc"].value,
    )
    # On the same items, the interval of a difference is much narrower than that of either model. With two seeds, the
    # interval that covers them too is wide.
    assert pair.over_units == expected.over_units
    assert pair.over_units[1] - pair.over_units[0] < rows[1].high - rows[1].low < pair.high - pair.low


def test_equal_models_do_not_differ():
    items = _coins(0.5)
    models = {"student": [_task(acc=_score(items))], "start": [_task(acc=_score(items))]}
    (pair,) = compare(models, [("student", "start")], HOW)[1]
    assert (pair.difference, pair.p) == (0, 1)
    assert pair.low == pytest.approx(-pair.high)
    assert not pair.beyond_chance


@pytest.mark.parametrize("weights", [{"a": 0.5, "b": 0.5}, {"a": 0.8, "b": 0.2}])
def test_a_groups_items_are_drawn_within_their_own_task(weights):
    # All items of a task are equal. Tasks are not resampled, so that the interval has no width.
    items = {"a": [2.0] * 40, "b": [0.0] * 10}
    row = compare({"start": [_task(acc=_score(items, weights=weights))]}, [], HOW)[0][0]
    assert row.value == row.low == row.high == pytest.approx(2 * weights["a"])
    assert row.n == 50


def test_a_group_in_which_no_item_is_right_may_have_right_ones():
    items = {"a": [0.0] * 40, "b": [0.0] * 20}
    models = {name: [_task(acc=_score(items))] for name in ("student", "start")}
    rows, (pair,) = compare(models, [("student", "start")], HOW)
    assert (rows[0].low, rows[0].high) == (0, pytest.approx(1 - 0.025 ** (1 / 20)))
    assert (pair.low, pair.p) == (-pair.high, 1)


def test_the_interval_of_a_group_is_that_of_its_weighted_mean():
    items = {"a": _coins(0.5, 400)["t"], "b": _coins(0.5, 100)["t"]}
    alike, by_size = (
        compare({"start": [_task(acc=_score(items, weights=weights))]}, [], HOW)[0][0]
        for weights in ({"a": 0.5, "b": 0.5}, {"a": 0.8, "b": 0.2})
    )
    for row, shares in ((alike, (0.5, 0.5)), (by_size, (0.8, 0.2))):
        error = math.sqrt(sum(w**2 * np.var(x) / len(x) for w, x in zip(shares, items.values(), strict=True)))
        assert row.high - row.low == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_what_is_no_function_of_items_has_lm_evals_own_interval_and_is_not_paired():
    models = {name: [_task(f1=_score({"t": [0.0] * 50}, "other", value=0.5))] for name in ("student", "start")}
    rows, pairs = compare(models, [("student", "start")], HOW)
    assert rows[0].high - rows[0].low == pytest.approx(2 * 2.009575 * 0.1)
    assert rows[0].n == 50
    assert not pairs


def test_a_figure_that_nothing_says_the_certainty_of_has_no_row():
    brier, acc = _score({"t": [0.0] * 50}, "other", value=0.5), _score(_coins(0.5))
    known, unknown = _task(brier=brier, acc=acc), _task(brier=replace(brier, stderr=None), acc=acc)
    for models in ({"student": [unknown]}, {"student": [known], "start": [known, unknown]}):
        rows, _ = compare(models, [], HOW)
        assert {row.metric for row in rows} == {"t/acc"}


def test_shares_are_told_from_other_means():
    assert is_share({"start": [_task(acc=_score(_coins(0.5)))]}, "t/acc")
    assert not is_share({"start": [_task(acc=_score({"t": [0.5, 1.0]}))]}, "t/acc")
    assert not is_share({"start": [_task(acc=_score({"t": [-1.0, -2.0]}, "perplexity"))]}, "t/acc")


def test_models_that_met_other_items_are_not_compared():
    one = _task(acc=_score(_coins(0.5)))
    with pytest.raises(UserError, match="other and start were asked different items of a task"):
        compare({"start": [one], "other": [replace(one, fingerprint="another")]}, [], HOW)


def test_a_figure_that_is_not_finite_is_refused():
    with pytest.raises(UserError, match=r"start, t/perplexity: .* is not a finite number"):
        compare({"start": [_task(perplexity=_score({"t": [-1.0, -2.0]}, "perplexity", math.inf))]}, [], HOW)
