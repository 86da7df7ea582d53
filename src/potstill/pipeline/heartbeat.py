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
from typing import Any

from potstill.cost import Cost
from potstill.recipe.step import Step

RUNNING = "running.json"
SECONDS_BETWEEN_BEATS, BEATS_BETWEEN_COSTS = 2.0, 8
SILENT = 30.0
"""Seconds without a beat after which a run counts as killed."""


class Heartbeat:
    """Writes `running.json` beside the work of its `with` block. After an error or a stop, the file stays and says so.

    Args:
        folder: the run folder.
        memory: the bytes that this process holds, on the host and on the accelerator.
    """

    def __init__(self, folder: Path, memory: Callable[[], Mapping[str, int | None]]) -> None:
        self._file, self._memory = folder / RUNNING, memory
        self._forecasts: Mapping[str, Any] = {}
        self._step: dict[str, Any] = {}
        self._cost: Callable[[], Cost] | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beats, daemon=True, name="potstill-heartbeat")

    def __enter__(self) -> "Heartbeat":
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
        self._step, self._cost = {"step": str(step), "began": time.time()}, cost

    def end(self) -> None:
        """Tell that the step has ended. Its cost is read no more."""
        self._step, self._cost = {}, None

    def _beats(self) -> None:
        beat = 0
        while True:
            read = self._cost
            if read is not None and beat % BEATS_BETWEEN_COSTS == 0:
                self._step = {**self._step, "cost": read().to_dict()}
            self._write({})
            beat += 1
            if self._over.wait(SECONDS_BETWEEN_BEATS):
                return

    def _write(self, more: Mapping[str, Any]) -> None:
        told = {"time": time.time(), **self._step, "memory": self._memory(), "forecasts": self._forecasts, **more}
        partial = self._file.with_name(f".{RUNNING}.partial")
        # Not flushed to the disk: after a failure of the machine, nobody needs it.
        with suppress(OSError):
            partial.write_text(json.dumps(told), encoding="utf-8")
            partial.replace(self._file)
