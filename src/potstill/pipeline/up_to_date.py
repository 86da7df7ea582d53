"""Up to date: the inputs of a step, and whether it has to run."""

from typing import Any

from potstill.files.atomic import digest
from potstill.pipeline.graph import BY_NAME, needed_by
from potstill.pipeline.run_folder import Run
from potstill.recipe import Recipe
from potstill.recipe.step import Step

INPUT_GROUPS = ("recipe", "files", "steps")


NAMED_AT_MOST = 3
"""The number of changed inputs that a message names."""


def inputs_of(recipe: Recipe, run: Run, step: Step) -> dict[str, Any] | None:
    """The inputs of a step, by name; None while a step that it needs is not done.

    Raises:
        UserError: a file that the recipe names is missing.
    """
    stage, steps = BY_NAME[step.stage], {}
    for needed in needed_by(recipe, step):
        manifest = run.manifest(needed)
        if manifest is None:
            return None
        steps[str(needed)] = digest(manifest if stage.reads_manifests else manifest["outputs"])
    files = stage.files(recipe) | stage.user_files(run)
    return {
        "step": str(step),
        "recipe": plain_values(stage.recipe_inputs(recipe, step)),
        "files": files,
        "steps": steps,
    }


def is_done(recipe: Recipe, run: Run, step: Step) -> bool:
    """Whether a step is finished and its inputs are those of today."""
    manifest = run.manifest(step)
    return manifest is not None and manifest["key"] == digest(inputs_of(recipe, run, step))


def reason_to_repeat(run: Run, step: Step, inputs: dict[str, Any]) -> str | None:
    """The reason to repeat a step. None if it never ran, or if a stopped attempt continues."""
    earlier = run.earlier(step)
    if earlier is None:
        return None
    if changed := [
        name for group in INPUT_GROUPS for name in _changed_names(earlier["inputs"].get(group, {}), inputs[group])
    ]:
        more = f" and {len(changed) - NAMED_AT_MOST} more" if len(changed) > NAMED_AT_MOST else ""
        return f"{', '.join(changed[:NAMED_AT_MOST])}{more} changed"
    if "finished" not in earlier:
        return None
    damaged = run.damaged(step)
    for name, word in damaged.items():
        more = f" and {len(damaged) - 1} more are not whole" if len(damaged) > 1 else ""
        return f"its output {name} is {word}{more}"
    return "`--force` asks for it"


def _changed_names(before: Any, after: Any, name: str = "") -> list[str]:
    """The dotted names of the values that differ between two trees of dicts."""
    if isinstance(before, dict) and isinstance(after, dict):
        inside = (_changed_names(before.get(key), after.get(key), f"{name}.{key}".strip(".")) for key in before | after)
        return [changed for each in inside for changed in each]
    return [] if before == after else [name]


def plain_values(value: Any) -> Any:
    """Turn the sections of a recipe within lists and dicts into plain JSON values."""
    if isinstance(value, list):
        return [plain_values(item) for item in value]
    if isinstance(value, dict):
        return {key: plain_values(item) for key, item in value.items()}
    return value.model_dump(mode="json", by_alias=True) if hasattr(value, "model_dump") else value
