"""Every recipe that ships: it parses, and a toy of it runs from end to end."""

import json

import pytest

from potstill.pipeline import all_steps
from potstill.recipe import load_recipe, shipped_recipes
from potstill.run import Run
from potstill.runner import is_done, run_recipe
from tiny import toy_recipe


@pytest.mark.parametrize("name", shipped_recipes())
def test_it_parses_and_says_what_it_is_about(name):
    recipe = load_recipe(name)
    assert len(recipe.about) > 20
    assert all_steps(recipe)


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_toy_of_it_runs(name, tmp_path):
    run, recipe = Run(tmp_path / "run"), toy_recipe(tmp_path, recipe=name)
    run_recipe(recipe, run)
    assert all(is_done(recipe, run, step) for step in all_steps(recipe))
    rows = json.loads((run.path("evaluate") / "comparison.json").read_text())["rows"]
    models = {row["model"] for row in rows if row["metric"] == "loss"}
    students = {"student" if name is None else f"student {name}" for name in recipe.variants}
    assert {"start", "control"} | students <= models
    assert (run.path("report") / "index.html").stat().st_size > 10_000


def test_there_are_recipes():
    assert "quickstart" in shipped_recipes()
