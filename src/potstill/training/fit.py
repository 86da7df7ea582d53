"""Fitting: one training in a step's folder, which a stop cannot harm: it goes on from its last checkpoint to the same
weights."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from transformers import (
    PreTrainedModel,
    PrinterCallback,
)

from potstill import distributed
from potstill.console import say
from potstill.data.random_offsets import RandomOffsets
from potstill.errors import UserError
from potstill.files.atomic import atomic_folder, read_json, remove, write_json
from potstill.losses.hidden_states import HiddenLoss
from potstill.losses.loss import Loss
from potstill.pipeline import artifacts
from potstill.pipeline.training_data import TrainingData
from potstill.pipeline.work import Made, Work
from potstill.recipe.distil import KeptSnapshots
from potstill.training.arguments import DEFAULTS, training_arguments
from potstill.training.callbacks import EvaluateLastStep, Finish, KeepSnapshots, MoveOffsets, ShowProgress
from potstill.training.resume import StopAtStepEnd, last_whole_checkpoint, relocate_best_checkpoint
from potstill.training.snapshots import SNAPSHOTS
from potstill.training.trainer import DistilTrainer

CHECKPOINTS, ENDED = "checkpoints", "ended.json"


def fit(
    work: Work,
    start: PreTrainedModel,
    learned: TrainingData,
    training: dict[str, Any],
    key: str,
    losses: Sequence[Loss | HiddenLoss],
    seed: int,
    keep: Literal["last", "best"],
    saved_as: str = "student",
    finish: Finish | None = None,
    snapshots: KeptSnapshots | None = None,
    tidy: Finish | None = None,
    **teaching: Any,
) -> Made:
    """Train a model, or go on training it, and save what it became.

    Args:
        work: the step.
        start: the model as it is before; weights without gradients stay as they are.
        learned: the samples.
        training: the fields of `TrainingArguments`.
        key: where they stand in the recipe, for messages.
        losses: what is learned from.
        seed: the order of the samples, their offsets, and every other random choice of the training.
        keep: the last weights, or the best that were saved, by cross-entropy on `corpus.validation`.
        saved_as: the name of the folder for what it becomes, beside `log.jsonl`.
        finish: what is done to that folder in the end.
        snapshots: which weights are kept on the way, in `snapshots/step-N/`.
        tidy: what is done to each of those folders.
        **teaching: what else :class:`DistilTrainer` takes.
    """
    student, log, ended = work.folder / saved_as, work.folder / "log.jsonl", work.folder / ENDED
    if (summary := read_json(ended)) is not None:
        say("  had ended before it was stopped")
        return Made([student, log, *_kept(work)], summary)
    checkpoints = work.folder / CHECKPOINTS
    tokenizer = artifacts.tokenizer(work)
    chosen = _choosing(training, key) if keep == "best" else {}
    arguments, counted = training_arguments(training | chosen, key, checkpoints, seed), _counted(start)
    if arguments.gradient_checkpointing and counted["trained_parameters"] < counted["parameters"]:
        # A reentrant checkpoint gives gradients to nothing where its inputs have none.
        start.enable_input_require_grads()
    trainer = DistilTrainer(
        model=start,
        args=arguments,
        train_dataset=learned.train,
        eval_dataset=learned.validation if chosen else None,
        data_collator=learned.collate,
        processing_class=tokenizer,
        losses=losses,
        # A start has its teachers' tokenizer.
        teacher_tokenizer=None if artifacts.compared_vocabulary(work) is None else tokenizer,
        **teaching,
    )
    if isinstance(learned.train, RandomOffsets):
        trainer.add_callback(MoveOffsets(learned.train))
    if snapshots is not None:
        trainer.add_callback(KeepSnapshots(trainer, work.folder, snapshots, tidy))
    last = last_whole_checkpoint(checkpoints)
    if last is not None:
        say(f"  goes on from {last.name}")
        relocate_best_checkpoint(last)
    _train(trainer, last, f"training {work.step}")

    with atomic_folder(student, owner=distributed.is_first()) as partial:
        trainer.save_model(str(partial))
        if distributed.is_first():
            remove(partial / "training_args.bin")
            if finish is not None:
                finish(partial)
    if not distributed.is_first():
        return Made([], {})
    points = [entry for entry in trainer.state.log_history if "loss" in entry]
    log.write_text("".join(json.dumps(point) + "\n" for point in points), encoding="utf-8")
    state = trainer.state
    summary = {
        "steps": state.global_step,
        "tokens": state.num_input_tokens_seen,
        **counted,
        "made": f"{state.global_step:,} steps",
    }
    if chosen:
        best = {"kept_step": state.best_global_step, "validation_loss": state.best_metric}
        summary |= best | {"made": f"{state.global_step:,} steps, step {state.best_global_step:,} kept"}
    # Before the checkpoints go: from here on, a stop costs nothing any more.
    write_json(ended, summary)
    remove(checkpoints)
    return Made([student, log, *_kept(work)], summary)


def _kept(work: Work) -> list[Path]:
    folder = work.folder / SNAPSHOTS
    return [folder] if folder.is_dir() else []


def _counted(model: PreTrainedModel) -> dict[str, int]:
    """How many weights a model has, an adapter's among them, and how many of them are trained."""
    if hasattr(model, "get_nb_trainable_parameters"):
        # Peft knows how many weights of 4 bits there are in a number of 8.
        trained, every = model.get_nb_trainable_parameters()
        return {"parameters": every, "trained_parameters": trained}
    sizes = [(weight.numel(), weight.requires_grad) for weight in model.parameters()]
    return {
        "parameters": sum(size for size, _ in sizes),
        "trained_parameters": sum(size for size, trained in sizes if trained),
    }


def _choosing(training: dict[str, Any], key: str) -> dict[str, Any]:
    """What `TrainingArguments` needs to come back to the best of the weights that it saved."""
    strategy = training.get("save_strategy", "steps")
    if strategy not in ("steps", "epoch"):
        raise UserError(
            f"`{key}.save_strategy: {strategy}` saves nothing to choose from; leave it out, or do not `keep: best`"
        )
    return {
        "eval_strategy": strategy,
        "eval_steps": training.get("save_steps", DEFAULTS["save_steps"]),
        "per_device_eval_batch_size": training.get(
            "per_device_eval_batch_size", training.get("per_device_train_batch_size", 8)
        ),
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
    }


def _train(trainer: DistilTrainer, checkpoint: Path | None, what: str) -> None:
    stop = StopAtStepEnd()
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(EvaluateLastStep())
    trainer.add_callback(stop)
    with ExitStack() as shown, stop.listening():
        trainer.add_callback(ShowProgress(what, shown))
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if stop.asked:
        raise KeyboardInterrupt
