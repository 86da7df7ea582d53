"""Export: write the student of a finished run for other programs, and make the run's report again."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from potstill.cli.faults import in_run
from potstill.cli.options import ForceThis, RecipeOrRun, RunDir, Set, StudentsToExport, ToFormats
from potstill.errors import UserError

if TYPE_CHECKING:
    from potstill.recipe import Recipe


def export_verb(run_stage: Callable[[str, Path | None, str, list[str], list[str]], None]) -> Callable[..., None]:
    """The verb: the stage of a recipe, or formats of a finished run.

    Args:
        run_stage: runs a recipe up to a stage: the recipe, the run folder, the stage, what is forced, the overrides.
    """

    def verb(
        recipe: RecipeOrRun,
        to: ToFormats = None,
        experiment: StudentsToExport = None,
        run_dir: RunDir = None,
        force: ForceThis = False,
        set_: Set = None,
    ) -> None:
        if not Path(recipe).is_dir():
            if to is not None or experiment:
                raise UserError(
                    f"`--to` and `--experiment` export a finished run, and {recipe!r} is no run folder; give one, such "
                    "as `runs/quickstart`, or write `export:` into the recipe"
                )
            run_stage(recipe, run_dir, "export", ["export"] if force else [], set_ or [])
            return
        if run_dir is not None or force or set_:
            raise UserError(
                f"{recipe} is a run folder, whose recipe stays; leave `--run-dir`, `--force` and `--set` out"
            )
        with in_run(Path(recipe)):
            refused = export(Path(recipe), to, experiment or [])
        for line in refused:
            print(f"potstill: refused: {line}", file=sys.stderr)
        if refused:
            raise SystemExit(1)

    return verb


def export(folder: Path, to: str | None, experiments: Sequence[str]) -> list[str]:
    """Export the student of a finished run. Formats that were exported before are kept.

    Args:
        folder: the run.
        to: the formats, with commas between them. None: those of the recipe, or the default ones.
        experiments: the students. Empty: those of the recipe, or all.

    Returns:
        One line for each file that was refused.

    Raises:
        UserError: the folder is no finished run, or there is no such format or student.
    """
    from potstill.export.entries import entries
    from potstill.pipeline.graph import all_steps
    from potstill.pipeline.precision import with_precision
    from potstill.pipeline.run_folder import Run
    from potstill.pipeline.runner import run_recipe
    from potstill.pipeline.up_to_date import is_done
    from potstill.recipe.load import saved_recipe

    run = Run(folder)
    recipe = _asked_for(saved_recipe(folder), to, experiments)
    whole = with_precision(recipe, run)
    needed = [step for step in all_steps(whole) if step.stage not in ("export", "report")]
    if left := next((step for step in needed if not is_done(whole, run, step)), None):
        raise UserError(
            f"{folder} is not finished: `{left}` is not done with what its recipe reads today; `potstill status "
            f"{folder}` says more"
        )
    run_recipe(recipe, run)
    return [
        f"{one['format']} of {one['experiment']}: {one['refused']}" for one in entries(recipe, run) if one["refused"]
    ]


def _asked_for(recipe: "Recipe", to: str | None, experiments: Sequence[str]) -> "Recipe":
    """The recipe with what is asked for, beside what it asked for before."""
    from potstill.recipe.load import checked_recipe

    content = recipe.model_dump(mode="json", by_alias=True)
    given = {} if recipe.export is None else dict(content["export"])
    if to is not None:
        given["to"] = _with(given.get("to", []), [name.strip() for name in to.split(",")])
    if experiments:
        before = [] if recipe.export is None else given["experiments"] or [*recipe.experiments]
        given["experiments"] = _with(before, experiments)
    return checked_recipe(content | {"export": given}, "potstill export")


def _with(before: Sequence[str], more: Sequence[str]) -> list[str]:
    return list(dict.fromkeys([*before, *more]))
