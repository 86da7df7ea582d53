"""The page has every variant, its differences and its costs; the recipes of all parts are valid."""

import pytest

from experiments.chat import BASE, EVERY, HERE, LAST, METRICS, ON_ANSWERS, PARTS, QUICK, Found, page
from potstill.recipe import load_recipe

NAMES = [name for _, names in PARTS.values() for name in names.values()]


def found(shift=0.0, turns=False):
    more = ("loss/turn 1", "loss/turn 2") if turns else ()
    of = {name: [1.0, 1.1, 1.2] for name in (*METRICS, *more)}
    models = {"teacher": Found({name: [0.5] for name in of}), "start": Found({name: [3.0] for name in of})}
    models |= {name: Found(of, 1000, 60.0) for name in NAMES}
    models[ON_ANSWERS] = Found(
        {name: [value + shift for value in values] for name, values in of.items()}, 900, 60.0, 300.0
    )
    return models


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("more", [[], QUICK])
def test_each_part_is_a_recipe(part, more):
    recipe = load_recipe(str(HERE / "chat.yaml"), [*PARTS[part][0], *more])
    assert (recipe.generate is not None) == (part == "answers")
    assert set(PARTS[part][1]) == ({"student"} if recipe.control is None else {"student", "control"})


def test_a_difference_beyond_the_seeds_is_told():
    text = page(found(shift=-0.5))
    assert f"| {ON_ANSWERS} | loss | -0.5000, -0.5000, -0.5000 | -0.5000 |" in text
    assert f"| {BASE} | loss |" not in text
    assert "| teacher | 0.5000 |" in text
    assert f"| {ON_ANSWERS} | 900 | 5 min 00 s | 1 min 00 s |" in text
    assert f"| {LAST} | loss | +0.0000, +0.0000, +0.0000 | +0.0000 |" in text
    worth, _, turns = text.partition("## What learning only the last turn costs")
    assert LAST not in worth.partition("## What each is worth")[2]
    assert f"| {EVERY} | 1.1000 ± 0.1000 |" in turns


def test_the_last_turn_is_told_by_the_number_of_the_turn():
    assert f"| {LAST} | loss/turn 2 | +0.0000" in page(found(turns=True))


def test_a_page_of_the_first_runs_says_what_is_missing():
    every = found()
    first = {name: every[name] for name in ("teacher", "start", *PARTS["references"][1].values())}
    assert "This part was not run yet" in page(first)
    assert "This part was not run yet" in page({name: one for name, one in every.items() if name != LAST})
    assert "not run yet" not in page(every)
