"""Heartbeat: a file that says, every few seconds, at which step a run is, and what the step has cost so far.

`potstill watch` reads it. A file that has not changed for a while is of a run that was killed.
"""

import json
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from potstill.cost import Cost
from potstill.recipe.step import Step

RUNNING = "running.json"
SECONDS_BETWEEN_BEATS, BEATS_BETWEEN_COSTS = 2.0, 8
SILENT = 30.0
"""Seconds without a beat after which a run counts as killed."""


class _AtStep(NamedTuple):
    """A step that is at work: what is told of it, and how its cost so far is read."""

    told: dict[str, Any]
    cost: Callable[[], Cost]


class Heartbeat:
    """Writes `running.json` beside the work of its `with` block. After an error or a stop, the file stays and says so.

    Args:
        folder: the run folder.
        memory: the bytes that this process holds, on the host and on the accelerator.
    """

    def __init__(self, folder: Path, memory: Callable[[], Mapping[str, int | None]]) -> None:
        self._file, self._memory = folder / RUNNING, memory
        self._forecasts: Mapping[str, Any] = {}
        self._at: _AtStep | None = None
        self._writing = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beats, daemon=True, name="potstill-heartbeat")

    def __enter__(self) -> "Heartbeat":
        self._write({})
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        if kind is None:
            with suppress(OSError):
                self._file.unlink(missing_ok=True)
        else:
            self._write({"stopped": True})

    def forecast(self, forecasts: Mapping[str, Mapping[str, Any]]) -> None:
        """Tell what the steps that are left will need."""
        self._forecasts = {
            step: {name: told[name] for name in ("seconds", "kwh") if name in told} for step, told in forecasts.items()
        }

    def begin(self, step: Step, cost: Callable[[], Cost]) -> None:
        """Tell which step begins, and how its cost so far is read."""
        self._at = _AtStep({"step": str(step), "began": time.time()}, cost)
        self._write({})

    def end(self) -> None:
        """Tell that the step has ended. Its cost is read no more."""
        self._at = None

    def _beats(self) -> None:
        beat = 0
        while not self._over.wait(SECONDS_BETWEEN_BEATS):
            # The step may end meanwhile: its cost goes to what was read here, and not to the next step.
            at = self._at
            if at is not None and beat % BEATS_BETWEEN_COSTS == 0:
                at.told["cost"] = at.cost().to_dict()
            self._write({})
            beat += 1

    def _write(self, more: Mapping[str, Any]) -> None:
        told = {} if self._at is None else self._at.told
        told = {"time": time.time(), **told, "memory": self._memory(), "forecasts": self._forecasts, **more}
        partial = self._file.with_name(f".{RUNNING}.partial")
        # Not flushed to the disk: after a failure of the machine, nobody needs it.
        with self._writing, suppress(OSError):
            partial.write_text(json.dumps(told), encoding="utf-8")
            partial.replace(self._file)
