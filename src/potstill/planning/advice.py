"""Advice: changes of a recipe that make it fit, each with the figure that the changed recipe has.

No figure has a formula of its own: each change is applied to the recipe, and the changed recipe is planned.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from potstill.planning.machine import Machine
from potstill.planning.needs import Need, needs_of
from potstill.planning.plan import Plan
from potstill.planning.ranges import Range
from potstill.recipe import Recipe
from potstill.recipe.across_tokenizers import crossing_loss
from potstill.recipe.no_effect import ACCUMULATION, BATCH, BATCH_DEFAULT
from potstill.recipe.teachers import ServerTeacher
from potstill.recipe.training_fields import CHECKPOINTING

LEAST_K = 16
PARTS_OF_BATCH = (2, 8, 32)
"""Into how many micro-batches one is divided."""
MORE_DEVICES = (2, 4, 8, 16)
TRAININGS = ("pretrain", "distil", "control", "search")
LORA = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"}
FOUR_BITS = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}


@dataclass(frozen=True)
class Advice:
    """A change of the recipe, as `--set` takes it, and what the changed recipe needs."""

    changes: tuple[str, ...]
    why: str
    after: Range
    """Bytes of the memory, or of the disk, that the changed recipe needs."""
    fits: bool
    devices: int | None = None
    """The accelerators of a larger machine on which it is so; None: on this machine."""


@dataclass(frozen=True)
class _Change:
    """Keys of the recipe with their new values, and what they do."""

    keys: dict[str, Any]
    why: str
    devices: int | None = None


Replan = Callable[[Recipe, Machine], Plan]
"""Plans a changed recipe, from the same state of the run."""


def advise(plan: Plan, misfit: Need, replan: Replan) -> Iterator[Advice]:
    """Changes that need less than the recipe, the first that fits at first, each planned anew."""
    before = _needed(plan, misfit)
    for change in (*_changes(plan, misfit), *_more_ranks(plan, misfit)):
        changed = _changed(plan.recipe, change.keys)
        if changed is None:
            continue
        machine = plan.machine
        if change.devices is not None:
            machine = replace(machine, devices=change.devices, ranks=None)
        after = _needed(replan(changed, machine), misfit)
        if before is not None and after is not None and after.expected < before.expected:
            told = tuple(f"{key}={json.dumps(value)}" for key, value in change.keys.items())
            yield Advice(told, change.why, after, after.expected <= misfit.there, change.devices)


def otherwise(plan: Plan, misfit: Need) -> str:
    """What helps where no key of the recipe does."""
    of_downloads = misfit.place == "disk" and plan.machine.free_cache is None and plan.fetched.high > 0
    if of_downloads or misfit.place == "cache":
        return "set HF_HOME to a folder on a larger disk, or take smaller models"
    return "take a larger machine, or smaller models"


def _needed(plan: Plan, misfit: Need) -> Range | None:
    # A changed recipe may have other steps; none of its steps may need too much.
    return next((one.needed for one in needs_of(plan) if one.place == misfit.place), None)


def _changed(recipe: Recipe, changes: dict[str, Any]) -> Recipe | None:
    """The recipe with these keys; None if it would be refused."""
    raw = recipe.model_dump(mode="json", by_alias=True)
    for key, value in changes.items():
        *path, last = key.split(".")
        place = raw
        for part in path:
            place = place[part]
        place[last] = value
    try:
        return Recipe.model_validate(raw)
    except ValidationError:
        return None


def _changes(plan: Plan, misfit: Need) -> Iterator[_Change]:
    if misfit.step is None:
        yield from _of_disk(plan) if misfit.place == "disk" else ()
        return
    if misfit.place == "host" and plan.machine.kind == "cuda":
        yield from _of_loading(plan.recipe)
        return
    stage, _, rest = misfit.step.partition("/")
    recipe = plan.recipe
    if stage == "pretrain":
        yield from _of_batch(f"pretrain.{rest}.training", recipe.pretrain[rest].training)
    elif stage in TRAININGS:
        if recipe.capture is None:
            yield _captured(recipe)
        yield from _of_batch("distil.training", recipe.distil.training)
        yield from _of_rollouts(recipe)
        if recipe.student.adapter is None:
            yield _Change({"student.adapter": LORA}, "trains an adapter (LoRA) in place of all weights")
        if recipe.capture is None:
            yield from _of_teachers(recipe)
    elif stage == "capture" or stage == "student":
        if recipe.capture is not None and recipe.capture.batch_size > 1:
            yield _Change(
                {"capture.batch_size": max(1, recipe.capture.batch_size // 4)}, "reads fewer sequences at once"
            )
        yield from _of_teachers(recipe)
    elif stage == "answers":
        yield _Change({"answers.batch_size": max(1, recipe.answers.batch_size // 4)}, "writes fewer answers at once")
        yield from _of_teachers(recipe)
    elif stage == "generate" and recipe.generate is not None:
        yield _Change({"generate.batch_size": max(1, recipe.generate.batch_size // 4)}, "writes fewer answers at once")
        yield from _of_teachers(recipe)
    elif stage == "evaluate":
        yield _Change({"evaluate.batch_size": max(1, recipe.evaluate.batch_size // 4)}, "reads fewer sequences at once")
        yield from _of_teachers(recipe)


def _of_loading(recipe: Recipe) -> Iterator[_Change]:
    """What makes smaller what each process reads through the host's memory on its way to an accelerator."""
    if recipe.capture is None:
        yield _captured(recipe)
    yield from _of_teachers(recipe)


def _captured(recipe: Recipe) -> _Change:
    keep = "hidden" if recipe.distil.mix == "logits" and len(recipe.all_teachers) > 1 else "top_k"
    keep = keep if crossing_loss(recipe) is None else "spans"
    return _Change({"capture": {"keep": keep}}, "runs the teacher once, before the training")


def _of_rollouts(recipe: Recipe) -> Iterator[_Change]:
    # `--set` cannot name an experiment with a dot in its name.
    named = {name: one for name, one in recipe.experiments.items() if "." not in name}
    given = {f"experiments.{name}.on_policy": one.on_policy for name, one in named.items()}
    given["distil.on_policy"] = recipe.distil.on_policy
    sizes = {f"{key}.batch_size": one.batch_size for key, one in given.items() if one is not None}
    # A step may have fewer written samples than are allowed at once.
    for part in (4, 16) if sizes else ():
        fewer = {key: max(1, count // part) for key, count in sizes.items()}
        yield _Change(fewer, "lets the student write fewer answers at once")


def _of_batch(key: str, fields: Any) -> Iterator[_Change]:
    checkpointing = {f"{key}.activation_checkpointing": True}
    batch, times = int(fields.get(BATCH, BATCH_DEFAULT)), int(fields.get(ACCUMULATION, 1))
    fewer: dict[str, Any] = {}
    if not any(fields.get(one) for one in CHECKPOINTING):
        yield _Change(checkpointing, "computes activations again in the backward; a step takes about a third longer")
    for smaller in (batch // part for part in PARTS_OF_BATCH if batch % part == 0):
        fewer = {f"{key}.{BATCH}": smaller, f"{key}.{ACCUMULATION}": times * batch // smaller}
        yield _Change(fewer, "has fewer samples in memory; the steps stay the same")
    if fewer and not any(fields.get(one) for one in CHECKPOINTING):
        yield _Change({**checkpointing, **fewer}, "does both")


def _of_teachers(recipe: Recipe) -> Iterator[_Change]:
    for name, teacher in recipe.teachers.items():
        if isinstance(teacher, ServerTeacher):
            continue
        if teacher.quantization is None and teacher.engine == "transformers":
            yield _Change(
                {f"teachers.{name}.quantization": FOUR_BITS}, "quantises the teacher to 4 bits; its targets change"
            )
        if teacher.device_map is None and teacher.engine == "transformers":
            yield _Change(
                {f"teachers.{name}.device_map": "auto"}, "spreads the teacher over all accelerators of the machine"
            )


def _more_ranks(plan: Plan, misfit: Need) -> Iterator[_Change]:
    """Splits what is too large among the ranks of this machine, or of one with more accelerators."""
    stage, recipe, machine = (misfit.step or "").partition("/")[0], plan.recipe, plan.machine
    on_gpu = machine.kind == "cuda"
    if misfit.place != ("device" if on_gpu else "host"):
        return
    if stage in TRAININGS:
        keys: dict[str, Any] = {"distributed.strategy": "fsdp2"}
        what = "splits the student, its optimizer and its teachers among the ranks"
    elif recipe.teachers and on_gpu:
        keys = {f"teachers.{name}.device_map": "auto" for name in recipe.teachers}
        what = "spreads the teachers over all accelerators"
    else:
        return
    if plan.ranks.all > 1 and stage in TRAININGS:
        yield _Change(keys, what)
    for devices in (count for count in MORE_DEVICES if on_gpu and count > machine.devices):
        yield _Change(keys, f"{what}; it needs a machine with {devices} accelerators", devices)


def _of_disk(plan: Plan) -> Iterator[_Change]:
    capture, recipe = plan.recipe.capture, plan.recipe
    if capture is not None and capture.keep == "hidden":
        yield _Change({"capture.keep": "top_k"}, "keeps the likeliest tokens in place of hidden states")
    k = capture.k if capture is not None and capture.keeps("k") else 0
    while k > LEAST_K:
        k //= 2
        yield _Change({"capture.k": k}, "keeps fewer tokens of each distribution")
    if capture is not None and capture.keep != "sample":
        yield _Change({"capture": None}, "runs the teacher beside the student, and keeps nothing")
    if recipe.distil.snapshots is not None and (recipe.distil.snapshots.count or 0) > 4:
        fewer = (recipe.distil.snapshots.count or 0) // 4
        yield _Change({"distil.snapshots": fewer}, "keeps fewer snapshots")
    if recipe.distil.training.get("save_total_limit") != 1:
        yield _Change({"distil.training.save_total_limit": 1}, "keeps one checkpoint at a time")
