"""A law is found again in its points, refused where points cannot tell it, and says where it extrapolates."""

import numpy as np
import pytest

from potstill.errors import UserError
from potstill.planning.scaling_law import Point, fit, teacher_rule

SIZES, LENGTHS = (1e6, 4e6, 1.6e7), (1e7, 4e7, 1.6e8)
SIX = (1e7, 2e7, 4e7, 8e7, 1.6e8, 3.2e8)


def true(parameters, tokens):
    return 1.7 + 400 / parameters**0.34 + 410 / tokens**0.28


def points(sizes, lengths, noise=0.001, seed=0):
    draw = np.random.default_rng(seed)
    return [Point(n, d, true(n, d) * (1 + noise * draw.normal())) for n in sizes for d in lengths]


@pytest.fixture(scope="module")
def both():
    return fit(points(SIZES, LENGTHS))


def test_constants_are_found_again(both):
    assert both.terms == ("parameters", "tokens")
    for name, value in {"a": 0.34, "b": 0.28, "E": 1.7}.items():
        found = both.constants[name]
        assert found.low <= value <= found.high
        assert found.value == pytest.approx(value, rel=0.05)
    assert both.constants["A"].value == pytest.approx(400, rel=0.2)
    assert both.deviation < 0.02


def test_it_expects_what_comes_and_says_how_far_that_is(both):
    within = both.loss(4e6, 4e7)
    assert within.extrapolates is None
    assert within.loss.value == pytest.approx(true(4e6, 4e7), rel=0.005)
    beyond = both.loss(3.2e7, 1e6)
    assert beyond.extrapolates == (
        "2 times the most parameters that were measured and 1/10 of the fewest tokens that were measured"
    )
    assert beyond.loss.high - beyond.loss.low > within.loss.high - within.loss.low
    assert type(beyond.loss.low) is float


@pytest.mark.parametrize(
    ("sizes", "lengths", "terms"),
    [((1e6,), SIX, ("tokens",)), (SIX, (1e8,), ("parameters",)), (SIZES, LENGTHS, ("parameters", "tokens"))],
)
def test_no_more_terms_are_fitted_than_the_points_can_tell(sizes, lengths, terms):
    law = fit(points(sizes, lengths))
    assert law.terms == terms
    assert law.constants.keys() == {
        "E",
        *({"A", "a"} if "parameters" in terms else ()),
        *({"B", "b"} if "tokens" in terms else ()),
    }
    more = law.loss(2 * sizes[-1] if terms == ("parameters",) else sizes[-1], 2 * lengths[-1])
    assert more.loss.value < min(point.loss for point in law.points)


def test_the_power_is_fitted_where_there_are_many_points():
    def published(n, d):
        return 1.2 + (3000 / n**0.4 + 20000 / d**0.43) ** 0.45

    law = fit([Point(n, d, published(n, d)) for n in (1e7, 4e7, 1.6e8, 6e8) for d in (1e8, 4e8, 1.6e9, 6e9, 2e10)])
    assert law.constants["g"].value == pytest.approx(0.45, rel=0.02)


def test_a_fit_is_the_same_each_time(both):
    assert fit(points(SIZES, LENGTHS)).constants == both.constants


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (points((1e6,), SIX[:4]), "from 4 trainings with 1 size and 4 numbers of tokens; measure 5 numbers"),
        (points((1e6, 2e6), SIX), "from 12 trainings with 2 sizes and 6 numbers of tokens"),
        (points(SIZES, LENGTHS)[:1] * 9, "from 9 trainings with 1 size and 1 number of tokens"),
        ([Point(1e6, d, 3 + 0.01 * (-1) ** at) for at, d in enumerate(SIX)], "no law fits: the 6 losses lie between"),
        ([Point(1e6, d, 3.0) for d in SIX], "no law fits"),
        ([*points((1e6,), SIX), Point(1e6, 0, 3.0)], "has no parameters, no tokens or no finite loss"),
        ([*points((1e6,), SIX), Point(1e6, 1e9, float("nan"))], "has no parameters, no tokens or no finite loss"),
    ],
)
def test_points_that_tell_no_law_are_refused_in_a_sentence(given, told):
    with pytest.raises(UserError, match=told) as error:
        fit(given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("ratio", "told"),
    [(1.0, "nothing to teach"), (0.9, "a better teacher may teach more"), (0.8, "where the best"), (0.5, "too good")],
)
def test_the_rule_says_its_limits(ratio, told):
    said = teacher_rule(ratio * 3.0, 3.0)
    assert told in said
    assert f"{ratio:.2f}" in said
    assert "were not checked against its paper" in said
    assert "take it as a hint" in said
