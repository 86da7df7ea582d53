"""Progress log: what a training tells while it runs, one JSON object a line. `potstill watch` shows it.

It holds times, so it is no output of a step. A stop may cut a line, and a training that goes on from a checkpoint
repeats steps: the reader leaves out lines that are no JSON, and what a later attempt wrote again.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROGRESS = "progress.jsonl"
RECENT = 60.0
"""Seconds over which the speed is the mean."""


class ProgressLog:
    """Writes the log of one training.

    Args:
        file: it need not exist; its folder must.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def begin(self, done: int, steps: int) -> None:
        """Say that an attempt begins after `done` of `steps` optimizer steps."""
        # The line before may be cut, and would spoil this one.
        self._append("\n", {"begins": done, "steps": steps})

    def write(self, step: int, tokens: int, figures: Mapping[str, Any]) -> None:
        """Write what is known after a step: the tokens read so far, and any figures."""
        self._append("", {"step": step, "tokens": tokens, **figures})

    def _append(self, before: str, line: dict[str, Any]) -> None:
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write(before + json.dumps({"time": time.time(), **line}, ensure_ascii=False) + "\n")


@dataclass
class Progress:
    """What a log tells."""

    steps: int = 0
    """Optimizer steps of the whole training."""
    lines: list[dict[str, Any]] = field(default_factory=list)
    """The lines of all steps, in order, each step from the last attempt at it."""
    begins: int = 0
    """The place in `lines` where the last attempt begins."""
    began: float = 0.0
    """The time when the last attempt began, in seconds since 1970."""

    @property
    def done(self) -> int:
        """Optimizer steps that are done."""
        return int(self.lines[-1]["step"]) if self.lines else 0

    @property
    def tokens_per_second(self) -> float | None:
        """The tokens read per second, lately."""
        first, last = self._recent()
        return None if first is None else (last["tokens"] - first["tokens"]) / (last["time"] - first["time"])

    @property
    def seconds_left(self) -> float | None:
        """The seconds that the training still takes at its speed of late."""
        first, last = self._recent()
        if first is None or last["step"] == first["step"]:
            return None
        return (self.steps - last["step"]) * (last["time"] - first["time"]) / (last["step"] - first["step"])

    def _recent(self) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        """The first and the last line of late; None for the first if there is only one."""
        own = self.lines[self.begins :]
        if len(own) < 2:
            return None, {}
        last = own[-1]
        late = [one for one in own if one["time"] >= last["time"] - RECENT]
        first = late[0] if len(late) > 1 else own[-2]
        return (first if last["time"] > first["time"] else None), last


def read_progress(file: Path) -> Progress | None:
    """What a log tells; None if there is none."""
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = Progress()
    for line in text.splitlines():
        _add(found, _parsed(line))
    return found


def _parsed(line: str) -> dict[str, Any]:
    try:
        read = json.loads(line)
    except ValueError:
        return {}
    return read if isinstance(read, dict) and isinstance(read.get("time"), float) else {}


def _add(found: Progress, line: dict[str, Any]) -> None:
    if "begins" in line:
        found.lines = [one for one in found.lines if one["step"] <= line["begins"]]
        found.begins, found.began, found.steps = len(found.lines), line["time"], line["steps"]
    elif "step" in line and "tokens" in line:
        found.lines.append(line)
