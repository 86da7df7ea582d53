"""Trackers of a training: give transformers' callbacks the names of potstill's run, and end what they leave open."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from transformers import Trainer, TrainingArguments
from transformers.integrations.integration_utils import TensorBoardCallback

from potstill.report.trackers import TrackedRun


def name_run(arguments: TrainingArguments, run: TrackedRun) -> None:
    """Let the trackers of a training call it by the names of its run."""
    arguments.project, arguments.run_name = run.project, run.name


@contextmanager
def tracked(trainer: Trainer, run: TrackedRun) -> Iterator[None]:
    """Track the training in the block as one run of its own."""
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback):
            callback.logging_dir = str(run.tensorboard)
    if "wandb" not in trainer.args.report_to:
        yield
        return
    import wandb

    before = os.environ.get("WANDB_PROJECT")
    os.environ.setdefault("WANDB_PROJECT", run.project)
    try:
        yield
    finally:
        # Transformers leaves the run open, and would log the next training into it.
        wandb.finish()
        if before is None:
            os.environ.pop("WANDB_PROJECT", None)
