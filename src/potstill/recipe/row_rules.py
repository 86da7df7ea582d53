"""Row rules: which rows the teachers of a recipe teach, and rules that cannot be followed.

The module imports nothing heavy, because the table of stages uses it.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from potstill.recipe.recipe import Recipe
    from potstill.recipe.section import Section
    from potstill.recipe.teacher_rows import When

NAMED_BY = ("data", "dataset", "config", "generator", "package", "file", "files", "path")
"""The keys of a source whose values are names of it."""


def same_value(one: Any, other: Any) -> bool:
    """Whether a cell has a value. A number is no truth value, and no text."""
    # To Python, true is 1.
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def names_of_source(source: "Section") -> list[str]:
    """The names of a source of a corpus, the most general first."""
    found = [getattr(source, key, None) for key in NAMED_BY]
    return [name for value in found if value for name in (value if isinstance(value, list) else [value])]


def rules(recipe: "Recipe") -> dict[str, "When | None"]:
    """The rule of each teacher; None for a teacher that teaches every row."""
    return {name: teacher.when for name, teacher in recipe.all_teachers.items()}


def teaches_by_row(recipe: "Recipe") -> bool:
    """Whether a teacher teaches some of the rows only."""
    return any(rules(recipe).values())


def key_of(recipe: "Recipe", name: str) -> str:
    """The key of a teacher's rule."""
    return f"{'pretrain' if name in recipe.pretrain else 'teachers'}.{name}.when"


def sources_of(recipe: "Recipe") -> "Sequence[Section]":
    """The sources of the training rows."""
    return next(
        getattr(recipe.corpus, key) for key in ("sources", "questions", "conversations") if hasattr(recipe.corpus, key)
    )


def complaints_of_rows(recipe: "Recipe") -> Iterator[str]:
    """A sentence about each rule that cannot be followed."""
    if not teaches_by_row(recipe):
        return
    known = dict.fromkeys(name for source in sources_of(recipe) for name in names_of_source(source))
    for name, when in rules(recipe).items():
        for source in when.sources if when is not None else []:
            if source not in known:
                yield (
                    f"`{key_of(recipe, name)}.source`: the corpus has no source {source!r}; its sources are "
                    f"{', '.join(known)}"
                )
    if getattr(recipe.corpus, "random_offset", False):
        first = next(name for name, when in rules(recipe).items() if when is not None)
        yield (
            f"`{key_of(recipe, first)}` needs samples that keep their documents, and `corpus.random_offset` joins two "
            "samples, which may have different teachers; remove one of the two"
        )


def without_cross_entropy(recipe: "Recipe") -> list[str]:
    """The keys of the losses from which a row without a teacher would learn nothing."""
    names = [
        name for name in recipe.variants if not any(loss.kind == "cross_entropy" for loss in recipe.losses_of(name))
    ]
    given = (f"experiments.{name}.losses" if recipe.variants[name].losses else "distil.losses" for name in names)
    return list(dict.fromkeys(given))


def may_teach_together(recipe: "Recipe") -> bool:
    """Whether two teachers may teach the same row, by their rules alone."""
    return any(_may_share_rows(recipe, one, other) for one, other in combinations(rules(recipe).values(), 2))


def _may_share_rows(recipe: "Recipe", one: "When | None", other: "When | None") -> bool:
    if one is None or other is None or one.column != other.column:
        return True
    if one.column is not None:
        return any(same_value(value, wanted) for value in one.values for wanted in other.values)
    return any(one.matches(source, {}) and other.matches(source, {}) for source in sources_of(recipe))
