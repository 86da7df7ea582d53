"""Fit: one training in a folder of its own. A stopped one continues from its last checkpoint, to the same weights."""

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from transformers import PreTrainedModel, PrinterCallback

from potstill import distributed
from potstill.console import say
from potstill.data.collators import Collate
from potstill.data.random_offsets import RandomOffsets
from potstill.files.atomic import atomic_folder, remove
from potstill.files.progress_log import PROGRESS
from potstill.files.sealed import changed_file, file_hashes, read_sealed, write_sealed
from potstill.losses.hidden_states import HiddenLoss
from potstill.losses.loss import Loss
from potstill.on_policy.evidence import PREFLIGHT, ROLLOUTS
from potstill.recipe.distil import KeptSnapshots
from potstill.report.trackers import tracked_run
from potstill.training.arguments import training_arguments
from potstill.training.callbacks import (
    EvaluateLastStep,
    Finish,
    HashCheckpoints,
    KeepSnapshots,
    LogProgress,
    MoveOffsets,
    ShowProgress,
)
from potstill.training.memory import check_memory
from potstill.training.resume import StopAtStepEnd, check_written_alike, checkpoint_to_resume, relocate_best_checkpoint
from potstill.training.snapshot_texts import WriteTexts
from potstill.training.snapshots import SNAPSHOTS
from potstill.training.trackers import name_run, tracked
from potstill.training.trainer import DistilTrainer

CHECKPOINTS, ENDED = "checkpoints", "ended.json"

Samples = Any
"""An indexable collection of samples with a length."""


@dataclass(frozen=True)
class TrainingData:
    """The samples of a training, and its collator."""

    train: Samples
    validation: Samples | None
    """The samples that select the best weights; None if the recipe sets none aside."""
    collate: Collate


@dataclass(frozen=True)
class Fit:
    """The settings and data of one training."""

    folder: Path
    """The folder of its checkpoints, log, snapshots and trained model."""
    run_folder: Path
    """The run folder, whose name trackers show."""
    title: str
    """Its name on the progress bar."""
    start: PreTrainedModel
    """The model before training. Weights without gradients stay as they are."""
    data: TrainingData
    losses: Sequence[Loss | HiddenLoss]
    training: Mapping[str, Any]
    """The fields of `TrainingArguments`."""
    key: str
    """The key of these fields in the recipe, for messages."""
    seed: int
    """The seed of the samples' order, of their offsets, and of every other random choice."""
    keep: Literal["last", "best"]
    """Keep the last weights, or the saved ones with the lowest cross-entropy on the validation samples."""
    tokenizer: Any
    teacher_tokenizer: Any = None
    """As :class:`DistilTrainer` takes it."""
    saved_as: str = "student"
    """The folder of the trained model, within `folder`."""
    finish: Finish | None = None
    """A function that changes the folder of the trained model before the folder gets its final name."""
    snapshots: KeptSnapshots | None = None
    """The steps whose weights are kept, in `snapshots/step-N/`."""
    finish_snapshot: Finish | None = None
    """A function that changes the folder of each snapshot before the folder gets its final name."""
    teaching: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of :class:`DistilTrainer`, such as the teachers."""

    @property
    def student(self) -> Path:
        """The folder of the trained model."""
        return self.folder / self.saved_as


def fit(one: Fit) -> tuple[list[Path], dict[str, Any]]:
    """Train a model, or continue its stopped training, and save it.

    Returns:
        The outputs (the model's folder, `log.jsonl` and the snapshots) and a summary. Both are empty on all ranks but
        the first.

    Raises:
        UserError: the training's fields cannot be used, or the training diverged.
    """
    if (ended := read_sealed(one.folder / ENDED)) is not None:
        wrong = changed_file(one.folder, ended["files"])
        if wrong is None:
            say("  the training had ended before the stop")
            return _outputs(one), ended["summary"]
        say(f"  the training had ended before the stop, and {wrong}, so it is made again")
    counted = _parameter_counts(one.start)
    trainer = _trainer(one, counted)
    last = checkpoint_to_resume(one.folder / CHECKPOINTS)
    if last is not None:
        say(f"  goes on from {last.name}")
        check_written_alike(last, trainer.is_fsdp_enabled)
        relocate_best_checkpoint(last)
    with tracked(trainer, tracked_run(one.run_folder, one.folder, one.training)):
        _train(trainer, last, one.title)
    with atomic_folder(one.student, owner=distributed.is_first()) as partial:
        # Every rank holds a part of a sharded model.
        trainer.save_model(str(partial))
        if distributed.is_first():
            remove(partial / "training_args.bin")
            if one.finish is not None:
                one.finish(partial)
    if not distributed.is_first():
        return [], {}
    summary = _summary(trainer, counted)
    points = [entry for entry in trainer.state.log_history if "loss" in entry]
    log = "".join(json.dumps(point) + "\n" for point in points)
    (one.folder / "log.jsonl").write_text(log, encoding="utf-8")
    # This is written before the checkpoints are removed: from here on, a stop costs nothing.
    write_sealed(one.folder / ENDED, {"summary": summary, "files": file_hashes(one.folder, *_outputs(one))})
    remove(one.folder / CHECKPOINTS)
    return _outputs(one), summary


def _trainer(one: Fit, counted: dict[str, int]) -> DistilTrainer:
    arguments = training_arguments(one.training, one.key, one.folder / CHECKPOINTS, one.seed, one.keep)
    name_run(arguments, tracked_run(one.run_folder, one.folder, one.training))
    teachers = one.teaching.get("teacher", ())
    beside = [*(teachers.values() if isinstance(teachers, Mapping) else teachers)]
    beside += one.teaching.get("rollout_teacher", ())
    check_memory(one.start, beside, arguments, one.key)
    if arguments.gradient_checkpointing and counted["trained_parameters"] < counted["parameters"]:
        # Reentrant gradient checkpointing gives no gradients if no input of a block needs one.
        one.start.enable_input_require_grads()
    # `HashCheckpoints` deletes the older checkpoints instead of transformers.
    hashing = HashCheckpoints(arguments.save_total_limit)
    arguments.save_total_limit = None
    trainer = DistilTrainer(
        model=one.start,
        args=arguments,
        train_dataset=one.data.train,
        eval_dataset=one.data.validation if one.keep == "best" else None,
        data_collator=one.data.collate,
        processing_class=one.tokenizer,
        losses=one.losses,
        teacher_tokenizer=one.teacher_tokenizer,
        **one.teaching,
    )
    trainer.rollout_folder = one.folder
    trainer.add_callback(hashing)
    trainer.add_callback(LogProgress(one.folder / PROGRESS))
    if isinstance(one.data.train, RandomOffsets):
        trainer.add_callback(MoveOffsets(one.data.train))
    if one.snapshots is not None:
        trainer.add_callback(KeepSnapshots(trainer, one.folder, one.snapshots, one.finish_snapshot))
        trainer.add_callback(WriteTexts(trainer, one.folder / PROGRESS, one.snapshots, one.data.train))
    return trainer


def _summary(trainer: DistilTrainer, counted: dict[str, int]) -> dict[str, Any]:
    state = trainer.state
    steps = f"{state.global_step:,} steps"
    summary = {"steps": state.global_step, "tokens": state.num_input_tokens_seen, **counted, "made": steps}
    if trainer.rollout_watch is not None and trainer.rollout_watch.ended is not None:
        return summary | {"kept_step": state.best_global_step, "ended_early": trainer.rollout_watch.ended}
    if trainer.args.load_best_model_at_end:
        best = {"kept_step": state.best_global_step, "validation_loss": state.best_metric}
        summary |= best | {"made": f"{steps}, step {state.best_global_step:,} kept"}
    return summary


def _outputs(one: Fit) -> list[Path]:
    others = [one.folder / name for name in (SNAPSHOTS, ROLLOUTS, PREFLIGHT)]
    return [one.student, one.folder / "log.jsonl", *(path for path in others if path.exists())]


def _parameter_counts(model: PreTrainedModel) -> dict[str, int]:
    """The number of weights of a model, adapter included, and the number of trained weights."""
    if hasattr(model, "get_nb_trainable_parameters"):
        # Peft counts two 4-bit weights in each byte.
        trained, every = model.get_nb_trainable_parameters()
        return {"parameters": every, "trained_parameters": trained}
    sizes = [(weight.numel(), weight.requires_grad) for weight in model.parameters()]
    return {
        "parameters": sum(size for size, _ in sizes),
        "trained_parameters": sum(size for size, trained in sizes if trained),
    }


def _train(trainer: DistilTrainer, checkpoint: Path | None, title: str) -> None:
    stop = StopAtStepEnd()
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(EvaluateLastStep())
    trainer.add_callback(stop)
    with ExitStack() as bars, stop.listening():
        trainer.add_callback(ShowProgress(title, bars))
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if stop.stop_requested:
        raise KeyboardInterrupt
