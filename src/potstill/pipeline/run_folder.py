"""Run folder: for each step of an experiment its outputs, and a manifest with its inputs and its cost.

A stage that trains has one step for each seed or each teacher; other stages have fewer. A step's folder is in one of
three states: absent; begun (`unfinished.json`); done (`manifest.json`, which is written last and by renaming, so it is
never half there).
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from potstill.errors import UserError
from potstill.files.atomic import digest, read_json, sha256, write_json, write_text
from potstill.files.sealed import read_sealed, write_sealed
from potstill.pipeline.manifest import (
    MANIFEST,
    damaged_outputs,
    now,
    read_manifest,
    stored_manifest,
    write_manifest,
)
from potstill.recipe.step import SAVED_AS, SAVED_DIGEST, Step

UNFINISHED, LOCK = "unfinished.json", ".lock"
REPLACED = "replaced"
"""The folder in a run of what other inputs made."""


class Run:
    """A run folder."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def path(self, step: Step | str) -> Path:
        """The folder of a step's outputs."""
        return self.folder / str(step)

    @contextmanager
    def open(self, recipe: dict[str, Any]) -> Iterator[None]:
        """Make the folder, write the current recipe into it, and lock it against other processes.

        Raises:
            UserError: as :meth:`alone`.
        """
        with self.alone():
            try:
                write_json(self.folder / SAVED_AS, recipe)
                write_text(self.folder / SAVED_DIGEST, sha256(self.folder / SAVED_AS))
            except OSError as error:
                raise self._cannot_be_written(error) from error
            yield

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Lock the folder against other processes.

        Raises:
            UserError: the folder cannot be written, or another process is at work in it.
        """
        from filelock import FileLock, Timeout

        # The operating system releases the lock when the process ends, even after a kill.
        lock = FileLock(self.folder / LOCK, timeout=0)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            raise UserError(
                f"another process is at work in {self.folder}; wait until it has ended, or name another `--run-dir`"
            ) from None
        except OSError as error:
            raise self._cannot_be_written(error) from error
        try:
            yield
        finally:
            lock.release()

    def _cannot_be_written(self, error: OSError) -> UserError:
        reason = (error.strerror or str(error)).lower()
        return UserError(f"the run folder {self.folder} cannot be written ({reason}); name another `--run-dir`")

    def recipe(self) -> dict[str, Any] | None:
        """The recipe of the last call; None if the folder is no run."""
        return read_json(self.folder / SAVED_AS)

    def manifest(self, step: Step | str) -> dict[str, Any] | None:
        """The manifest of a finished step; None if it is not finished, or if an output is missing or damaged."""
        return read_manifest(self.path(step))

    def damaged(self, step: Step | str, *, afresh: bool = False) -> dict[str, str]:
        """What is wrong with the outputs of a step, as :func:`damaged_outputs` says it; empty if it is not finished."""
        manifest = stored_manifest(self.path(step))
        return {} if manifest is None else damaged_outputs(self.path(step), manifest, afresh=afresh)

    def unfinished(self, step: Step) -> dict[str, Any] | None:
        """The state of a step that was begun and not finished."""
        return read_sealed(self.path(step) / UNFINISHED)

    def earlier(self, step: Step) -> dict[str, Any] | None:
        """The state of a step's last attempt: finished, stopped, or finished and damaged since."""
        return stored_manifest(self.path(step)) or self.unfinished(step)

    def begin(self, step: Step, inputs: dict[str, Any], recipe: dict[str, Any]) -> dict[str, Any]:
        """Prepare a step's folder, and return its state: `attempts`, and the cost of earlier attempts.

        A stopped attempt with the same inputs continues. Other content is moved to `replaced/` and never deleted: it
        may have taken days.
        """
        key, earlier = digest(inputs), self.unfinished(step)
        if earlier is None or earlier["key"] != key or (self.path(step) / MANIFEST).exists():
            self.replace(step)
            earlier = {"key": key, "inputs": inputs, "started": now(), "attempts": 0, "cost": None}
        self.path(step).mkdir(parents=True, exist_ok=True)
        state = {**earlier, "attempts": earlier["attempts"] + 1, "recipe": recipe}
        write_sealed(self.path(step) / UNFINISHED, state)
        return state

    def replace(self, step: Step) -> Path | None:
        """Move a step's folder to `replaced/`, and return its new path."""
        if not self.path(step).exists():
            return None
        aside = self.folder / REPLACED / f"{str(step).replace('/', '-')}-{time.strftime('%Y%m%d-%H%M%S')}"
        while aside.exists():
            aside = aside.with_name(aside.name + "+")
        aside.parent.mkdir(parents=True, exist_ok=True)
        self.path(step).rename(aside)
        return aside

    def spend(self, step: Step, cost: dict[str, Any]) -> None:
        """Save the cost of all attempts so far, so that a finished step knows its whole cost."""
        state = self.unfinished(step)
        if state is not None:
            write_sealed(self.path(step) / UNFINISHED, {**state, "cost": cost})

    def finish(
        self,
        step: Step,
        cost: dict[str, Any],
        outputs: Iterable[Path],
        summary: dict[str, Any],
        foreseen: dict[str, Any] | None = None,
    ) -> None:
        """Write a step's manifest. `foreseen` has its `forecast` and, to compare, its `peak_memory`."""
        folder, state = self.path(step), self.unfinished(step)
        assert state is not None, f"{step} was never begun"
        told = {"forecast": None, "peak_memory": None} | (foreseen or {})
        write_manifest(folder, {"step": str(step), **state, "cost": cost, "summary": summary, **told}, outputs)
        (folder / UNFINISHED).unlink()
