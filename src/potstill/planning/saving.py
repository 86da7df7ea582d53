"""Saving: what a training does at each save beside its steps."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from potstill.planning.jobs import Job, ReadingJob, Situation, TrainingJob, WaitingJob, checkpoint_bytes
from potstill.planning.ranges import ZERO, Range
from potstill.planning.trace import BatchShape
from potstill.recipe.no_effect import BATCH_DEFAULT
from potstill.training.arguments import DEFAULTS

FILE_BYTES_PER_SECOND = Range(0.15e9, 0.6e9, 2.5e9)
"""Reading, hashing and writing of weights."""


def saves_of(at: Situation, training: TrainingJob, keep: Literal["last", "best"]) -> Iterator[Job]:
    """The checkpoints and the trained model that are written and hashed; with `best`, the samples that are read to
    select the weights.

    Args:
        at: the recipe, its models and its text.
        training: the training.
        keep: as the recipe's `keep`.
    """
    if training.steps is None:
        return
    saves, (model, checkpoint) = _saves(training.fields, training.steps), checkpoint_bytes(training)
    yield WaitingJob((saves * checkpoint + model) / FILE_BYTES_PER_SECOND)
    if keep == "best" and at.amounts.validation_samples:
        rows = int(training.fields.get("per_device_eval_batch_size", BATCH_DEFAULT))
        shape = BatchShape(min(rows, at.amounts.validation_samples), training.batch.length)
        tokens = at.amounts.in_batch(rows) * float(at.amounts.validation_samples) * saves
        yield ReadingJob(training.student, shape, tokens, training.precision, training.weights)


def _saves(fields: Mapping[str, Any], steps: Range) -> Range:
    """How often a training saves, its end included."""
    strategy = str(fields.get("save_strategy", "steps"))
    if strategy == "no":
        return ZERO
    if strategy == "epoch":
        return Range.exactly(max(1.0, float(fields.get("num_train_epochs", 1.0))))
    every = float(fields.get("save_steps", DEFAULTS["save_steps"]))
    # A share of all steps, or a number of them.
    return Range.exactly(1 / every) if every < 1 else steps * (1 / every) + Range(0.0, 0.5, 1.0)
