"""Console: a progress bar with rate and time left on a terminal, occasional lines anywhere else."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from potstill import distributed

SECONDS_BETWEEN_LINES = 15.0

Advance = Callable[[int], None]
"""Reports that this many more units are done."""


def say(text: str) -> None:
    """Print one line; only the first rank prints. What standard output cannot encode is printed as its code."""
    if distributed.is_first():
        encoding = sys.stdout.encoding or "utf-8"
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)


@contextmanager
def progress(what: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
    """Show the progress of long work; `done` units were done by an earlier attempt."""
    show = _bar if sys.stdout.isatty() and distributed.is_first() else _lines
    with show(what, total, unit, done) as advance:
        yield advance


@contextmanager
def _bar(what: str, total: int, unit: str, done: int) -> Iterator[Advance]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    rate = TextColumn("{task.fields[rate]}")
    columns = (TextColumn(f"  {what}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit), rate)
    with Progress(*columns, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()) as bar:
        task = bar.add_task(what, total=total, completed=done, rate="")

        def advance(units: int) -> None:
            bar.advance(task, units)
            speed = bar.tasks[0].speed
            bar.update(task, rate=f"{speed:,.1f} {unit}/s" if speed else "")

        yield advance


@contextmanager
def _lines(what: str, total: int, unit: str, done: int) -> Iterator[Advance]:
    began = said = time.monotonic()
    count = 0

    def advance(units: int) -> None:
        nonlocal count, said
        count += units
        moment = time.monotonic()
        if moment - said >= SECONDS_BETWEEN_LINES and 0 < count < total - done:
            said, rate = moment, count / (moment - began)
            left = (total - done - count) / rate
            say(f"  {what}: {done + count:,} of {total:,} {unit}, {rate:,.1f} {unit}/s, {duration(left)} left")

    yield advance


def duration(seconds: float) -> str:
    """A duration for people: 0.4 s, 42 s, 3 min 05 s, 2 h 07 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def size(count: float) -> str:
    """A number of bytes for people: 12 B, 3.4 MB."""
    unit = "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if round(count, 1) < 1000:
            break
        count, unit = count / 1000, larger
    return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as lines of aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in aligned)
