"""Taught shares: the share of the training samples that each teacher teaches, where it does not teach all of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from potstill.data.row_teachers import NOBODY
from potstill.data.sources import files_of
from potstill.errors import UserError
from potstill.planning.ranges import Range
from potstill.recipe import Recipe
from potstill.recipe.row_rules import key_of, rules, sources_of, teaches_by_row

UNREAD = Range(0.0, 0.5, 1.0)
"""The share of a rule about a column, before any row is read."""


def taught_shares(recipe: Recipe, made: Mapping[str, Any] | None) -> dict[str, Range] | None:
    """The share of each teacher, and of no teacher once it is counted; None where each teacher teaches every row.

    Args:
        recipe: the recipe.
        made: the figures of the finished corpus stage; None before that.
    """
    if not teaches_by_row(recipe):
        return None
    if made is not None and "taught" in made:
        # Of questions, only the samples are counted.
        by_tokens = any(counts["supervised_tokens"] for counts in made["taught"].values())
        counted, every = ("supervised_tokens", made.get("supervised_tokens")) if by_tokens else ("samples", None)
        whole = every or made.get("train_questions")
        return {name: Range.exactly(counts[counted] / whole) for name, counts in made["taught"].items()}
    return {name: _foreseen(recipe, name) for name in rules(recipe)}


def notes_of_shares(recipe: Recipe, shares: Mapping[str, Range] | None) -> tuple[str, ...]:
    """A note for each rule whose share is only assumed."""
    return tuple(
        f"how many rows `{key_of(recipe, name)}` matches is not known before they are read"
        for name, share in (shares or {}).items()
        if name != NOBODY and share == UNREAD
    )


def _foreseen(recipe: Recipe, name: str) -> Range:
    """By the sizes of the files on this machine, if the rule is about sources."""
    when = rules(recipe)[name]
    if when is None:
        return Range.exactly(1.0)
    sizes = [_bytes(source) for source in sources_of(recipe)]
    if when.column is not None or any(size is None for size in sizes) or not sum(filter(None, sizes)):
        return UNREAD
    own = sum(size or 0 for size, source in zip(sizes, sources_of(recipe), strict=True) if when.matches(source, {}))
    share = own / sum(filter(None, sizes))
    return Range(share / 1.5, share, min(1.0, share * 1.5))


def _bytes(source: Any) -> int | None:
    """The bytes of the files of a source; None if they are not on this machine."""
    if not hasattr(source, "path") and not hasattr(source, "package"):
        return None
    try:
        files: list[Path] = [*files_of(source, "corpus")]
    except (UserError, OSError):
        return None
    return sum(file.stat().st_size for file in files) if files else None
