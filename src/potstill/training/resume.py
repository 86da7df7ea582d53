"""Resume: stop a training at a checkpoint, and find the checkpoint from which it continues."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import (
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from potstill import distributed
from potstill.console import say
from potstill.files.atomic import read_json, write_json


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that is whole. Transformers writes `trainer_state.json` last."""
    whole = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json") if _is_json(path)]
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def relocate_best_checkpoint(checkpoint: Path) -> None:
    """Correct the path of the best weights in a checkpoint: the run folder may have been moved since."""
    file = checkpoint / "trainer_state.json"
    state = read_json(file)
    if distributed.is_first() and state and state.get("best_model_checkpoint"):
        here = checkpoint.parent / Path(state["best_model_checkpoint"]).name
        write_json(file, state | {"best_model_checkpoint": str(here)})
    distributed.barrier()


def _is_json(file: Path) -> bool:
    try:
        return read_json(file) is not None
    except ValueError:
        return False


class StopAtStepEnd(TrainerCallback):
    """Turns the first Ctrl-C or SIGTERM into a checkpoint at the end of the step. The second one stops at once."""

    stop_requested = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Catch both signals inside the `with` block."""

        def request(number: int, frame: object) -> None:
            if self.stop_requested:
                raise KeyboardInterrupt
            self.stop_requested = True
            say("\n  stopping: a checkpoint is written at the end of this step")

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
