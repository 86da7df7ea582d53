"""Evidence: what is kept of a training's rollouts, a bounded number of them, spread evenly over its steps."""

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from potstill.files.atomic import write_bytes
from potstill.files.jsonl_log import read_jsonl
from potstill.on_policy.rollouts import Rollout

ROLLOUTS, PREFLIGHT = "rollouts.jsonl.gz", "preflight.json"
"""Files of a training: rollouts of its steps, and what was measured before the first of them."""
MOST_ROLLOUTS = 512
"""Rollouts that are kept of a training."""
DIGITS = 5
"""Significant digits of the figures that are kept."""


class Evidence:
    """The rollouts that are kept, with their figures for each token.

    Which are kept depends on the step alone, so a resumed training keeps the same ones.

    Args:
        first: the first step that has rollouts, from 0.
        steps: the number of steps of the training.
    """

    def __init__(self, first: int, steps: int) -> None:
        self._first = first
        self._each = max(1, MOST_ROLLOUTS // max(1, steps - first))
        self._every = max(1, -(-(steps - first) // MOST_ROLLOUTS))
        self.rows: list[dict[str, Any]] = []

    def wanted(self, step: int) -> int:
        """The number of rollouts to keep of a step, from 0."""
        return self._each if (step - self._first) % self._every == 0 else 0

    def add(self, step: int, rollouts: Sequence[Rollout], scores: Mapping[str, Tensor]) -> None:
        """Keep rollouts.

        Args:
            step: the step that they are learned in, from 0.
            rollouts: those to keep.
            scores: a number for each token of all of them, in order, by its name (``losses.written_scores``).
        """
        numbers = {name: values.tolist() for name, values in scores.items()}
        first = 0
        for one in rollouts:
            last = first + len(one.ids)
            self.rows.append(
                {
                    "step": step + 1,
                    "written_at": one.written_at + 1,
                    "prompt_ids": one.prompt.student,
                    "ids": one.ids,
                    "stopped": one.finished,
                    **{name: [_short(value) for value in values[first:last]] for name, values in numbers.items()},
                }
            )
            first = last

    def save(self, file: Path) -> None:
        """Write the rows as compressed JSON lines, whole or not at all."""
        lines = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in self.rows)
        # Without a time, the same rows give the same bytes.
        write_bytes(file, gzip.compress(lines.encode(), mtime=0))

    def load(self, file: Path) -> None:
        """Go on with the rows of a file."""
        self.rows = read_jsonl(file)


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
