"""Steps: the steps of a stage in a recipe (one for each seed, student, sample set or candidate), and what each needs.

The module imports nothing heavy, because the table of stages uses it.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from potstill.recipe.candidates import Candidate, own_candidates, trained_candidates
from potstill.recipe.export_formats import folder_of
from potstill.recipe.step import Step

if TYPE_CHECKING:
    from potstill.recipe import Recipe

HELD_OUT_FOLDER = "held_out"
"""The folder of the held-out questions' prompts, within the folder of the strategy that asks them."""

HELD_OUT_SAMPLES = "samples"
"""The folder of these prompts in the tokens of the run, within that folder."""


def step_per_seed(stage: str) -> "Callable[[Recipe], list[Step]]":
    """One step for each seed."""
    return lambda recipe: [Step(stage, seed) for seed in recipe.seeds]


def step_per_student(stage: str) -> "Callable[[Recipe], list[Step]]":
    """One step for each seed of each student."""
    return lambda recipe: [Step(stage, seed, name) for name in recipe.variants for seed in recipe.seeds]


def step_per_sample_set(recipe: "Recipe", stage: str) -> list[Step]:
    """One step for each sample set."""
    return [Step(stage, name=name) for name in recipe.sample_sets]


def strategies_steps(recipe: "Recipe") -> list[Step]:
    """One step for each sample set, and that of the held-out questions."""
    of_questions = [held_out_questions_step(recipe)] if recipe.asks else []
    return [*step_per_sample_set(recipe, "strategies"), *of_questions]


def held_out_questions_step(recipe: "Recipe") -> Step:
    """The step of `strategies` that makes the prompts of the held-out questions."""
    return Step("strategies", name=f"{recipe.answers.strategy}/{HELD_OUT_FOLDER}")


def held_out_samples_of(teacher: str) -> str:
    """The folder of these prompts in the tokens of a teacher of another tokenizer."""
    return f"{HELD_OUT_SAMPLES}-{teacher}"


def samples_stages(recipe: "Recipe") -> tuple[str, ...]:
    """The stages after `corpus` that make the samples of a training: for questions; for conversations, where a teacher
    writes turns, and where students have strategies."""
    return ("generate", "strategies") if recipe.chats else ("strategies",)


def needed_for_training(recipe: "Recipe", step: Step, needed: Step) -> bool:
    """Whether a training reads the outputs of this step.

    A student reads the samples and captures of its own sample set. A control reads those of the first student, and a
    search those of the student that it trains. A student with losses of its own does not read the search.
    """
    if needed.stage == "search":
        return recipe.is_searched(step.name)
    if needed.stage not in ("strategies", "capture") or needed.name is None:
        return True
    if step.stage == "search":
        variant = recipe.tried_on
    else:
        variant = step.name if step.stage == "distil" else recipe.first_variant
    return needed.name == recipe.sample_set_of(variant).name


def answers_steps(recipe: "Recipe") -> list[Step]:
    """One step for each candidate that answers."""
    asked = own_candidates(recipe)
    return [Step("answers", candidate=one) for one in asked if one.role != "teacher" or recipe.answers.teachers]


def needed_for_answers(recipe: "Recipe", step: Step, needed: Step) -> bool:
    """Whether a candidate's answers need this step: the prompts, or the candidate's model."""
    asked = step.candidate
    assert asked is not None
    is_trained = asked.role in ("student", "control")
    wanted = {
        "strategies": needed == held_out_questions_step(recipe),
        "pretrain": asked.role == "teacher" and asked.name in (None, needed.name),
        # The positions of the student decide which conversations are asked.
        "student": asked.role != "teacher" or recipe.chats,
        "distil": is_trained and needed == asked.step,
        "control": is_trained and needed == asked.step,
        "select": needed.candidate == asked,
    }
    return wanted.get(needed.stage, True)


def select_step(candidate: Candidate) -> Step:
    """The step that selects one snapshot of a candidate's training."""
    return Step("select", candidate=candidate)


def select_steps(recipe: "Recipe") -> list[Step]:
    """One step for each candidate that is trained."""
    return [select_step(candidate) for candidate in trained_candidates(recipe)]


def needed_for_selection(recipe: "Recipe", step: Step, needed: Step) -> bool:
    """Whether a selection needs this step: the training that kept the snapshots, or its validation samples."""
    assert step.candidate is not None
    if needed.stage in ("distil", "control"):
        return needed == step.candidate.step
    return needed.stage != "strategies" or needed.name == recipe.sample_set_of_candidate(step.candidate).name


def trained_stages(recipe: "Recipe") -> tuple[str, ...]:
    """The stages that make the final weights of students and the control."""
    return ("distil", "control") if recipe.select is None else ("select",)


def export_steps(recipe: "Recipe") -> list[Step]:
    """One step for each format of each exported student."""
    assert recipe.export is not None
    return [
        Step("export", name=f"{student or 'student'}/{folder_of(each)}")
        for student in exported_students(recipe)
        for each in recipe.export.to
    ]


def exported_students(recipe: "Recipe") -> list[str | None]:
    """The names of the students that are exported; a single student has none."""
    assert recipe.export is not None
    return [*(recipe.variants if recipe.export.experiments is None else recipe.export.experiments)]


def exported_by(recipe: "Recipe", step: Step) -> Candidate:
    """The student that a step exports: the first seed's."""
    assert step.name is not None
    student = step.name.rpartition("/")[0]
    return Candidate("student", student if student in recipe.variants else None, recipe.seeds[0])


def needed_for_export(recipe: "Recipe", step: Step, needed: Step) -> bool:
    """Whether an export needs this step: the training of its student, or its held-out data."""
    exported = exported_by(recipe, step)
    if needed.stage == "distil":
        return needed == exported.step
    if needed.stage == "select":
        return needed.candidate == exported
    return needed.stage != "strategies" or needed == held_out_questions_step(recipe)
