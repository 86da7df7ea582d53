"""The notes at the end of the page: how models were measured, and what the figures do not tell."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from potstill.recipe import Recipe
from potstill.recipe.corpus import HeldOutText
from potstill.recipe.questions import HeldOutQuestions
from potstill.recipe.select import LOSS


def notes(recipe: Recipe, run_folder: Path, undecided: Mapping[str, Sequence[int]], decided: int) -> tuple[str, ...]:
    """All notes, a sentence or two each.

    Args:
        recipe: of the run.
        run_folder: where the run lies.
        undecided: by model, how many answers of each seed no rule settles and no person has decided; of questions only.
        decided: the number of different answers that a person has decided; of questions only.
    """
    if not recipe.asks:
        return (*_of_text(recipe), *_of_training(recipe, "text", "documents"), *_of_tasks(recipe))
    return (
        *_of_answers(recipe),
        *_of_decisions(run_folder, undecided, decided),
        *_of_missing_teachers(recipe),
        *_of_training(recipe, "questions", "questions"),
        *_of_tasks(recipe),
    )


def _of_text(recipe: Recipe) -> list[str]:
    length = recipe.corpus.sequence_length
    return [
        f"Held-out sequences of {length} tokens were drawn once, at random, out of text that none was trained on."
        if isinstance(recipe.corpus.held_out, HeldOutText)
        else "Held-out documents were chosen by a hash of their text before anything was cut; none was trained on.",
        f"Every token of them but the first is predicted once, in windows of {length} tokens.",
    ]


def _of_answers(recipe: Recipe) -> list[str]:
    answers, of_its_own = recipe.answers, isinstance(recipe.corpus.held_out, HeldOutQuestions)
    return [
        "Held-out questions are a set of their own; what of it was among the training questions was not trained on."
        if of_its_own
        else "Held-out questions were chosen by a hash of their text; none was trained on.",
        f"Every model was asked alike, with the student’s prompt of the strategy {answers.strategy}, and answered "
        f"greedily, with at most {answers.max_new_tokens:,} tokens.",
        "An answer’s number is the first in a box; or that of its first line, if there is one value; or the one after "
        "“the answer is”; or its last. What none of these rules settles is for a person to decide.",
        "The student before training is what there is without distillation"
        + (
            f"; the control is fine-tuned on the same answers as {recipe.first_variant or 'the student'}, by "
            "cross-entropy alone."
            if recipe.control is not None
            else "."
        ),
    ]


def _of_decisions(run_folder: Path, undecided: Mapping[str, Sequence[int]], decided: int) -> list[str]:
    said = []
    if waiting := sum(map(sum, undecided.values())):
        each = ", ".join(f"{model} {sum(seeds):,}" for model, seeds in undecided.items() if any(seeds))
        said.append(
            f"{waiting:,} answers that no rule settles count as wrong until `potstill review {run_folder}` "
            f"settles them ({each})."
        )
    if decided:
        said.append(f"Persons decided on {decided:,} different answers: review/decisions.csv in the run folder.")
    return said


def _of_missing_teachers(recipe: Recipe) -> list[str]:
    if recipe.answers.teachers:
        return []
    return ["The recipe does not let teachers answer, so nothing here tells how far students could still come."]


def _of_training(recipe: Recipe, judged_on: str, units: str) -> list[str]:
    said = []
    if recipe.distil.keep == "best":
        are = "are" if judged_on == "questions" else "is"
        said.append(
            "Student and control are the best of their saved weights, by cross-entropy on "
            f"{judged_on} that {are} not judged."
        )
    if recipe.select is not None:
        by = " and ".join(recipe.select.by)
        others = ", ".join(metric for metric in recipe.select.by if metric != LOSS)
        halves = f", or on half of the items of {others}, of which only the other half is reported" if others else ""
        said.append(
            f"Student and control are the best of the weights that were kept on the way, by {by} on {judged_on} "
            f"that nothing here is reported of{halves}; of ties, the earliest."
        )
    if recipe.control is None:
        said.append("The recipe leaves the control out, so nothing here tells distillation from mere training.")
    if len(recipe.seeds) == 1:
        said.append(f"One seed: the intervals are over {units}, and say nothing of another training run.")
    return said


def _of_tasks(recipe: Recipe) -> list[str]:
    said = []
    if recipe.evaluate.tasks:
        said.append(
            "Figures of tasks are lm-eval’s own, and their intervals ours; lm-eval’s standard errors are in "
            "evaluate/comparison.json. What is said of their differences is corrected (Holm) for all tasks together."
        )
    if recipe.evaluate.models:
        named = ", ".join(f"{name} is {source}" for name, source in recipe.evaluate.models.items())
        said.append(f"Models that this run did not make were asked in the same way: {named}.")
    return said
