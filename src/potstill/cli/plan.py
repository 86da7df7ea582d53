"""Plan: what a run needs and costs, before it is started."""

import importlib
import json

from potstill.errors import UserError
from potstill.pipeline.forecast import advice_on, known_of, with_measured_corpus
from potstill.pipeline.graph import all_steps, asked_for, steps_of
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.pipeline.work import Work
from potstill.planning.calibrate import calibrate as calibration
from potstill.planning.duration import Scales
from potstill.planning.layer_trials import try_layers
from potstill.planning.machine import machine_named
from potstill.planning.models import models_of, widths_of
from potstill.planning.plan import jobs_in, make_plan, to_dict
from potstill.planning.show import shown
from potstill.recipe import Recipe


def planned(recipe: Recipe, run: Run, machine: str | None, *, calibrate: bool = False, as_json: bool = False) -> str:
    """The plan of a whole run, as tables or as JSON. Nothing is run or written.

    Args:
        recipe: the recipe.
        run: the run, whose finished stages make the plan exact.
        machine: a name, or a file; None for this machine.
        calibrate: try two real steps of each kind here, and scale by them.
        as_json: as JSON.

    Raises:
        UserError: another machine shall be calibrated.
    """
    known = with_measured_corpus(known_of(recipe, run), recipe, run)
    models = models_of(recipe, known.teachers, ask_hub=True)
    where = machine_named(machine, run.folder, widths_of(models))
    steps, scales = all_steps(recipe), Scales()
    if calibrate:
        if machine is not None:
            raise UserError("`--calibrate` tries steps on this machine; leave `--machine` out")
        scales = calibration(jobs_in(recipe, steps, where, known, ask_hub=True), where)
    elif machine is None:
        scales = try_layers(jobs_in(recipe, steps, where, known, ask_hub=True), where)
    plan = make_plan(recipe, steps, where, known, ask_hub=True, scales=scales)
    advice = advice_on(plan)
    if not as_json:
        return shown(plan, advice)
    told = [
        {"place": misfit.place, "step": misfit.step, "set": list(one.changes), "devices": one.devices}
        | {"bytes": one.after.to_list(), "fits": one.fits}
        for misfit, found in advice
        for one in found
    ]
    return json.dumps(to_dict(plan) | {"advice": told}, indent=2)


def forecast_capture(recipe: Recipe, run: Run) -> str:
    """The cost of the recipe's capture in bytes and hours. Only the stages that the estimate needs are run.

    Raises:
        UserError: the recipe captures nothing, or an input is wrong.
    """
    steps = steps_of(recipe, asked_for(recipe, "capture"))
    recipe = run_recipe(recipe, run, until="strategies" if recipe.uses_strategies else "corpus")
    forecast = importlib.import_module("potstill.stages.capture").forecast
    return "\n".join(forecast(Work(recipe, run, step)) for step in steps)
