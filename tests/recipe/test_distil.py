"""Snapshots: the steps at which a training keeps its weights."""

import pytest

import minimal
from potstill.errors import UserError
from potstill.recipe.distil import KeptSnapshots


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *overrides: minimal.recipe(tmp_path, *overrides)


@pytest.mark.parametrize(
    ("given", "last", "steps"),
    [
        ({"count": 5}, 50, [10, 20, 30, 40, 50]),
        ({"count": 3}, 10, [3, 7, 10]),
        ({"count": 30}, 4, [1, 2, 3, 4]),
        ({"every": 100}, 250, [100, 200, 250]),
        ({"every": 100}, 200, [100, 200]),
        ({"every": 100}, 5, [5]),
        ({"count": 10, "spread": "geometric"}, 1000, [2, 4, 8, 16, 32, 63, 126, 251, 501, 1000]),
        ({"count": 6, "spread": "geometric"}, 8, [1, 2, 3, 4, 6, 8]),
        ({"count": 9, "spread": "geometric"}, 9, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
    ],
)
def test_the_steps_of_snapshots(given, last, steps):
    assert KeptSnapshots(**given).steps(last) == steps


@pytest.mark.parametrize("spread", ["even", "geometric"])
@pytest.mark.parametrize("last", [1, 7, 30, 31, 1000])
@pytest.mark.parametrize("count", [1, 2, 30])
def test_there_are_count_snapshots_and_the_last_step_has_one(count, last, spread):
    steps = KeptSnapshots(count=count, spread=spread).steps(last)
    assert len(steps) == min(count, last)
    assert steps == sorted(set(steps))
    assert steps[-1] == last
    assert steps[0] >= 1


def test_a_number_is_a_count(recipe):
    assert recipe("distil.snapshots=30").distil.snapshots == KeptSnapshots(count=30)
    assert recipe('distil.snapshots={"every": 100}').distil.snapshots == KeptSnapshots(every=100)
    assert recipe().distil.snapshots is None


@pytest.mark.parametrize(
    "given", ["0", "{}", '{"every": 5, "count": 3}', '{"every": 5, "spread": "geometric"}', "true"]
)
def test_neither_count_nor_every_or_both_is_refused(recipe, given):
    with pytest.raises(UserError, match=r"`?distil.snapshots"):
        recipe(f"distil.snapshots={given}")
