"""Resume: stop a training at a checkpoint, and find the newest checkpoint that is as it was written."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate.utils.constants import FSDP_MODEL_NAME
from transformers import (
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from potstill import distributed
from potstill.console import say
from potstill.errors import UserError
from potstill.files.atomic import read_json, remove, write_json
from potstill.files.sealed import damage, write_hashes
from potstill.training.snapshots import snapshots_of

STATE = "trainer_state.json"


def checkpoint_to_resume(folder: Path) -> Path | None:
    """The newest checkpoint whose files are all as they were written; None if there is none. Every rank must call this.

    A damaged checkpoint is named in a sentence and renamed to `damaged-checkpoint-N`: the training will write another
    checkpoint of that name.
    """
    chosen: Path | None = distributed.broadcast(_newest_whole(folder) if distributed.is_first() else None)
    return chosen


def _newest_whole(folder: Path) -> Path | None:
    found = {_step(path): path for path in folder.glob("checkpoint-*") if path.is_dir()}
    found.pop(-1, None)
    for _, checkpoint in sorted(found.items(), reverse=True):
        wrong = damage(checkpoint) or _damage_of_best(checkpoint) or _damage_of_snapshots(checkpoint)
        if wrong is None:
            return checkpoint
        say(f"  {checkpoint.name} is passed over: {wrong}")
        aside = checkpoint.with_name(f"damaged-{checkpoint.name}")
        remove(aside)
        checkpoint.rename(aside)
    if found:
        say("  no checkpoint is whole, so the training begins anew")
    return None


def _step(checkpoint: Path) -> int:
    """The step of a checkpoint; -1 for another folder."""
    number = checkpoint.name.removeprefix("checkpoint-")
    return int(number) if number.isdecimal() else -1


def _damage_of_best(checkpoint: Path) -> str | None:
    """What is wrong with the checkpoint of the best weights so far, which a training loads at its end."""
    best = read_json(checkpoint / STATE).get("best_model_checkpoint")
    if best is None or Path(best).name == checkpoint.name:
        return None
    wrong = damage(checkpoint.with_name(Path(best).name))
    return wrong and f"the best weights so far are in {Path(best).name}, and {wrong}"


def _damage_of_snapshots(checkpoint: Path) -> str | None:
    """What is wrong with the snapshots before a checkpoint, which a training that goes on from it does not make."""
    for snapshot in snapshots_of(checkpoint.parent.parent):
        wrong = damage(snapshot.folder) if snapshot.step <= _step(checkpoint) else None
        if wrong is not None:
            return f"the snapshot {snapshot.folder.name} comes before it, and {wrong}"
    return None


def check_written_alike(checkpoint: Path, is_sharded: bool) -> None:
    """Refuse a checkpoint that ranks wrote together, where this training is not sharded, and the reverse.

    Raises:
        UserError: the optimizer's state is in another form.
    """
    if (checkpoint / f"{FSDP_MODEL_NAME}.bin").is_file() != is_sharded:
        before, now = ("one rank or `ddp`", "`fsdp2`") if is_sharded else ("`fsdp2`", "one rank or `ddp`")
        raise UserError(
            f"{checkpoint} is of a training by {before}, and this one is by {now} (`distributed.strategy`); start "
            f"it as before, or delete {checkpoint.parent} to begin this training anew"
        )


def relocate_best_checkpoint(checkpoint: Path) -> None:
    """Correct the path of the best weights in a checkpoint: the run folder may have been moved since."""
    if distributed.is_first():
        state = read_json(checkpoint / STATE)
        here = str(checkpoint.with_name(Path(state.get("best_model_checkpoint") or checkpoint).name))
        if state.get("best_model_checkpoint") not in (None, here):
            write_json(checkpoint / STATE, state | {"best_model_checkpoint": here})
            write_hashes(checkpoint)
    distributed.barrier()


SAME_SIGNAL = 5.0
"""Seconds in which another signal is the first one again: `torchrun` passes on what its processes have got already."""


class StopAtStepEnd(TrainerCallback):
    """Turns the first Ctrl-C or SIGTERM into a checkpoint at the end of the step. A later one stops at once."""

    stop_requested = False
    _first_signal: float | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Catch both signals inside the `with` block."""

        def request(number: int, frame: object) -> None:
            if self._first_signal is None:
                self._first_signal, self.stop_requested = time.monotonic(), True
                say("\n  stopping: a checkpoint is written at the end of this step")
            elif time.monotonic() - self._first_signal > SAME_SIGNAL:
                raise KeyboardInterrupt

        before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Stop every rank after the same step, with a checkpoint."""
        # A signal reaches ranks at different steps, but all ranks must stop after the same step.
        self.stop_requested = distributed.any_of(self.stop_requested)
        if self.stop_requested:
            control.should_save = control.should_training_stop = True
        return control
