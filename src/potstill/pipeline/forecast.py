"""Forecast of a run: the plan of the steps that are left, from what the run folder tells already."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from potstill import distributed
from potstill.console import say, size
from potstill.errors import UserError
from potstill.models.pretrained import ModelSource
from potstill.pipeline.graph import all_steps
from potstill.pipeline.run_folder import Run
from potstill.planning.advice import Advice, advise, otherwise
from potstill.planning.layer_trials import try_layers
from potstill.planning.machine import Ranks, machine_named
from potstill.planning.models import models_of, widths_of
from potstill.planning.needs import Need, misfits, needs_of
from potstill.planning.plan import Known, Plan, jobs_in, make_plan
from potstill.planning.sampling.measure import measured_amounts
from potstill.recipe import Recipe
from potstill.recipe.step import Step
from potstill.teachers.prepared import POINTER, PreparedTeacher

SHORTEST = 60.0
"""In seconds. Of less, what is not counted is the greater part."""


def known_of(recipe: Recipe, run: Run) -> Known:
    """What the run folder tells before the next step."""
    prepared = recipe.teachers if _is_whole(run, "teachers") else ()
    teachers = {name: _config_of(run.path("teachers") / name) for name in prepared}
    asked = None
    if recipe.asks:
        first = recipe.sample_set_of(recipe.first_variant).name
        asked = _figures(run, Step("strategies", name=first), "answer_tokens")
    found = {name: config for name, config in teachers.items() if config is not None}
    return Known(found, _figures(run, "corpus", "train_questions" if recipe.asks else "train_samples"), asked)


def _is_whole(run: Run, step: Step | str) -> bool:
    """Whether a step is finished, and its outputs are as they were written."""
    try:
        return run.manifest(step) is not None
    except UserError:
        return False


def _config_of(folder: Path) -> Any:
    try:
        return PreparedTeacher.load(folder).config() if (folder / POINTER).is_file() else None
    except UserError:
        # Whatever is wrong with a teacher, its own stage says it.
        return None


def _figures(run: Run, step: Step | str, key: str) -> dict[str, Any] | None:
    """The figures of a finished step; None if it is not finished, or has no such figure."""
    manifest = run.manifest(step) if _is_whole(run, step) else None
    return manifest["summary"] if manifest is not None and key in manifest["summary"] else None


def typical_widths(recipe: Recipe, run: Run) -> tuple[int, int]:
    """The widths of the largest feed-forward layer of the run's models."""
    return widths_of(models_of(recipe, known_of(recipe, run).teachers, ask_hub=False))


def with_measured_corpus(known: Known, recipe: Recipe, run: Run) -> Known:
    """The same, with what a part of the corpus tells, where the corpus or its prompts are not made yet.

    This takes some seconds.
    """
    if known.corpus is not None and (known.prompts is not None or not recipe.asks):
        return known
    return replace(known, measured=measured_amounts(recipe, _tokenizer_of(recipe, run)))


def _tokenizer_of(recipe: Recipe, run: Run) -> Any:
    """The tokenizer that the run has made or prepared; None before that."""
    try:
        if recipe.tokenizer is not None:
            own = run.path("tokenizer") / "tokenizer"
            return ModelSource(str(own), "the run's tokenizer").tokenizer() if _is_whole(run, "tokenizer") else None
        prepared = _is_whole(run, "teachers") and recipe.teachers
        return (
            PreparedTeacher.load(run.path("teachers") / next(iter(recipe.teachers))).tokenizer() if prepared else None
        )
    except UserError:
        # Whatever is wrong with it, its own stage says it.
        return None


def plan_of(recipe: Recipe, run: Run, steps: Sequence[Step]) -> Plan:
    """The plan of some steps of a run on this machine, with the processes that were started."""
    machine = machine_named(None, run.folder, typical_widths(recipe, run))
    ranks = Ranks(distributed.world_size(), distributed.local_world_size())
    return make_plan(recipe, steps, replace(machine, ranks=ranks), known_of(recipe, run))


def with_tried_layers(plan: Plan, recipe: Recipe, steps: Sequence[Step]) -> Plan:
    """The plan of a run of minutes, once the first layers of its models are tried; a shorter one as it is.

    Args:
        plan: the plan.
        recipe: its recipe.
        steps: its steps.
    """
    if plan.known_seconds.expected < SHORTEST:
        return plan
    scales = try_layers(jobs_in(recipe, steps, plan.machine, plan.known), plan.machine)
    return make_plan(recipe, steps, plan.machine, plan.known, scales=scales)


def advice_on(plan: Plan) -> list[tuple[Need, list[Advice]]]:
    """For each thing that does not fit, changes of the recipe that need less."""
    return [(misfit, list(_advice(plan, misfit))) for misfit in misfits(plan)]


def _advice(plan: Plan, misfit: Need) -> Iterator[Advice]:
    return advise(plan, misfit, lambda changed, machine: make_plan(changed, all_steps(changed), machine, plan.known))


def say_how_long(plan: Plan) -> None:
    """Print how long the steps will take here; nothing if it is less than a minute or cannot be told."""
    if plan.seconds is not None and plan.seconds.expected >= SHORTEST:
        say(f"about {rounded(plan.seconds.expected)} on this machine")


def refuse_what_cannot_fit(plan: Plan, run: Run) -> None:
    """Refuse a run that does not fit this machine even by its least forecast.

    Raises:
        UserError: says what is needed and what is there, and the first change that fits.
    """
    for misfit in needs_of(plan, "low"):
        if misfit.needed.low <= misfit.there:
            continue
        # What a stopped attempt has written is not written again.
        if misfit.place == "disk" and misfit.needed.low <= misfit.there + _bytes_in(run.folder):
            continue
        first = next((one for one in _advice(plan, misfit) if one.fits and one.devices is None), None)
        remedy = (
            otherwise(plan, misfit) if first is None else f"try {' '.join(f'`--set {one}`' for one in first.changes)}"
        )
        needed, there = f"{size(misfit.needed.low)} {_of_what(plan, misfit)}", size(misfit.there)
        raise UserError(f"{_who(plan, misfit)} needs at least {needed}, and this machine has {there}; {remedy}")


def _who(plan: Plan, misfit: Need) -> str:
    if misfit.step is None:
        return "the run"
    ranks = plan.ranks.here if misfit.place == "host" else 1
    return f"`{misfit.step}`" if ranks == 1 else f"`{misfit.step}` in {ranks} processes"


def _of_what(plan: Plan, misfit: Need) -> str:
    if misfit.place == "host":
        return "of memory" if plan.machine.kind == "cpu" else "of the host's memory"
    return {"device": "of memory", "disk": "of free disk", "cache": "of free disk for the hub's cache"}[misfit.place]


def _bytes_in(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())


def rounded(found: float) -> str:
    """A duration without more digits than a forecast has."""
    if found < 90:
        return f"{round(found, -1):.0f} s"
    return f"{found / 60:.0f} min" if found < 5400 else f"{found / 3600:.1f} h"
