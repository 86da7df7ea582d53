"""The experiment in words: the line below the title, the units of the comparison, and the traits of each student."""

from collections.abc import Sequence

from potstill.recipe import Recipe
from potstill.recipe.corpus import HeldOutText
from potstill.report.data import Model


def story(recipe: Recipe, teachers: Sequence[Model], start: Model, learned_from: int) -> str:
    """Teachers, students and training data, in one line.

    Args:
        recipe: the recipe of the run.
        teachers: their lines of the table of models.
        start: the line of the student before training.
        learned_from: the number of training questions or, without questions, of training tokens.
    """
    named = " + ".join(f"{one.name} ({_shape(one)})" for one in teachers)
    count = len(recipe.variants)
    students = "a student" if count == 1 else f"{count} students"
    if recipe.asks:
        by = "their reference solutions" if recipe.generate is None else f"answers by {recipe.generate.by}"
        learned = f"{learned_from:,} questions and {by}"
    else:
        learned = f"{learned_from:,} tokens{' of conversations' if recipe.chats else ''}"
    if recipe.uses_strategies:
        strategies = list(dict.fromkeys(one.strategy for one in recipe.sample_sets.values()))
        learned += f" ({'strategy' if len(strategies) == 1 else 'strategies'} {', '.join(strategies)})"
    assert start.parameters is not None, "the student is here"
    shape = f"{_millions(start.parameters)} parameters in {start.layers} layers"
    writes = _written_share(recipe, recipe.first_variant) if count == 1 else None
    return f"{named} → {students} of {shape}, from {learned}{f'; {writes}' if writes else ''}"


def _shape(teacher: Model) -> str:
    if teacher.parameters is None:
        return "behind a server"
    return f"{_millions(teacher.parameters)}, {teacher.layers} layers"


def units_of(recipe: Recipe) -> str:
    """The name of the units that models were compared on, for `Report.units`."""
    if recipe.has_answers:
        return "held-out questions" if recipe.asks else "held-out conversations"
    return "held-out sequences" if isinstance(recipe.corpus.held_out, HeldOutText) else "held-out documents"


def about_student(recipe: Recipe, variant: str | None) -> str:
    """The traits that tell a student from others: its strategy, whether it is a placebo, its losses, what it writes."""
    said = []
    if recipe.uses_strategies:
        sample_set = recipe.sample_set_of(variant)
        said = [
            f"strategy {sample_set.strategy}",
            *([] if sample_set.own else ["its teacher spoke about other questions"]),
        ]
    if recipe.variants[variant].losses:
        said.append(" + ".join(f"{loss.weight:g} {loss.kind}" for loss in recipe.losses_of(variant)))
    if (writes := _written_share(recipe, variant)) is not None:
        said.append(writes)
    return "; ".join(said)


def _written_share(recipe: Recipe, variant: str | None) -> str | None:
    given = recipe.on_policy_of(variant)
    if given is None:
        return None
    since = f" from step {given.from_step + 1:,} on" if given.from_step else ""
    return f"it writes {given.share:.0%} of its samples itself{since}"


def _millions(count: int) -> str:
    return f"{count / 1e6:,.0f}M" if count >= 1e6 else f"{count:,}"
