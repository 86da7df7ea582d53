"""`teachers.NAME.when` — which rows of the corpus a teacher teaches, where it does not teach all of them."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, model_validator

from potstill.recipe.section import Section, about_key

if TYPE_CHECKING:
    from potstill.recipe.recipe import Recipe

Value = str | int | float | bool

NAMED_BY = ("data", "dataset", "config", "generator", "package", "file", "files", "path")
"""The keys of a source whose values are names of it."""


class When(Section):
    """The rows that a teacher teaches: those of a source, or those with a value in a column."""

    source: str | Annotated[list[str], Field(min_length=1)] | None = None
    """The name of a source, or several names: what a source of the corpus has as its `data`, `dataset`, `config`,
    `generator`, `package`, `file` or `path`."""

    column: str | None = None
    """A column of the rows, for files and data sets that have columns."""

    equals: Value | Annotated[list[Value], Field(min_length=1)] | None = None
    """The value that the column must have, or several values of which it must have one. Cells of .csv files are
    texts."""

    @model_validator(mode="after")
    def _is_one_rule(self) -> "When":
        if self.source is not None and (self.column is not None or self.equals is not None):
            raise about_key("source", "and `column` are two rules; give one of them, as in `when: {source: gsm8k}`")
        if self.source is None and self.column is None:
            raise about_key("source", "is missing; give `{source: NAME}`, or `{column: NAME, equals: VALUE}`")
        if self.source is None and self.equals is None:
            raise about_key("equals", "is missing; give the value that `column` must have, or a list of values")
        return self

    @property
    def sources(self) -> list[str]:
        """The names of sources."""
        return [self.source] if isinstance(self.source, str) else self.source or []

    @property
    def values(self) -> list[Value]:
        """The values of the column."""
        return self.equals if isinstance(self.equals, list) else [] if self.equals is None else [self.equals]

    def matches(self, source: Section, columns: Mapping[str, Any]) -> bool:
        """Whether a row is meant, by its source in the recipe and its columns."""
        if self.column is None:
            return not set(self.sources).isdisjoint(names_of_source(source))
        return any(_same(columns.get(self.column), value) for value in self.values)


def _same(one: Any, other: Value) -> bool:
    # To Python, true is 1.
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def names_of_source(source: Section) -> list[str]:
    """The names of a source of a corpus, the most general first."""
    found = [getattr(source, key, None) for key in NAMED_BY]
    return [name for value in found if value for name in (value if isinstance(value, list) else [value])]


def rules(recipe: "Recipe") -> dict[str, When | None]:
    """The rule of each teacher; None for a teacher that teaches every row."""
    return {name: teacher.when for name, teacher in recipe.all_teachers.items()}


def teaches_by_row(recipe: "Recipe") -> bool:
    """Whether a teacher teaches some of the rows only."""
    return any(rules(recipe).values())


def key_of(recipe: "Recipe", name: str) -> str:
    """The key of a teacher's rule."""
    return f"{'pretrain' if name in recipe.pretrain else 'teachers'}.{name}.when"


def sources_of(recipe: "Recipe") -> Sequence[Section]:
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


def _may_share_rows(recipe: "Recipe", one: When | None, other: When | None) -> bool:
    if one is None or other is None or one.column != other.column:
        return True
    if one.column is not None:
        return any(_same(value, wanted) for value in one.values for wanted in other.values)
    return any(one.matches(source, {}) and other.matches(source, {}) for source in sources_of(recipe))
