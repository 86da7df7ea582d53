"""Checks variants before they are timed, and writes their rows of a table."""

import torch

from benchmarks.reference import Checker, Errors
from benchmarks.table import Table
from benchmarks.timing import Times
from benchmarks.variants import Variant
from potstill.errors import first_line

MOST = 120
"""Characters of an error's first line that are kept for the table."""

Checked = list[tuple[Variant, Errors | str]]


def check(variants: list[Variant], checker: Checker) -> Checked:
    """Each variant with its errors on the problem, or with the reason why it failed."""
    checked: Checked = []
    for variant in variants:
        try:
            checked.append((variant, checker.errors(variant)))
        except Exception as error:  # noqa: BLE001 - a peer may fail in any way, and the others must still run
            checked.append((variant, f"failed: {type(error).__name__}: {first_line(error)[:MOST]}"))
            torch.cuda.empty_cache()
    return checked


def passed(checked: Checked) -> list[Variant]:
    """The variants that may be timed."""
    return [variant for variant, errors in checked if isinstance(errors, Errors) and errors.refusal is None]


def fill(table: Table, checked: Checked, times: Times, over: list[str], prefix: str = "") -> None:
    """Add a row for each variant: its ratio, or the reason why it has none. ``times`` has names with ``prefix``."""
    for variant, errors in checked:
        if isinstance(errors, str):
            table.add(variant.name, errors, "", "")
        elif errors.refusal is not None:
            table.add(variant.name, errors.refusal, "", f"{errors.worst:.1e}")
        else:
            name = prefix + variant.name
            ratio = times.ratio(name, over)
            table.add(variant.name, str(ratio), f"{times.median(name) * 1e3:.0f}", f"{errors.worst:.1e}")
