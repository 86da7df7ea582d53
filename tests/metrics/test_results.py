"""Results survive JSON, a few units are never beyond chance, and several p are corrected together."""

import json
from dataclasses import replace

import pytest

from potstill.metrics.results import FEWEST_UNITS, Paired, Result, Spread, holm

PAIR = Paired("student", "control", "loss", -0.1, -0.12, -0.08, 304, 0.001)


def test_rows_and_pairs_survive_json():
    row = Result("student", "loss", 4.68, 4.6, 4.75, 304, Spread((4.66, 4.7)), (4.65, 4.71))
    pair = replace(PAIR, seeds=Spread((-0.1, -0.11)), over_units=(-0.11, -0.09))
    assert Result.from_dict(json.loads(json.dumps(row.to_dict()))) == row
    assert Paired.from_dict(json.loads(json.dumps(pair.to_dict()))) == pair
    assert pair.to_dict()["beyond_chance"] is True
    alone = Result("student", "loss", 4.68, 4.6, 4.75, 304)
    assert Result.from_dict(json.loads(json.dumps(alone.to_dict()))) == alone


def test_the_interval_alone_says_what_is_beyond_chance():
    assert PAIR.beyond_chance
    assert replace(PAIR, seeds=Spread((-0.3, 0.1))).beyond_chance
    assert not replace(PAIR, high=0.01, over_units=(-0.11, -0.09)).beyond_chance


def test_a_few_units_are_never_beyond_chance():
    assert replace(PAIR, n=FEWEST_UNITS).beyond_chance
    few = replace(PAIR, n=FEWEST_UNITS - 1)
    assert few.too_few
    assert not few.beyond_chance
    assert few.to_dict()["beyond_chance"] is False


def test_holm_by_hand():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == pytest.approx(
        {"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02}
    )
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
