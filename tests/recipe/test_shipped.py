"""Every shipped recipe: it parses, and a toy of it runs from end to end."""

import json
from types import SimpleNamespace

import pytest

from potstill.models.from_scratch import from_scratch
from potstill.pipeline.graph import all_steps
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.pipeline.up_to_date import is_done
from potstill.recipe import load_recipe, shipped_recipes
from tiny import toy_recipe


@pytest.mark.parametrize("name", shipped_recipes())
def test_it_parses_and_describes_itself(name):
    recipe = load_recipe(name)
    assert len(recipe.about) > 20
    assert all_steps(recipe)


@pytest.mark.usefixtures("short_texts")
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


@pytest.mark.parametrize(
    ("name", "model", "vocabulary", "parameters"),
    [
        ("babyllama", "gpt2", 16_000, 704_928_768),
        ("babyllama", "llama", 16_000, 359_973_888),
        ("babyllama", "student", 16_000, 58_343_936),
        ("babyllama-2", "student", 16_000, 345_355_200),
        ("distilllama", "student", 32_000, 87_310_848),
    ],
)
def test_its_models_have_the_published_size(name, model, vocabulary, parameters):
    recipe, tokens = load_recipe(name), SimpleNamespace(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    given = recipe.student if model == "student" else recipe.pretrain[model]
    assert from_scratch(given.config, "config", tokens, vocabulary, 0, "meta").num_parameters() == parameters


def test_there_are_recipes():
    assert "quickstart" in shipped_recipes()
