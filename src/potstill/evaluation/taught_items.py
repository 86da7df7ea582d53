"""Taught items: the teachers of each held-out item, and its scores apart for each of them.

Every teacher is measured on every item. But a model is compared with an item's own teachers alone.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from potstill.data.row_teachers import Teachers
from potstill.metrics.held_out_text import DocumentScores, TaughtScores
from potstill.metrics.taught_parts import ItemScores, PartScores, TaughtParts
from potstill.recipe import Recipe
from potstill.recipe.row_rules import teaches_by_row


def parts_of_items(recipe: Recipe, teachers: Iterable[Teachers | None]) -> TaughtParts | None:
    """The parts of held-out items, by the teachers of each; None where all teachers teach every row."""
    if not teaches_by_row(recipe):
        return None
    return TaughtParts([tuple(own or ()) for own in teachers], list(recipe.all_teachers))


def taught_alone(scores: DocumentScores, parts: TaughtParts, rows: int = 1) -> TaughtScores:
    """Scores of which only those of items with a teacher are compared with it.

    Args:
        scores: the scores, with a number of rows for each item.
        parts: the items.
        rows: the number of rows.
    """
    return TaughtScores(scores, np.repeat([bool(teachers) for teachers in parts.sets], rows))


def by_part(
    scores: Mapping[str, Sequence[ItemScores]], parts: TaughtParts | None, metrics: Sequence[str]
) -> tuple[Mapping[str, Sequence[ItemScores]], Sequence[str]]:
    """Scores and metrics, with those of each part.

    Args:
        scores: the scores of each model, one for each seed.
        parts: the parts of the items; None: there are none.
        metrics: the metrics of all items.
    """
    if parts is None:
        return scores, metrics
    return {name: [PartScores(one, parts) for one in own] for name, own in scores.items()}, parts.metrics(metrics)


def told(parts: TaughtParts | None) -> dict[str, list[str]]:
    """The names of the parts, for the report."""
    return {} if parts is None else {"parts": list(parts.parts)}
