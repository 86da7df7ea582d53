"""Plan: what a run will take, before it is spent."""

import importlib

from potstill.pipeline.graph import asked_for, steps_of
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.pipeline.work import Work
from potstill.recipe import Recipe


def forecast_capture(recipe: Recipe, run: Run) -> str:
    """What the recipe's capture will take, in bytes and hours; only what it needs is done.

    Raises:
        UserError: the recipe captures nothing, or bad input.
    """
    steps = steps_of(recipe, asked_for(recipe, "capture"))
    run_recipe(recipe, run, until="strategies" if recipe.asks else "corpus")
    forecast = importlib.import_module("potstill.stages.capture").forecast
    return "\n".join(forecast(Work(recipe, run, step)) for step in steps)
