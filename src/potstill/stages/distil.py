"""distil: train the student from its teachers, once for each seed.

Makes `distil/seed-N/student/`, a plain Hugging Face folder, and `log.jsonl`; `distil/student` points at the first
seed's. A training that was stopped goes on from its last checkpoint, to the same weights.
"""

from dataclasses import replace
from pathlib import Path

from transformers import AutoModelForCausalLM

from potstill import ranks, ready
from potstill.files import remove
from potstill.fitting import fit
from potstill.losses.hidden import HiddenLoss
from potstill.losses.terms import Loss
from potstill.pipeline import Made, Work
from potstill.recipe import Recipe
from potstill.recipe.distil import HiddenMatch
from potstill.stages.capture import provenance
from potstill.targets import TargetStore
from potstill.trainer import Teacher


def run(work: Work) -> Made:
    """Train the student of one seed."""
    recipe = work.recipe
    assert work.step.seed is not None
    made = fit(
        work,
        AutoModelForCausalLM.from_pretrained(work.run.path("student") / "start"),
        recipe.distil.training,
        "distil.training",
        losses_of(recipe),
        work.step.seed,
        recipe.distil.keep,
        teacher=teachers_of(work),
        teacher_weights=[teacher.weight for teacher in recipe.all_teachers.values()],
        mix=recipe.distil.mix,
    )
    if work.step.seed == recipe.seeds[0] and ranks.is_first():
        link = work.folder.parent / "student"
        remove(link)
        link.symlink_to(Path(work.folder.name) / "student", target_is_directory=True)
    return made


def losses_of(recipe: Recipe) -> list[Loss | HiddenLoss]:
    """The recipe's losses as the trainer takes them, each a mean over the supervised tokens of a step."""
    # Samples have one length, so a sum over positions is a mean over tokens and one constant.
    positions = recipe.corpus.sequence_length if recipe.distil.reduction == "sequence" else 1
    losses: list[Loss | HiddenLoss] = []
    for loss in recipe.distil.losses:
        if isinstance(loss, HiddenMatch):
            losses.append(HiddenLoss(**loss.model_dump(exclude={"kind"})))
            continue
        one = Loss(**loss.model_dump())
        losses.append(replace(one, weight=one.weight * positions) if one.needs_teacher else one)
    return losses


def teachers_of(work: Work) -> list[Teacher]:
    """What was captured of each teacher, or, where the recipe captures nothing, the teachers themselves."""
    prepared = ready.teachers(work)
    if work.recipe.capture is None:
        return [teacher.model() for teacher in prepared]
    folder = work.run.path("capture")
    return [TargetStore(folder / teacher.name, expect=provenance(teacher)) for teacher in prepared]
