"""Callbacks: hash checkpoints, save snapshots, move random offsets and show progress during a training."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from transformers import (
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import rotate_checkpoints

from potstill import distributed
from potstill.console import Advance, progress, say, size
from potstill.data.random_offsets import RandomOffsets
from potstill.errors import UserError
from potstill.files.atomic import atomic_folder, check_room, remove
from potstill.files.progress_log import ProgressLog
from potstill.files.sealed import damage, write_hashes
from potstill.recipe.distil import KeptSnapshots
from potstill.training.snapshots import snapshot_folder
from potstill.training.trainer import DistilTrainer

SECONDS_BETWEEN_LINES = 5.0
"""Of the progress log, where a training logs less often."""

Finish = Callable[[Path], None]
"""A function that changes a folder of weights before the folder gets its final name."""


def _snapshot_bytes(model: Any) -> int:
    """The bytes of a model's weights on disk. For a model with an adapter, only the adapter counts."""
    weights = (weight for weight in model.parameters() if weight.requires_grad or not hasattr(model, "peft_config"))
    return sum(weight.numel() * weight.element_size() for weight in weights)


class HashCheckpoints(TrainerCallback):
    """Writes the hashes of each checkpoint, and then deletes checkpoints beyond `limit`.

    Transformers would delete the older checkpoints before the new one has its hashes. A kill in between would then
    leave no checkpoint that can be resumed.
    """

    def __init__(self, limit: int | None) -> None:
        self._limit = limit

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write the hashes, when every rank has written its files.

        Raises:
            UserError: the training ends, and the checkpoint of its best weights was damaged meanwhile.
        """
        # Transformers writes no file of a checkpoint after this call begins on every rank.
        distributed.barrier()
        folder, best = Path(str(args.output_dir)), state.best_model_checkpoint
        if distributed.is_first():
            write_hashes(folder / f"checkpoint-{state.global_step}")
            rotate_checkpoints(str(folder), self._limit, best)
        if control.should_training_stop and args.load_best_model_at_end and best is not None:
            wrong = distributed.broadcast(damage(Path(best)) if distributed.is_first() else None)
            if wrong is not None:
                raise UserError(
                    f"the best weights of the training are in {best}, and {wrong}; run the same command again: it goes "
                    "on from a checkpoint before that one, or begins anew"
                )


class EvaluateLastStep(TrainerCallback):
    """Evaluates the last step too, if the training selects its best weights."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Ask for an evaluation after the last step."""
        if args.load_best_model_at_end and state.global_step >= state.max_steps:
            control.should_evaluate = True
        return control


class KeepSnapshots(TrainerCallback):
    """Saves the weights after some of the steps. A snapshot has another name until it is whole."""

    def __init__(self, trainer: DistilTrainer, training: Path, snapshots: KeptSnapshots, finish: Finish | None) -> None:
        self._trainer, self._training, self._snapshots, self._finish = trainer, training, snapshots, finish
        self._steps: set[int] = set()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Print the size of the snapshots, and refuse them if the disk has no room."""
        self._steps = set(self._snapshots.steps(state.max_steps))
        if coming := sum(step > state.global_step for step in self._steps):
            each = _snapshot_bytes(self._trainer.model)
            say(f"  keeps {coming} snapshots of {size(each)} each")
            check_room(self._training, coming * each, "keep fewer of `distil.snapshots`")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Save a snapshot, if the recipe keeps one of this step."""
        if state.global_step not in self._steps:
            return
        folder = snapshot_folder(self._training, state.global_step)
        # A training that continues from an earlier step may save a snapshot a second time.
        with atomic_folder(folder, owner=distributed.is_first()) as partial:
            # Every rank holds a part of a sharded model.
            self._trainer.save_model(str(partial))
            if distributed.is_first():
                if self._finish is not None:
                    self._finish(partial)
                remove(partial / "training_args.bin")
                write_hashes(partial)


class MoveOffsets(TrainerCallback):
    """Moves the random offsets of samples at each epoch."""

    def __init__(self, samples: RandomOffsets) -> None:
        self._samples = samples

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Move the offsets."""
        # The trainer adds up fractions of an epoch. At the start of an epoch, the sum may be slightly too small.
        self._samples.set_epoch(int((state.epoch or 0) + 1e-6))


class LogProgress(TrainerCallback):
    """Writes each logged line, and a line every few seconds, for those who watch the training."""

    def __init__(self, file: Path) -> None:
        self._log, self._written = ProgressLog(file), 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Say that the training begins, or goes on."""
        if distributed.is_first():
            self._log.begin(state.global_step, state.max_steps)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write the step, if nothing was written for some seconds."""
        if time.monotonic() - self._written > SECONDS_BETWEEN_LINES:
            self._write(state, {})

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write the logged figures of a step."""
        if logs is not None and "loss" in logs:
            self._write(state, {name: value for name, value in logs.items() if isinstance(value, int | float)})

    def _write(self, state: TrainerState, figures: dict[str, Any]) -> None:
        self._written = time.monotonic()
        if distributed.is_first():
            self._log.write(state.global_step, int(state.num_input_tokens_seen), figures)


class ShowProgress(TrainerCallback):
    """Shows finished steps, rate and remaining time, until `bars` is closed."""

    def __init__(self, title: str, bars: ExitStack) -> None:
        self._title, self._bars = title, bars
        self._advance: Advance = lambda units: None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the bar at the first step of this training."""
        showing = progress(self._title, state.max_steps, "steps", done=state.global_step)
        self._advance = self._bars.enter_context(showing)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Advance the bar by one step."""
        self._advance(1)
