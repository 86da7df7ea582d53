"""Plan: the cost of a run, before it is started."""

import importlib

from potstill.pipeline.graph import asked_for, steps_of
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.pipeline.work import Work
from potstill.recipe import Recipe


def forecast_capture(recipe: Recipe, run: Run) -> str:
    """The cost of the recipe's capture in bytes and hours. Only the stages that the estimate needs are run.

    Raises:
        UserError: the recipe captures nothing, or an input is wrong.
    """
    steps = steps_of(recipe, asked_for(recipe, "capture"))
    recipe = run_recipe(recipe, run, until="strategies" if recipe.asks else "corpus")
    forecast = importlib.import_module("potstill.stages.capture").forecast
    return "\n".join(forecast(Work(recipe, run, step)) for step in steps)
