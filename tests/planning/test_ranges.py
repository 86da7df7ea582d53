"""Arithmetic of forecasts."""

import pytest

from potstill.planning.ranges import ZERO, Range


def test_sums_and_products_keep_the_ends():
    one, other = Range(1, 2, 3), Range(10, 20, 40)
    assert one + other == other + one == Range(11, 22, 43)
    assert one * other == Range(10, 40, 120)
    assert 2.0 * one == one * 2.0 == Range(2, 4, 6)
    assert other / one == Range(10 / 3, 10, 40)
    assert sum([one, other], ZERO) == Range(11, 22, 43)


def test_the_greatest_of_several_is_taken_end_by_end():
    assert Range.greatest([Range(1, 5, 6), Range(2, 3, 9)]) == Range(2, 5, 9)
    assert Range.greatest([]) == ZERO


def test_a_part_is_taken_away():
    assert Range(10, 20, 30).less(Range(1, 2, 3)) == Range(7, 18, 29)
    assert Range(1, 2, 3).less(Range(0, 5, 9)) == Range(0, 0, 3), "nothing is below zero"


def test_an_interval_comes_back_from_json():
    assert Range.from_list(Range(1, 2, 3).to_list()) == Range(1, 2, 3)
    assert 2.5 in Range(1, 2, 3)
    assert 3.1 not in Range(1, 2, 3)
    assert Range.exactly(4).is_exact
    assert not Range.around(4, 1.1, 1.0).is_exact


def test_ends_in_the_wrong_order_are_our_own_mistake():
    with pytest.raises(AssertionError):
        Range(3, 2, 1)
