"""Shown prompts: a few held-out prompts with the answers of teacher, student and control, for the report."""

from collections.abc import Callable

from potstill.files.jsonl_log import read_jsonl
from potstill.pipeline import artifacts
from potstill.pipeline.steps import answers_steps
from potstill.pipeline.work import Work
from potstill.recipe.candidates import Candidate
from potstill.report.data import ShownAnswer, ShownPrompt

SHOWN = 8


def shown_prompts(work: Work, name_on_page: Callable[[str], str]) -> tuple[ShownPrompt, ...]:
    """The first prompts of the held-out data, and the answers of the first seed of the first of each kind of model."""
    answered = {
        one: {row["id"]: row for row in read_jsonl(work.run.path(step) / "answers.jsonl")}
        for step in answers_steps(work.recipe)
        if (one := step.candidate) is not None and _is_shown(work, one)
    }
    return tuple(
        ShownPrompt(
            title=row["id"],
            turns=(("user", row["question"]),),
            answers=(
                ShownAnswer(None, row["reference"]),
                *(
                    ShownAnswer(name_on_page(one.label), rows[row["id"]]["response"], rows[row["id"]]["hit_limit"])
                    for one, rows in answered.items()
                ),
            ),
        )
        for row in artifacts.questions(work, "held_out")[:SHOWN]
    )


def _is_shown(work: Work, one: Candidate) -> bool:
    recipe = work.recipe
    if one.role == "teacher":
        return one.name in (None, next(iter(recipe.all_teachers)))
    first = recipe.first_variant if one.role == "student" else None
    return one.role != "start" and one.seed == recipe.seeds[0] and one.name == first
