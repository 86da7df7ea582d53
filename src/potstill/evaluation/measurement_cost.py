"""Measurement cost: seconds, energy, CO2 and tokens of measuring each model. Makes `costs/`.

A model is loaded before the meter starts, so its loading does not count. Energy is that of the whole machine.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from potstill.cost import Expense, measure
from potstill.evaluation.candidate_models import CandidateModel
from potstill.files.sealed import read_sealed, write_sealed
from potstill.pipeline.work import Work

FOLDER = "costs"


@dataclass
class Tally:
    """The tokens that a model read and wrote in one measurement."""

    read: int = 0
    written: int = 0
    seconds: float = 0.0
    """Of models that are measured side by side: this model's own time, by which the cost is shared."""


@contextmanager
def metered(work: Work, measurement: str, model: CandidateModel) -> Iterator[Tally]:
    """Meter one measurement of one model: ``with metered(...) as tally``, then set the tally's tokens.

    The cost of a stopped attempt is kept, and the next attempt's cost is added. Tokens are not added: the caller sets
    the tokens of all attempts together.
    """
    with metered_together(work, measurement, [model]) as (tally,):
        yield tally


@contextmanager
def metered_together(work: Work, measurement: str, models: Sequence[CandidateModel]) -> Iterator[list[Tally]]:
    """As :func:`metered`, for models that are measured side by side. Each has the share of the cost of its seconds."""
    files = [work.folder / FOLDER / measurement / f"{model.candidate.folder}.json" for model in models]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
    saved, tallies = [read_sealed(file) for file in files], [Tally() for _ in models]
    with measure() as meter:
        try:
            yield tallies
        finally:
            total, seconds = meter.cost, sum(tally.seconds for tally in tallies)
            for file, before, model, tally in zip(files, saved, models, tallies, strict=True):
                cost = total.share(tally.seconds / seconds if seconds else 1 / len(models))
                cost = cost if before is None else Expense.from_dict(before).cost + cost
                expense = Expense(measurement, str(model.candidate), cost, tally.read, tally.written)
                write_sealed(file, expense.to_dict())


def expenses(folder: Path) -> list[Expense]:
    """All metered costs in a step's folder, by measurement and model. What is damaged is left out, and said."""
    files = sorted((folder / FOLDER).rglob("*.json"))
    found = (read_sealed(file, "that cost is left out") for file in files)
    return [Expense.from_dict(one) for one in found if one is not None]
