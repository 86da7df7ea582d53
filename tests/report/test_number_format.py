"""Numbers are formatted for readers."""

import pytest

from potstill.metrics.results import Paired, Result, Spread
from potstill.report import number_format
from potstill.report.data import Metric

LOSS = Metric("loss", "Loss", "nats per token", "lower")
SHARE = Metric("agreement", "Agreement", "", "higher", percent=True)


@pytest.mark.parametrize(
    ("value", "low", "high", "metric", "text"),
    [
        (4.6812, 4.604, 4.752, LOSS, "4.68 [4.60, 4.75]"),
        (1.5312, 1.5291, 1.5334, LOSS, "1.531 [1.529, 1.533]"),
        (103.42, 98.51, 109.44, LOSS, "103.4 [98.5, 109.4]"),
        (98_432.0, 93_700.0, 103_900.0, LOSS, "98.4k [93.7k, 103.9k]"),
        (1.23e8, 1.1e8, 1.3e8, LOSS, "1.23e+08 [1.10e+08, 1.30e+08]"),
        (0.5317, 0.521, 0.542, SHARE, "53.2% [52.1%, 54.2%]"),
        (1.0, 1.0, 1.0, SHARE, "100.0% [100.0%, 100.0%]"),
    ],
)
def test_a_value_has_the_digits_that_its_interval_bears(value, low, high, metric, text):
    assert number_format.interval(Result("m", metric.name, value, low, high, 304), metric) == text


@pytest.mark.parametrize(
    ("metric", "alone", "whole"),
    [(LOSS, "−0.10", "−0.10 [−0.12, −0.08]"), (SHARE, "−10.1 points", "−10.1 [−12.0, −8.0] points")],
)
def test_differences_are_signed_and_shares_differ_by_points(metric, alone, whole):
    pair = Paired("a", "b", metric.name, -0.101, -0.12, -0.08, 304, 0.001)
    assert number_format.difference(pair, metric) == alone
    assert number_format.difference_interval(pair, metric) == whole


def test_spread_between_seeds():
    assert number_format.spread(Spread((4.66, 4.68, 4.69)), LOSS) == "3 seeds: 4.66 to 4.69, sd 0.015"


def test_bounds_have_the_digits_that_they_bear():
    assert number_format.bounds((4.6, 4.75), LOSS) == "[4.60, 4.75]"
    assert number_format.bounds((0.521, 0.542), SHARE) == "[52.1%, 54.2%]"


def test_units_fit_the_amount():
    assert [number_format.energy(kwh) for kwh in (2e-7, 2.1e-4, 9e-4, 0.0124, 3.2)] == [
        "0.2 mWh",
        "0.21 Wh",
        "0.9 Wh",
        "12 Wh",
        "3.2 kWh",
    ]
    assert [number_format.carbon(kg) for kg in (1e-6, 2.8e-3, 0.25, 12.0)] == ["1 mg", "2.8 g", "250 g", "12 kg"]
    assert [number_format.count(number) for number in (960, 102_400, 134_515_008, 1_240_000_000)] == [
        "960",
        "102,400",
        "134.5M",
        "1.2B",
    ]


def test_models_by_their_names():
    assert [
        number_format.label(model) for model in ("start", "student", "student base", "teacher a b", "other one")
    ] == [
        "Student before",
        "Student",
        "Student base",
        "Teacher a b",
        "other one",
    ]
    assert number_format.minus("start") == "Student − before"
    assert number_format.minus("student Other", "student base") == "Student base − student Other"


def test_a_p_is_as_precise_as_it_is_small():
    found = [number_format.probability(p).replace("\u00a0", " ") for p in (0.0004, 0.034, 0.12, 1.0)]
    assert found == ["p < 0.001", "p = 0.034", "p = 0.12", "p = 1.00"]
