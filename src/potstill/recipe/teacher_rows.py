"""`teachers.NAME.when` — which rows of the corpus a teacher teaches, where it does not teach all of them."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator

from potstill.recipe.row_rules import names_of_source, same_value
from potstill.recipe.section import Section, about_key

Value = str | int | float | bool


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
        return any(same_value(columns.get(self.column), value) for value in self.values)
