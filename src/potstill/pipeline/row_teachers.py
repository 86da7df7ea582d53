"""Row teachers: which teachers teach the rows of a run's corpus, and how many samples and tokens each teaches."""

from collections import Counter
from typing import Any

from datasets import Features, List, Value

from potstill.console import say
from potstill.data.row_teachers import NOBODY, TEACHERS, RowTeachers, Teachers
from potstill.errors import UserError
from potstill.recipe import Recipe
from potstill.recipe.row_rules import key_of, rules, teaches_by_row, without_cross_entropy


def row_teachers(recipe: Recipe) -> RowTeachers | None:
    """Says which teachers a row has; None where every teacher teaches every row."""
    return RowTeachers(rules(recipe)) if teaches_by_row(recipe) else None


def with_teachers(features: Features) -> Features:
    """The columns of a table of rows, and that of their teachers."""
    return Features({**features, TEACHERS: List(Value("string"))})


def check_matched(recipe: Recipe, taught: RowTeachers | None) -> None:
    """Refuse a rule that matched none of the rows that were read.

    Raises:
        UserError: there is one. It names its key, and what the rows have.
    """
    # Where a teacher writes, the rows were read and checked before.
    if taught is None or not taught.has_read:
        return
    for name in taught.rules:
        if (why := taught.why_none(name)) is not None:
            raise UserError(f"`{key_of(recipe, name)}` {why}; correct it, or remove the teacher")


class TaughtCounts:
    """Counts the training samples, and their supervised tokens where these are known, by their teachers."""

    def __init__(self) -> None:
        self._samples, self._tokens = Counter[Teachers](), Counter[Teachers]()

    def add(self, teachers: Teachers, supervised: int = 0) -> None:
        """Count a sample."""
        self._samples[teachers] += 1
        self._tokens[teachers] += supervised

    def figures(self, recipe: Recipe, taught: RowTeachers, what: str = "samples") -> dict[str, Any]:
        """The figures for the manifest, which are also printed.

        Args:
            recipe: the recipe.
            taught: what said which teachers the rows have.
            what: the name of what was counted.

        Raises:
            UserError: a teacher teaches none of them, or some would teach nothing.
        """
        every, alone = self._samples.total(), self._samples[()]
        check_matched(recipe, taught)
        for name in taught.rules:
            if not any(name in teachers for teachers in self._samples):
                raise UserError(
                    f"`{key_of(recipe, name)}` matches rows, but they are in none of the {every:,} {what} to train on; "
                    "correct it, give more of these rows, or remove the teacher"
                )
        lacking = without_cross_entropy(recipe)
        if alone and lacking:
            raise UserError(
                f"`{lacking[0]}`: {alone:,} of {every:,} {what} have no teacher and would teach nothing; add "
                "cross_entropy, or a teacher without `when`"
            )
        parts = {name: [own for own in self._samples if name in own] for name in taught.rules} | {NOBODY: [()]}
        found: dict[str, dict[str, int]] = {}
        for part, sets in parts.items():
            samples, tokens = (sum(counts[one] for one in sets) for counts in (self._samples, self._tokens))
            if samples:
                found[part] = {"samples": samples, "supervised_tokens": tokens}
                say(f"  {part}: {samples:,} {what}" + (f", {tokens:,} supervised tokens" if tokens else ""))
        return {"taught": found}
