"""Measurement cost: seconds, energy, CO2 and tokens of measuring each model. Makes `costs/`.

A model is loaded before the meter starts, so its loading does not count. Energy is that of the whole machine.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from potstill.cost import Expense, measure
from potstill.evaluation.candidate_models import CandidateModel
from potstill.files.atomic import read_json
from potstill.files.sealed import read_sealed, write_sealed
from potstill.pipeline.work import Work

FOLDER = "costs"


@dataclass
class Tally:
    """The tokens that a model read and wrote in one measurement."""

    read: int = 0
    written: int = 0


@contextmanager
def metered(work: Work, measurement: str, model: CandidateModel) -> Iterator[Tally]:
    """Meter one measurement of one model: ``with metered(...) as tally``, then set the tally's tokens.

    The cost of a stopped attempt is kept, and the next attempt's cost is added. Tokens are not added: the caller sets
    the tokens of all attempts together.
    """
    file = work.folder / FOLDER / measurement / f"{model.candidate.folder}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    saved, tally = read_sealed(file), Tally()
    with measure() as meter:
        try:
            yield tally
        finally:
            cost = meter.cost if saved is None else Expense.from_dict(saved).cost + meter.cost
            write_sealed(file, Expense(measurement, str(model.candidate), cost, tally.read, tally.written).to_dict())


def expenses(folder: Path) -> list[Expense]:
    """All metered costs in a step's folder, by measurement and model."""
    found = (Expense.from_dict(read_json(file)) for file in sorted((folder / FOLDER).rglob("*.json")))
    return list(found)
