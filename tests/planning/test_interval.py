"""Arithmetic of forecasts."""

import pytest

from potstill.planning.interval import ZERO, Interval


def test_sums_and_products_keep_the_ends():
    one, other = Interval(1, 2, 3), Interval(10, 20, 40)
    assert one + other == other + one == Interval(11, 22, 43)
    assert one * other == Interval(10, 40, 120)
    assert 2.0 * one == one * 2.0 == Interval(2, 4, 6)
    assert other / one == Interval(10 / 3, 10, 40)
    assert sum([one, other], ZERO) == Interval(11, 22, 43)


def test_the_greatest_of_several_is_taken_end_by_end():
    assert Interval.greatest([Interval(1, 5, 6), Interval(2, 3, 9)]) == Interval(2, 5, 9)
    assert Interval.greatest([]) == ZERO


def test_an_interval_comes_back_from_json():
    assert Interval.from_list(Interval(1, 2, 3).to_list()) == Interval(1, 2, 3)
    assert 2.5 in Interval(1, 2, 3)
    assert 3.1 not in Interval(1, 2, 3)
    assert Interval.exactly(4).is_exact
    assert not Interval.around(4, 1.1, 1.0).is_exact


def test_ends_in_the_wrong_order_are_our_own_mistake():
    with pytest.raises(AssertionError):
        Interval(3, 2, 1)
