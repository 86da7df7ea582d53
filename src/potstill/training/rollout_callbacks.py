"""Rollout callbacks: save before the first written sample, and stop a training whose written samples go astray."""

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from potstill import distributed
from potstill.console import say
from potstill.training.on_policy_training import OnPolicyTraining


class WatchRollouts(TrainerCallback):
    """Follows the length and entropy of written samples, and keeps the weights from before they left their band.

    A training that selects its best weights by a loss keeps those instead.
    """

    def __init__(self, training: OnPolicyTraining) -> None:
        self._training = training
        self.ended: str | None = None
        """Why the training was ended early."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Ask for a checkpoint, or for the end."""
        settings = self._training.settings
        if state.global_step == settings.from_step and settings.preflight != "off":
            # If the pre-flight speaks against written samples, the steps before them are not lost.
            control.should_save = True
        figures, guard = self._training.figures, self._training.guard
        signal, outside = None, False
        if distributed.is_first() and self._training.rollouts and (entropy := figures.last_entropy()) is not None:
            signal = guard.update(state.global_step, figures.last_length(), entropy)
            outside = guard.is_outside
        signal, outside = distributed.broadcast((signal, outside))
        if not args.load_best_model_at_end:
            if signal == "left":
                # Trainer never deletes the checkpoint of the best step.
                state.best_global_step, control.should_save = state.global_step, True
            elif not outside:
                state.best_global_step = state.best_model_checkpoint = None
            args.load_best_model_at_end = signal == "stop" and state.best_model_checkpoint is not None
        if signal == "stop":
            control.should_training_stop = True
            self.ended = distributed.broadcast(guard.sentence() if distributed.is_first() else "")
            say(f"  {self.ended} The training ends here, and its weights are those from before.")
        return control

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Give memory back, and forget which weights were kept, where the training came to its end within the bands."""
        self._training.batches.close()
        if self.ended is None and not args.load_best_model_at_end:
            state.best_global_step = state.best_model_checkpoint = None
