"""The results of a run's evaluation, as tables and sentences of a page."""

from collections.abc import Sequence
from typing import Any

from experiments.seeds import table
from potstill.files.atomic import read_json
from potstill.metrics.results import Paired, Result
from potstill.pipeline.run_folder import Run

LOWER_IS_BETTER = ("loss", "bits_per_byte", "perplexity")


def measured(run: Run) -> tuple[list[Result], list[Paired]]:
    """The rows and the paired differences of a finished evaluation."""
    found: Any = read_json(run.path("evaluate") / "comparison.json")
    return [Result.from_dict(row) for row in found["rows"]], [Paired.from_dict(pair) for pair in found["paired"]]


def outcome(pair: Paired) -> str:
    """`better`, `worse`, `no different beyond chance` or `too few to tell`: ``pair.a`` compared with ``pair.b``."""
    if pair.too_few:
        return "too few to tell"
    better = pair.difference < 0 if pair.metric in LOWER_IS_BETTER else pair.difference > 0
    return ("better" if better else "worse") if pair.beyond_chance else "no different beyond chance"


def interval(value: float, low: float, high: float) -> str:
    """A signed difference with its interval."""
    return f"{value:+.4f} [{low:+.4f}, {high:+.4f}]"


def models(rows: Sequence[Result], metrics: Sequence[str]) -> list[str]:
    """The table of the models, one line each."""
    cells = {(row.model, row.metric): f"{row.value:.4f} [{row.low:.4f}, {row.high:.4f}]" for row in rows}
    names = list(dict.fromkeys(row.model for row in rows))
    return table(("model", *metrics), [(name, *(cells[name, metric] for metric in metrics)) for name in names])


def differences(pairs: Sequence[Paired], metrics: Sequence[str]) -> list[str]:
    """The table of the compared pairs of models, one line each."""
    cells = {(pair.a, pair.b, pair.metric): interval(pair.difference, pair.low, pair.high) for pair in pairs}
    both = list(dict.fromkeys((pair.a, pair.b) for pair in pairs))
    lines = [(f"{a} − {b}", *(cells[a, b, metric] for metric in metrics)) for a, b in both]
    return table(("difference", *metrics), lines)
