"""The figure of some items of a task is the one that lm-eval would compute."""

import math

import pytest

from potstill.metrics.lm_eval.items import as_sums, part, value
from potstill.metrics.lm_eval.score import MetricScore


def _score(aggregation, items, weights=None):
    weights = weights or dict.fromkeys(items, 1 / len(items))
    return MetricScore(0.0, 0.1, sum(map(len, items.values())), "higher", aggregation, items, weights)


def _even(task, number):
    return number % 2 == 0


@pytest.mark.parametrize(
    ("aggregation", "items", "expected"),
    [
        ("mean", {"t": [1.0, 0.0, 0.0, 0.0, 1.0]}, 2 / 3),
        ("perplexity", {"t": [-1.0, -9.0, -2.0]}, math.exp(1.5)),
        ("weighted_perplexity", {"t": [[-6.0, 2.0], [-9.0, 9.0], [-2.0, 2.0]]}, math.exp(8 / 4)),
        ("bits_per_byte", {"t": [[-6.0, 2.0], [-9.0, 9.0], [-2.0, 2.0]]}, 8 / 4 / math.log(2)),
    ],
)
def test_a_part_is_computed_as_the_whole_would_be(aggregation, items, expected):
    half = part(_score(aggregation, items), _even)
    assert half.value == pytest.approx(expected)
    assert half.n == (len(items["t"]) + 1) // 2
    assert half.stderr is None


def test_a_groups_tasks_keep_their_shares():
    items = {"small": [1.0, 0.0], "large": [0.0, 0.0, 1.0, 1.0, 1.0, 1.0]}
    score = _score("mean", items, {"small": 0.5, "large": 0.5})
    assert value(score) == pytest.approx(0.5 * 0.5 + 0.5 * 4 / 6)
    assert part(score, _even).value == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert len(as_sums(score).numerator) == 8
