"""Row teachers: which teachers teach a row of the corpus, and the column of a sample that names them."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from potstill.data.column_names import column_names
from potstill.errors import UserError
from potstill.recipe.section import Section
from potstill.recipe.teacher_rows import When

TEACHERS = "teachers"
"""The column: the names of a sample's teachers. None are in it where cross-entropy alone is learned."""

Teachers = tuple[str, ...]
"""The names of the teachers of a row, in the order of the recipe."""

MOST_NAMED = 5
"""The greatest number of values that a message names."""

MOST_VALUES = 1000
"""The greatest number of values of a column that are counted."""


class RowTeachers:
    """The teachers of each row, by the rules of a recipe. It counts the rows for messages.

    Args:
        rules: the rule of each teacher, by its key in the recipe; None for one that teaches every row.
    """

    def __init__(self, rules: Mapping[str, When | None]) -> None:
        self.rules = rules
        self._rows, self._matched = 0, set[str]()
        self._columns: dict[str, None] = {}
        self._values: dict[str, Counter[str]] = {
            when.column: Counter() for when in rules.values() if when is not None and when.column is not None
        }

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of rows that rules ask for."""
        return tuple(self._values)

    def of(self, source: Section, columns: Mapping[str, Any]) -> Teachers:
        """The teachers of a row.

        Args:
            source: its source in the recipe.
            columns: its columns; none for plain text.
        """
        self._rows += 1
        if self._values:
            self._columns |= dict.fromkeys(columns)
        for column, values in self._values.items():
            shown = repr(columns.get(column))
            if column in columns and (shown in values or len(values) < MOST_VALUES):
                values[shown] += 1
        found = tuple(name for name, when in self.rules.items() if when is None or when.matches(source, columns))
        self._matched.update(found)
        return found

    @property
    def has_read(self) -> bool:
        """Whether it has been asked about any row."""
        return self._rows > 0

    def why_none(self, name: str) -> str | None:
        """Why no row is taught by a teacher, as the end of a sentence; None if it teaches some of the rows."""
        when, rows = self.rules[name], f"{self._rows:,} row{'' if self._rows == 1 else 's'}"
        if name in self._matched:
            return None
        if when is None or when.column is None:
            return f"matches none of the {rows}"
        values = self._values[when.column]
        if not values:
            named = ", ".join(map(repr, self._columns)) or "none"
            return f"asks for the column {when.column!r}, and the columns of the {rows} are {named}"
        told = ", ".join(f"{value} ({count:,})" for value, count in values.most_common(MOST_NAMED))
        others = f" and {len(values) - MOST_NAMED:,} more" if len(values) > MOST_NAMED else ""
        return f"matches none of the {rows}; the values of {when.column!r} are {told}{others}"


def named(teachers: Teachers | None) -> dict[str, list[str]]:
    """The column of a row; nothing where rows have no teachers of their own."""
    return {} if teachers is None else {TEACHERS: list(teachers)}


def label_of(teachers: Sequence[str]) -> str:
    """The name of the rows with these teachers."""
    return " + ".join(teachers) or NOBODY


NOBODY = "no teacher"
"""The name of the rows without a teacher. No teacher can have it: it has a space."""


def parts_of(sets: Sequence[Teachers], names: Sequence[str]) -> Iterator[tuple[str, list[bool]]]:
    """The parts of some items that are measured apart: by name, which items belong to it.

    There is one for each teacher, one for each set of several teachers, and one without a teacher.

    Args:
        sets: the teachers of each item.
        names: the teachers' names, in the order of the recipe.
    """
    for name in names:
        yield name, [name in teachers for teachers in sets]
    for teachers in dict.fromkeys(one for one in sets if len(one) != 1):
        yield label_of(teachers), [one == teachers for one in sets]


def numbers_of_teachers(sample: Mapping[str, Any], names: Sequence[str]) -> tuple[int, ...]:
    """The numbers of a sample's teachers among ``names``, in their order.

    Raises:
        UserError: the sample has no such column, or the column is neither a name nor a list of names that exist.
    """
    given = sample.get(TEACHERS)
    if given is None:
        raise UserError(
            f"a sample has {column_names(sample)} and no `{TEACHERS}`; give each sample the names of its teachers "
            f"({', '.join(names)}), or an empty list"
        )
    listed = [given] if isinstance(given, str) else list(given) if hasattr(given, "__iter__") else [given]
    for one in listed:
        if not isinstance(one, str) or one not in names:
            raise UserError(f"`{TEACHERS}` of a sample has {one!r}, which is no teacher; they are {', '.join(names)}")
    return tuple(number for number, name in enumerate(names) if name in listed)
