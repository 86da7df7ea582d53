"""Estimates from a sample hold the truth in their intervals, and are exact where everything was drawn."""

import random

import pytest

from potstill.planning.ranges import Range
from potstill.planning.sampling.estimate import drawn, mean, ratio


def test_all_units_make_an_estimate_exact():
    assert ratio([2.0, 4.0], [1.0, 2.0], 2) == Range.exactly(2.0)
    assert drawn(3, 9) == [0, 1, 2]


def test_few_units_are_drawn_in_the_same_way_each_time():
    assert drawn(1000, 5) == drawn(1000, 5)
    assert len(set(drawn(1000, 5))) == 5


def test_one_unit_tells_little():
    found = mean([10.0], 5)
    assert found.low < 10 < found.high


@pytest.mark.parametrize("seed", range(5))
def test_the_truth_lies_in_the_interval_and_more_units_make_it_narrower(seed):
    rng = random.Random(seed)
    sizes = [rng.expovariate(0.01) + 1 for _ in range(4000)]
    values = [size * rng.uniform(0.2, 0.4) for size in sizes]
    widths = []
    for most in (40, 400):
        places = drawn(4000, most)
        found = ratio([values[one] for one in places], [sizes[one] for one in places], 4000)
        assert sum(values) / sum(sizes) in found
        widths.append(found.high - found.low)
    assert widths[1] < widths[0] / 2
