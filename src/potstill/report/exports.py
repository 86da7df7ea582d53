"""Exports: the report's table of exported files, one line for each, with what its engine measured."""

from collections.abc import Mapping, Sequence
from typing import Any

from potstill.console import size
from potstill.metrics.results import Paired, Result
from potstill.report import number_format
from potstill.report.data import Metric

NATS = Metric("nats", "", "", "lower")
COLUMNS = ("Size", "Loss", "Minus the student", "KL to the student", "Equal answers", "Stopped", "Tokens per second")


def table(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The table of exported files. None if there are none.

    Args:
        entries: as :func:`potstill.export.entries.entries` gives them.

    Returns:
        The `columns`; the `lines`, each with its `name`, why it was `refused`, and its `cells`, which are a figure and
        what stands under it; and `notes`.
    """
    if not entries:
        return None
    several = len({one["experiment"] for one in entries}) > 1
    notes = dict.fromkeys(note for one in entries for note in _notes(one))
    return {"columns": COLUMNS, "lines": [_line(one, several=several) for one in entries], "notes": list(notes)}


def _line(one: Mapping[str, Any], *, several: bool) -> dict[str, Any]:
    name = f"{number_format.label(one['experiment'])}, {one['format']}" if several else one["format"]
    if one["refused"] is not None:
        return {"name": name, "refused": one["refused"], "cells": []}
    loss, kl = (Result.from_dict(one[key]) for key in ("loss", "kl"))
    ratio, tied = one["decode_ratio"], one["answers_tied"]
    change = Paired.from_dict(one["loss_difference"])
    cells = [
        (size(one["bytes"]), ""),
        (number_format.value(loss, NATS), number_format.bounds((loss.low, loss.high), NATS)),
        (number_format.difference(change, NATS), _ends(change)),
        (number_format.value(kl, NATS), number_format.bounds((kl.low, kl.high), NATS)),
        (
            f"{one['answers_equal']} of {one['answers']}",
            f"{tied} part at a tie" if tied else "",
        ),
        (f"{one['stop_rate']:.0%}", f"student {one['stop_rate_of_student']:.0%}"),
        (f"{one['decode_tokens_per_second']:,.0f}", f"{ratio['median']:.1f} × the student"),
    ]
    return {"name": name, "refused": None, "cells": cells}


def _ends(change: Paired) -> str:
    """The ends of a difference's interval: [−0.12, −0.08]."""
    return number_format.difference_interval(change, NATS).partition(" ")[2]


def _notes(one: Mapping[str, Any]) -> list[str]:
    """What a reader must know of a file, a sentence each."""
    if one["refused"] is not None:
        return []
    chats = "" if one["template_equal"] is None else f" and {one['template_equal']} conversations"
    measured = (
        f"{one['engine']} read {one['tokens']:,} tokens of {one['documents']} held-out items; the tokens of "
        f"{one['tokens_equal']} texts{chats} are the student’s own."
    )
    return [measured, *(f"{note}." for note in one["notes"])]
