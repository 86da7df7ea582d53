"""distil: train each student from its teachers, once for each seed.

Makes `distil/[EXPERIMENT/]seed-N/student/`, a plain Hugging Face folder, `log.jsonl`, and a folder `snapshots/step-N/`
for each snapshot that the recipe keeps. `distil/[EXPERIMENT/]student` is a link to the first seed's student. A stopped
training continues from its last checkpoint, to the same weights. If the recipe has a `search`, the losses have the
setting that it found.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from potstill import distributed
from potstill.files.atomic import read_json, remove
from potstill.generation.vllm_writer import check_installed
from potstill.losses.hidden_states import HiddenLoss
from potstill.losses.loss import Loss
from potstill.pipeline import artifacts, training_data
from potstill.pipeline.span_captures import span_provenance
from potstill.pipeline.work import Made, Work
from potstill.recipe import Recipe
from potstill.recipe.across_tokenizers import crossing_loss, keeps_spans
from potstill.recipe.distributed import is_sharded, training_fields
from potstill.recipe.losses import GivenLoss, HiddenMatch
from potstill.recipe.row_rules import teaches_by_row
from potstill.recipe.search import Setting, with_setting
from potstill.recipe.step import Step
from potstill.stages.capture import teacher_template
from potstill.students.load_and_save import finish_student, load_to_train, unmerged
from potstill.targets import TargetStore
from potstill.teachers.prepared import PreparedTeacher
from potstill.training.arguments import check_training
from potstill.training.fit import Fit, TrainingData, fit
from potstill.training.trainer import TeacherLike

KEY = "distil.training"


def run(work: Work) -> Made:
    """Train the student of one seed."""
    name, seed = work.step.name, work.step.seed
    assert seed is not None
    data = training_data.for_student(work, name, seed)
    losses = trainer_losses(work.recipe, chosen_losses(work, name))
    one = student_fit(work, data, losses, training(work.recipe), KEY, seed)
    made = fit(with_rollouts(work, with_teachers(work, one, teachers_or_targets(work, name))))
    if seed == work.recipe.seeds[0] and distributed.is_first():
        link = work.folder.parent / "student"
        remove(link)
        link.symlink_to(Path(work.folder.name) / "student", target_is_directory=True)
    return Made(*made)


def check(recipe: Recipe) -> None:
    """Refuse fields of `distil.training` that transformers refuses, and an engine that is not installed."""
    for name in recipe.variants:
        if (given := recipe.on_policy_of(name)) is not None:
            check_installed(given.engine, "distil.on_policy.engine")
    check_training(training(recipe), KEY, recipe.seeds[0], recipe.distil.keep)


def training(recipe: Recipe) -> dict[str, Any]:
    """The fields of the students' `TrainingArguments`."""
    return training_fields(recipe, recipe.distil.training)


def student_fit(
    work: Work,
    data: TrainingData,
    losses: Sequence[Loss | HiddenLoss],
    training: Mapping[str, Any],
    key: str,
    seed: int,
) -> Fit:
    """The training of a student, a control or a trial: it begins at the student's start, in the step's folder.

    Args:
        work: the step.
        data: the samples.
        losses: as :class:`DistilTrainer` takes them.
        training: the fields of `TrainingArguments`.
        key: their key in the recipe, for messages.
        seed: the seed of every random choice of the training.
    """
    recipe, start = work.recipe, work.run.path("student") / "start"
    return Fit(
        folder=work.folder,
        run_folder=work.run.folder,
        title=f"training {work.step}",
        start=load_to_train(start, recipe.student, seed),
        data=data,
        losses=losses,
        training=training,
        key=key,
        seed=seed,
        keep=recipe.distil.keep,
        tokenizer=artifacts.tokenizer(work),
        teacher_tokenizer=artifacts.compared_tokenizer(work),
        finish=partial(finish_student, start=start, student=recipe.student),
        snapshots=recipe.distil.snapshots,
        finish_snapshot=partial(finish_student, start=start, student=unmerged(recipe.student)),
    )


def with_teachers(work: Work, training: Fit, teachers: list[TeacherLike]) -> Fit:
    """The same training with teachers, weighted and mixed as the recipe says, each for the rows that it teaches."""
    weights = [teacher.weight for teacher in work.recipe.all_teachers.values()]
    given = dict(zip(work.recipe.all_teachers, teachers, strict=True)) if teaches_by_row(work.recipe) else teachers
    taught = replace(training, teaching={"teacher": given, "teacher_weights": weights, "mix": work.recipe.distil.mix})
    if crossing_loss(work.recipe) is None:
        return taught
    return replace(taught, teacher_tokenizer=[one.tokenizer() for one in artifacts.existing_teachers(work)])


def with_rollouts(work: Work, training: Fit) -> Fit:
    """The same training with samples that the student writes, if the recipe says so.

    Its teachers must read what it writes, so they run beside it, even where their targets were captured.
    """
    given = work.recipe.on_policy_of(work.step.name)
    if given is None:
        return training
    if work.forced and given.preflight == "refuse":
        given = given.model_copy(update={"preflight": "warn"})
    captured = {"rollout_teacher": [_beside(teacher) for teacher in artifacts.teachers(work)]}
    more = {"on_policy": given, **(captured if work.recipe.capture is not None else {})}
    return replace(training, teaching={**training.teaching, **more})


def chosen_losses(work: Work, variant: str | None) -> list[GivenLoss]:
    """A student's losses from the recipe, with the setting that a search found, if there was one."""
    losses = work.recipe.losses_of(variant)
    if not work.recipe.is_searched(variant):
        return losses
    return with_setting(losses, Setting(**read_json(work.run.path("search") / "best.json")))


def trainer_losses(recipe: Recipe, given: list[GivenLoss]) -> list[Loss | HiddenLoss]:
    """The losses for the trainer. Each is a mean over the supervised tokens of a step."""
    # All samples have one length, so a sum over positions is a mean over tokens times a constant.
    positions = recipe.corpus.sequence_length if recipe.distil.reduction == "sequence" else 1
    losses: list[Loss | HiddenLoss] = []
    for loss in given:
        if isinstance(loss, HiddenMatch):
            losses.append(HiddenLoss(**loss.model_dump(exclude={"kind"})))
            continue
        one = Loss(**loss.model_dump())
        losses.append(replace(one, weight=one.weight * positions) if one.needs_teacher else one)
    return losses


def teachers_or_targets(work: Work, variant: str | None) -> list[TeacherLike]:
    """The captured targets of each teacher for a student; without `capture`, the teachers' models."""
    prepared = artifacts.teachers(work)
    if work.recipe.capture is None:
        sharded = is_sharded(work.recipe)
        return [teacher.model_to_shard() if sharded else _beside(teacher) for teacher in prepared]
    sample_set = work.recipe.sample_set_of(variant).name if work.recipe.uses_strategies else None
    folder = work.run.path(Step("capture", name=sample_set))
    if keeps_spans(work.recipe):
        return [TargetStore(folder / one.name, expect=span_provenance(work, one, sample_set)) for one in prepared]
    shown = teacher_template(work, sample_set), artifacts.tokenizer(work)
    return [TargetStore(folder / teacher.name, expect=teacher.provenance(*shown)) for teacher in prepared]


def _beside(teacher: PreparedTeacher) -> TeacherLike:
    """A teacher as a trainer takes it: its model, or the teacher behind a server."""
    return teacher.beside() if teacher.is_elsewhere else teacher.model()
