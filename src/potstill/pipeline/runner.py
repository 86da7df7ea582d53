"""Runner: finds the steps of a recipe that are not done, and runs them.

A step's *inputs* are its part of the recipe, the files that this part names, and the outputs of earlier steps. A step
is done if its manifest has the same inputs. Otherwise it runs, or continues a stopped attempt.
"""

import importlib
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from potstill import distributed
from potstill.console import duration, say
from potstill.errors import UserError, first_line
from potstill.files.atomic import digest
from potstill.pipeline.cleaning import refuse_what_was_cleaned
from potstill.pipeline.failures import explain_failures
from potstill.pipeline.graph import BY_NAME, STAGES, all_steps, asked_for, needed_by, steps_of
from potstill.pipeline.heartbeat import Heartbeat
from potstill.pipeline.manifest import cleaned_outputs
from potstill.pipeline.precision import decide, warn
from potstill.pipeline.run_folder import Run
from potstill.pipeline.up_to_date import inputs_of, is_done, reason_to_repeat
from potstill.pipeline.work import Made, Work
from potstill.recipe import Recipe
from potstill.recipe.step import Step


def _memory_now() -> dict[str, int | None]:
    # torch takes seconds to import, and a run that is done needs none of it.
    if "torch" not in sys.modules:
        return {}
    from potstill.planning import peak_memory

    return peak_memory.held()


def run_recipe(recipe: Recipe, run: Run, until: str | None = None, force: Sequence[str] = ()) -> Recipe:
    """Run every step that is not done, in order. Each step continues where an earlier attempt stopped.

    Args:
        recipe: the recipe.
        run: the run folder.
        until: run only this stage and the stages that it needs.
        force: run these stages again although they are done.

    Returns:
        The recipe with the number format of the run.

    Raises:
        UserError: bad input, or a failure with a known remedy.
    """
    steps = all_steps(recipe, until)
    forced = [step for name in force for step in steps_of(recipe, asked_for(recipe, name))]
    if unneeded := [step for step in forced if step not in steps]:
        raise UserError(f"`--force {unneeded[0].stage}`: `{until}` does not need that stage; leave one of the two out")
    # Only the first rank writes into the run folder.
    with ExitStack() as open_run:
        heart = None
        if distributed.is_first():
            open_run.enter_context(run.open(recipe.model_dump(mode="json", by_alias=True)))
            heart = open_run.enter_context(Heartbeat(run.folder, _memory_now))
        decided = decide(recipe, run)
        _run_steps(decided, run, steps, forced, partial(_begin, recipe, decided, run), heart)
    return decided


def _begin(given: Recipe, recipe: Recipe, run: Run, steps: Sequence[Step]) -> dict[str, dict[str, Any]]:
    """Check the recipe before the first of its steps, and say what the user should know before it.

    Returns:
        The forecast of each step, by its name; empty on all ranks but the first.

    Raises:
        UserError: a setting is wrong, or the run cannot fit this machine.
    """
    from potstill.pipeline.forecast import plan_of, refuse_what_cannot_fit, say_how_long, with_tried_layers

    check_stages(recipe)
    if not distributed.is_first():
        return {}
    warn(given, recipe, run)
    left = _left(recipe, run, steps)
    try:
        plan = plan_of(recipe, run, left)
    except Exception as error:  # noqa: BLE001 (whatever a model without weights raises, the run itself needs no plan)
        without_forecast(error)
        return {}
    refuse_what_cannot_fit(plan, run)
    plan = with_tried_layers(plan, recipe, left)
    say_how_long(plan)
    return {one.step: one.to_dict() for one in plan.steps}


def without_forecast(error: Exception) -> None:
    """Say that a run has no forecast. It goes on."""
    say(f"no forecast ({first_line(error)}); `potstill --debug plan` shows where that comes from")


def _left(recipe: Recipe, run: Run, steps: Sequence[Step]) -> list[Step]:
    """The first of these steps, and all others that are not done or wait for one that is not."""
    left = [steps[0]]
    for step in steps[1:]:
        waits = any(needed in left for needed in needed_by(recipe, step))
        if waits or run.manifest(step) is None or not is_done(recipe, run, step):
            left.append(step)
    return left


def _run_steps(
    recipe: Recipe,
    run: Run,
    steps: Sequence[Step],
    forced: Sequence[Step],
    begin: Callable[[Sequence[Step]], dict[str, dict[str, Any]]],
    heart: Heartbeat | None,
) -> None:
    did, forecasts = 0, dict[str, dict[str, Any]]()
    for number, step in enumerate(steps):
        # The first rank reads the folder for all: ranks that find different damage would wait for each other for ever.
        found = (inputs_of(recipe, run, step), run.manifest(step)) if distributed.is_first() else None
        inputs, manifest = distributed.broadcast(found)
        assert inputs is not None, f"{step} needs a step that has not run"
        if manifest is not None and manifest["key"] == digest(inputs) and step not in forced:
            removed = "; `potstill clean` removed files of it" if cleaned_outputs(run.path(step)) else ""
            say(f"{step}: done before, in {duration(manifest['cost']['seconds'])}{removed}")
            continue
        if did == 0:
            if distributed.is_first() and any(cleaned_outputs(run.path(one)) for one in steps):
                refuse_what_was_cleaned(recipe, run, [*_left(recipe, run, steps[number:]), *forced])
            forecasts = begin(steps[number:])
            if heart is not None:
                heart.forecast(forecasts)
        did += 1
        if heart is None:
            _run_step_on_other_rank(Work(recipe, run, step, step in forced))
            continue
        reason = reason_to_repeat(run, step, inputs)
        if reason is not None:
            say(f"{step}: {reason}, so it begins anew; its earlier outputs go to replaced/")
        _run_step(Work(recipe, run, step, step in forced), inputs, forecasts.get(str(step)), heart)


def _run_step(work: Work, inputs: dict[str, Any], forecast: dict[str, Any] | None, heart: Heartbeat) -> None:
    from potstill.cost import Cost, measure
    from potstill.planning import peak_memory

    run, step = work.run, work.step
    # This covers everything: on a full disk, the cost of a failed stage cannot be written either.
    with explain_failures(step, work.folder):
        state = run.begin(step, inputs, work.recipe.model_dump(mode="json", by_alias=True))
        say(f"{step}: {'begins' if state['attempts'] == 1 else 'goes on'}")
        spent = Cost.from_dict(state["cost"]) if state["cost"] else None
        _quiet_transformers()
        module = _module(step.stage)
        with measure() as meter, peak_memory.measured() as peak:
            heart.begin(step, lambda: meter.cost if spent is None else spent + meter.cost)
            try:
                distributed.barrier()
                made: Made = module.run(work)
                distributed.barrier()
            finally:
                heart.end()
                total = meter.cost if spent is None else spent + meter.cost
                run.spend(step, total.to_dict())
        # A forecast is for each rank, and one of them may need more than the first.
        largest = peak_memory.PeakMemory.largest(distributed.gathered(peak))
        foreseen = {"forecast": forecast, "peak_memory": largest.to_dict()}
        run.finish(step, total.to_dict(), made.outputs, made.summary, foreseen)
        distributed.barrier()
    say(f"{step}: done in {duration(total.seconds)}")


def _quiet_transformers() -> None:
    """Hide transformers' progress bars, which break ours. Bars of downloads from the hub stay."""
    from huggingface_hub.utils.tqdm import enable_progress_bars
    from transformers.utils import logging

    logging.disable_progress_bar()
    if sys.stdout.isatty():
        enable_progress_bars()


def _run_step_on_other_rank(work: Work) -> None:
    """Run a step on a rank that is not the first: its share of the work, if all ranks take part."""
    from potstill.planning import peak_memory

    with explain_failures(work.step, work.folder):
        with peak_memory.measured() as peak:
            distributed.barrier()
            if BY_NAME[work.step.stage].all_ranks:
                _module(work.step.stage).run(work)
            distributed.barrier()
        distributed.gathered(peak)
        distributed.barrier()


def check_stages(recipe: Recipe, without: Sequence[str] = ()) -> None:
    """Let each stage of the recipe, but for some, refuse bad settings before any step runs."""
    for stage in STAGES:
        wanted = stage.name not in without and steps_of(recipe, stage)
        check = getattr(_module(stage.name), "check", None) if wanted else None
        if check is not None:
            check(recipe)


def _module(stage: str) -> Any:
    """The module of a stage. The table of stages knows only its name."""
    return importlib.import_module(f"potstill.stages.{stage}")
