"""distil: train the student from its teachers, once for each seed; of several experiments, each its own.

Makes `distil/[EXPERIMENT/]seed-N/student/`, a plain Hugging Face folder, and `log.jsonl`, and beside them
`snapshots/step-N/`, as many folders of the same kind as the recipe keeps on the way; `distil/[EXPERIMENT/]student`
points at the first seed's. A training that was stopped goes on from its last checkpoint, to the same weights. Where the
recipe has a `search`, the losses have the setting that was found.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from potstill import distributed
from potstill.files.atomic import read_json, remove
from potstill.losses.hidden_states import HiddenLoss
from potstill.losses.loss import Loss
from potstill.pipeline import artifacts, training_data
from potstill.pipeline.run_folder import Step
from potstill.pipeline.work import Made, Work
from potstill.recipe import Recipe
from potstill.recipe.distil import HiddenMatch, Keep, KeptSnapshots
from potstill.recipe.distil import Loss as Given
from potstill.recipe.search import Setting, with_setting
from potstill.stages.capture import template_of
from potstill.students.load_and_save import finish, load_to_train, unmerged
from potstill.targets import TargetStore
from potstill.training.fit import fit
from potstill.training.trainer import TeacherLike


def run(work: Work) -> Made:
    """Train the student of one seed."""
    distil, name, seed = work.recipe.distil, work.step.name, work.step.seed
    assert seed is not None
    how = (distil.training, "distil.training", seed, distil.keep)
    made = train(work, name, teachers_of(work, name), chosen(work, name), *how, distil.snapshots)
    if seed == work.recipe.seeds[0] and distributed.is_first():
        link = work.folder.parent / "student"
        remove(link)
        link.symlink_to(Path(work.folder.name) / "student", target_is_directory=True)
    return made


def train(
    work: Work,
    variant: str | None,
    teachers: list[TeacherLike],
    losses: list[Given],
    training: dict[str, Any],
    key: str,
    seed: int,
    keep: Keep,
    snapshots: KeptSnapshots | None = None,
) -> Made:
    """Train a student in the step's folder, or go on training it.

    Args:
        work: the step.
        variant: the student's name among the experiments, which says what it learns from.
        teachers: what its lesson's teachers say of it.
        losses: as a recipe gives them.
        training: the fields of `TrainingArguments`.
        key: where they stand in the recipe, for messages.
        seed: every random choice of the training.
        keep: which weights.
        snapshots: which others are kept on the way.
    """
    recipe, start = work.recipe, work.run.path("student") / "start"
    return fit(
        work,
        load_to_train(start, recipe.student, seed),
        training_data.of_students(work, variant, seed),
        training,
        key,
        trained_with(recipe, losses),
        seed,
        keep,
        finish=partial(finish, start=start, student=recipe.student),
        snapshots=snapshots,
        tidy=partial(finish, start=start, student=unmerged(recipe.student)),
        teacher=teachers,
        teacher_weights=[teacher.weight for teacher in recipe.all_teachers.values()],
        mix=recipe.distil.mix,
    )


def chosen(work: Work, variant: str | None) -> list[Given]:
    """A student's losses as the recipe gives them, in the setting that was found, if one was searched."""
    losses = work.recipe.losses_of(variant)
    if not work.recipe.is_searched(variant):
        return losses
    return with_setting(losses, Setting(**read_json(work.run.path("search") / "best.json")))


def trained_with(recipe: Recipe, given: list[Given]) -> list[Loss | HiddenLoss]:
    """Losses as the trainer takes them, each a mean over the supervised tokens of a step."""
    # Samples have one length, so a sum over positions is a mean over tokens and one constant.
    positions = recipe.corpus.sequence_length if recipe.distil.reduction == "sequence" else 1
    losses: list[Loss | HiddenLoss] = []
    for loss in given:
        if isinstance(loss, HiddenMatch):
            losses.append(HiddenLoss(**loss.model_dump(exclude={"kind"})))
            continue
        one = Loss(**loss.model_dump())
        losses.append(replace(one, weight=one.weight * positions) if one.needs_teacher else one)
    return losses


def teachers_of(work: Work, variant: str | None) -> list[TeacherLike]:
    """What was captured of each teacher for a student, or, where nothing is captured, the teachers themselves."""
    prepared = artifacts.teachers(work)
    if work.recipe.capture is None:
        return [teacher.model() for teacher in prepared]
    lesson = work.recipe.lesson_of(variant).name if work.recipe.asks else None
    folder = work.run.path(Step("capture", name=lesson))
    template = template_of(work, lesson)
    shown = (template, artifacts.tokenizer(work))
    return [TargetStore(folder / teacher.name, expect=teacher.provenance(*shown)) for teacher in prepared]
