"""Row teachers: the column of a sample that names the teachers which teach it."""

from collections.abc import Mapping, Sequence
from typing import Any

from potstill.data.sample_columns import names as column_names
from potstill.errors import UserError

TEACHERS = "teachers"
"""The column: the names of a sample's teachers. None are in it where cross-entropy alone is learned."""


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
