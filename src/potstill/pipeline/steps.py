"""Parts: the steps that a stage has in a recipe, by seed, student, lesson or model, and which of them need which.

It imports nothing heavy, because the table of stages is made of it.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from potstill.pipeline.run_folder import Step

if TYPE_CHECKING:
    from potstill.recipe import Recipe

CONTROL = "control"
"""What `select` calls the control, beside the names of the experiments."""
ASKED = "held_out"
"""The folder, in that of the strategy by which models are asked, of the held-out questions as they are asked."""


def of_seeds(stage: str) -> "Callable[[Recipe], list[Step]]":
    """A step a seed."""
    return lambda recipe: [Step(stage, seed) for seed in recipe.seeds]


def of_students(stage: str) -> "Callable[[Recipe], list[Step]]":
    """A step for each seed of each experiment."""
    return lambda recipe: [Step(stage, seed, name) for name in recipe.variants for seed in recipe.seeds]


def of_lessons(recipe: "Recipe", stage: str) -> list[Step]:
    """A step a lesson."""
    return [Step(stage, name=name) for name in recipe.lessons]


def asked_step(recipe: "Recipe") -> Step:
    """The step of `prompts` that makes the held-out questions ready to be asked."""
    return Step("prompts", name=f"{recipe.answers.prompt}/{ASKED}")


def student_name(variant: str | None) -> str:
    """What a student is called in a comparison."""
    return "student" if variant is None else f"student {variant}"


def of_its_lesson(recipe: "Recipe", step: Step, needed: Step) -> bool:
    """Of prompts and captures, a student takes those of its own lesson, a control those of the first student, and a
    search those of the student that it is tried on; a student with losses of its own takes nothing of a search."""
    if needed.stage == "search":
        return recipe.is_searched(step.name)
    if needed.stage not in ("prompts", "capture") or needed.name is None:
        return True
    if step.stage == "search":
        variant = recipe.tried_on
    else:
        variant = step.name if step.stage == "distil" else next(iter(recipe.variants))
    return needed.name == recipe.lesson_of(variant).name


def answering(recipe: "Recipe") -> list[Step]:
    """A step for each model that answers: the teachers, the start, and each seed of what was trained."""
    found: list[tuple[str, int | None]] = [
        (f"teacher-{name}", None) for name in recipe.all_teachers if recipe.answers.teachers
    ]
    found.append(("start", None))
    students = [student_name(name).replace(" ", "-") for name in recipe.variants]
    trained = [*students, *(["control"] if recipe.control is not None else [])]
    found += [(name, seed) for name in trained for seed in recipe.seeds]
    return [Step("answers", seed, name) for name, seed in found]


def of_its_model(recipe: "Recipe", step: Step, needed: Step) -> bool:
    """A model that answers is asked what all are asked, and needs nothing of what another one was made from."""
    kind, _, name = (step.name or "").partition("-")
    wanted = {
        "prompts": needed == asked_step(recipe),
        "pretrain": kind == "teacher" and needed.name == name,
        "student": kind != "teacher",
        "distil": kind == "student" and needed.name == (name or None) and needed.seed == step.seed,
        "control": kind == "control" and needed.seed == step.seed,
        "select": needed.seed == step.seed and needed.name == (CONTROL if kind == CONTROL else name or None),
    }
    return wanted.get(needed.stage, True)


def trained_steps(recipe: "Recipe") -> list[Step]:
    """The steps that train students and the control."""
    control = [] if recipe.control is None else of_seeds(CONTROL)(recipe)
    return [*of_students("distil")(recipe), *control]


def select_step(training: Step) -> Step:
    """The step that chooses among what a training has kept."""
    return Step("select", training.seed, CONTROL if training.stage == CONTROL else training.name)


def of_its_training(recipe: "Recipe", step: Step, needed: Step) -> bool:
    """A choice reads one training's snapshots, and what it chooses on."""
    if needed.stage in ("distil", "control"):
        return select_step(needed) == step
    if needed.stage != "prompts":
        return True
    variant = next(iter(recipe.variants)) if step.name == CONTROL else step.name
    return needed.name == recipe.lesson_of(variant).name


def trained_stages(recipe: "Recipe") -> tuple[str, ...]:
    """The stages that say what students and the control have become."""
    return ("distil", "control") if recipe.select is None else ("select",)
