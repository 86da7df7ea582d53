"""Expenses: what it took to measure each model, in seconds, energy, CO2 and tokens. Makes `costs/`.

A model is loaded before the meter starts: what is told is the work, and not the disk. Energy is the whole machine's.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from potstill.cost import Expense, measure
from potstill.evaluation.candidates import CandidateModel
from potstill.files.atomic import read_json, write_json
from potstill.pipeline.work import Work

FOLDER = "costs"


@dataclass
class Tally:
    """The tokens of one measurement: those that a model was given to read, and those that it wrote."""

    read: int = 0
    written: int = 0


@contextmanager
def metered(work: Work, measurement: str, model: CandidateModel) -> Iterator[Tally]:
    """SnapshotMeter one measurement of one model: ``with metered(...) as tally``, and then tell the tally its tokens.

    What a stopped attempt took is kept, and what the next one takes is added to it; its tokens are of all attempts, so
    that whoever goes on counts those that were done before too.
    """
    file = work.folder / FOLDER / measurement / f"{model.candidate.folder}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    saved, tally = read_json(file), Tally()
    with measure() as meter:
        try:
            yield tally
        finally:
            cost = meter.cost if saved is None else Expense.from_dict(saved).cost + meter.cost
            write_json(file, Expense(measurement, str(model.candidate), cost, tally.read, tally.written).to_dict())


def expenses(folder: Path) -> list[Expense]:
    """All that was metered under a step's folder, by measurement and model."""
    found = (Expense.from_dict(read_json(file)) for file in sorted((folder / FOLDER).rglob("*.json")))
    return list(found)
