"""Status: the state, duration and size of every step of a run. Nothing is run."""

from pathlib import Path

from potstill.console import duration, size
from potstill.errors import UserError
from potstill.pipeline.cleaning import removed_lines
from potstill.pipeline.graph import all_steps, needed_by
from potstill.pipeline.manifest import cleaned_outputs
from potstill.pipeline.precision import decision_of
from potstill.pipeline.run_folder import Run
from potstill.pipeline.up_to_date import is_done
from potstill.recipe import Recipe
from potstill.recipe.load import saved_recipe
from potstill.recipe.step import Step


def describe(folder: Path) -> str:
    """One line for each step: its state, its duration and its size on disk; and a line about the number format.

    Raises:
        UserError: the folder is no run.
    """
    run = Run(folder)
    recipe = saved_recipe(folder)
    decided = decision_of(recipe, run)
    if decided is not None:
        recipe = recipe.model_copy(update={"precision": decided.precision})
    lines, total, not_done = [], 0.0, set[Step]()
    for step in all_steps(recipe):
        state = _state(recipe, run, step, not_done)
        if not state.startswith("done"):
            not_done.add(step)
        known = run.earlier(step)
        seconds = known["cost"]["seconds"] if known and known["cost"] else 0.0
        total += seconds
        weight = sum(made["bytes"] for made in known.get("outputs", {}).values()) if known else 0
        weight -= sum(cleaned_outputs(run.path(step)).values())
        figures = f"{duration(seconds) if seconds else '':>12} {size(weight) if weight else '':>10}"
        lines.append(f"{step!s:<16} {state:<20} {figures}".rstrip())
    lines.append(f"{'in all':<37} {duration(total):>12}")
    removed = removed_lines(run, all_steps(recipe))
    return "\n".join([*lines, *([decided.line()] if decided is not None else []), *removed])


def _state(recipe: Recipe, run: Run, step: Step, not_done: set[Step]) -> str:
    """One of: left, stopped midway, incomplete, inputs missing, inputs changed, waits for another stage, done, and done
    with some outputs removed."""
    if run.earlier(step) is None:
        return "left"
    if run.manifest(step) is None:
        return "stopped midway" if run.unfinished(step) is not None else "incomplete"
    if waits_for := [needed.stage for needed in needed_by(recipe, step) if needed in not_done]:
        return f"waits for {waits_for[0]}"
    try:
        if not is_done(recipe, run, step):
            return "inputs changed"
        return "done, cleaned" if cleaned_outputs(run.path(step)) else "done"
    except UserError:
        return "inputs missing"
