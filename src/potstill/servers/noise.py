"""Noise: how far the answers of one server to one question lie apart, and whether it still has the same model.

A server computes rows together that come together, and its sums round differently with each composition. So the same
row gets slightly different log-probabilities each time. What lies within this noise says nothing about the model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from potstill.servers.api import ScoredRow, Scorer
from potstill.servers.client import Client

PROBES = (
    "The Thames rises in Gloucestershire and runs through Oxford, Reading and London to the North Sea.",
    "def mean(values: list[float]) -> float:\n    return sum(values) / len(values)\n",
    "Question: A train leaves at 9:40 and arrives at 12:15. How long does it travel?\nAnswer: 2 hours and 35 minutes.",
    "Im Frühling 1824 wurde in Wien zum ersten Mal die neunte Sinfonie gespielt. 東京は日本の首都です。",
)
"""Texts of several kinds, which another model predicts otherwise."""
PROBE_TOKENS = 64
"""The most tokens of a probe."""
PROBE_K = 8
TOGETHER = 4
"""How often each probe is in flight at once, where it is asked together with others."""
SMALLEST_CHANGE = 0.01
"""In nats: a mean difference that hardly any other model stays under."""
TIMES_THE_NOISE = 4.0
_NONE = -1e4


@dataclass(frozen=True)
class NoiseFloor:
    """The differences between two answers to the same rows, in nats, over all log-probabilities that both have."""

    largest: float
    mean: float

    def allows(self, mean: float) -> bool:
        """Whether answers that differ so much on average may come from one model."""
        return mean <= max(SMALLEST_CHANGE, TIMES_THE_NOISE * self.mean)


def difference(ours: Sequence[ScoredRow], theirs: Sequence[ScoredRow]) -> NoiseFloor:
    """How far two answers to the same rows lie apart."""
    found = np.concatenate([_differences(a, b) for a, b in zip(ours, theirs, strict=True)])
    return NoiseFloor(float(found.max(initial=0.0)), float(found.mean()) if len(found) else 0.0)


def _differences(a: ScoredRow, b: ScoredRow) -> NDArray[np.float64]:
    at, ours, theirs = np.nonzero(a.ids[:, :, None] == b.ids[:, None, :])
    first = np.concatenate([a.log_probs[at, ours], a.label_log_probs])
    second = np.concatenate([b.log_probs[at, theirs], b.label_log_probs])
    possible = np.isfinite(first) & np.isfinite(second)
    differences: NDArray[np.float64] = np.abs(first[possible] - second[possible])
    return differences


class Probe:
    """Rows that a server is asked about now and then.

    Args:
        client: sends the requests.
        scorer: asks the server.
        rows: the rows' tokens.
        k: the number of log-probabilities of each position.
    """

    def __init__(self, client: Client, scorer: Scorer, rows: Sequence[Sequence[int]], k: int = PROBE_K) -> None:
        self._client, self._scorer, self._rows, self._k = client, scorer, rows, k

    def alone(self) -> list[ScoredRow]:
        """The answers, one request at a time."""
        return [self.ask(row) for row in self._rows]

    def together(self) -> list[ScoredRow]:
        """The answers, all in flight at once, each several times; the last one of each is given."""
        found = [*self._client.in_order(self.ask, [row for _ in range(TOGETHER) for row in self._rows])]
        return found[-len(self._rows) :]

    def ask(self, row: Sequence[int]) -> ScoredRow:
        """The answer about one row."""
        return self._scorer.score(row, self._k, 1.0)


def probe_rows(tokenizer: Any, longest: int | None) -> list[list[int]]:
    """The probes as rows of tokens that the server can read."""
    most = min(PROBE_TOKENS, longest or PROBE_TOKENS)
    rows = [[*tokenizer.encode(text, add_special_tokens=False)][:most] for text in PROBES]
    return [row for row in rows if len(row) > 1]


def as_json(rows: Sequence[ScoredRow]) -> list[dict[str, Any]]:
    """Answers as JSON types, in six digits."""
    return [
        {
            "ids": row.ids.tolist(),
            "log_probs": _numbers(row.log_probs).tolist(),
            "label_log_probs": _numbers(row.label_log_probs).tolist(),
        }
        for row in rows
    ]


def from_json(rows: Sequence[Mapping[str, Any]]) -> list[ScoredRow]:
    """The inverse of :func:`as_json`."""
    return [ScoredRow(np.array(row["ids"]), _read(row["log_probs"]), _read(row["label_log_probs"])) for row in rows]


def _numbers(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """JSON has no -inf."""
    return np.maximum(values, _NONE).round(6)


def _read(values: Sequence[Any]) -> NDArray[np.float64]:
    found = np.array(values, np.float64)
    return np.where(found <= _NONE, -np.inf, found)
