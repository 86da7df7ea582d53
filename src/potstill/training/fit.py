"""Fitting: one training in a step's folder, which a stop cannot harm: it goes on from its last checkpoint to the same
weights."""

import json
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

from transformers import (
    PreTrainedModel,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from potstill import distributed
from potstill.console import Advance, progress, say, size
from potstill.data.random_offsets import RandomOffsets
from potstill.errors import UserError
from potstill.files.atomic import check_room, read_json, remove, write_json
from potstill.losses.hidden_states import HiddenLoss
from potstill.losses.loss import Loss
from potstill.pipeline import artifacts
from potstill.pipeline.graph import Made, Work
from potstill.pipeline.training_data import Lessons
from potstill.recipe.distil import KeptSnapshots
from potstill.training.arguments import DEFAULTS, training_arguments
from potstill.training.snapshots import SNAPSHOTS, place
from potstill.training.trainer import DistilTrainer

CHECKPOINTS, ENDED = "checkpoints", "ended.json"

Finish = Callable[[Path], None]
"""What is done to a folder of weights before it is what it becomes."""


def fit(
    work: Work,
    start: PreTrainedModel,
    learned: Lessons,
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
    checkpoints, partial = work.folder / CHECKPOINTS, work.folder / f".{saved_as}.partial"
    if distributed.is_first():
        remove(partial)
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
        trainer.add_callback(_MoveOffsets(learned.train))
    if snapshots is not None:
        trainer.add_callback(_KeepSnapshots(trainer, work.folder, snapshots, tidy))
    last = last_whole_checkpoint(checkpoints)
    if last is not None:
        say(f"  goes on from {last.name}")
        _find_best_here(last)
    _train(trainer, last, f"training {work.step}")

    trainer.save_model(str(partial))
    if not distributed.is_first():
        return Made([], {})
    if finish is not None:
        finish(partial)
    remove(student)
    partial.rename(student)
    remove(student / "training_args.bin")
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


def _bytes_saved(model: Any) -> int:
    """What a model's weights take on the disk; of one with an adapter, the adapter's alone."""
    weights = (weight for weight in model.parameters() if weight.requires_grad or not hasattr(model, "peft_config"))
    return sum(weight.numel() * weight.element_size() for weight in weights)


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


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end: transformers writes the trainer's state last."""
    whole = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json") if _is_json(path)]
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _find_best_here(checkpoint: Path) -> None:
    """A training remembers where its best weights lie; the run may have been moved since."""
    file = checkpoint / "trainer_state.json"
    state = read_json(file)
    if distributed.is_first() and state and state.get("best_model_checkpoint"):
        here = checkpoint.parent / Path(state["best_model_checkpoint"]).name
        write_json(file, state | {"best_model_checkpoint": str(here)})
    distributed.wait()


def _is_json(file: Path) -> bool:
    try:
        return read_json(file) is not None
    except ValueError:
        return False


def _train(trainer: DistilTrainer, checkpoint: Path | None, what: str) -> None:
    stop = _StopAtStepEnd()
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_JudgeTheLast())
    trainer.add_callback(stop)
    with ExitStack() as shown, stop.listening():
        trainer.add_callback(_ShowProgress(what, shown))
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if stop.asked:
        raise KeyboardInterrupt


class _StopAtStepEnd(TrainerCallback):
    """Turns the first Ctrl-C, or a scheduler's SIGTERM, into a checkpoint at the end of the step; the second stops."""

    asked = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        def ask(number: int, frame: object) -> None:
            if self.asked:
                raise KeyboardInterrupt
            self.asked = True
            say("\n  stopping: a checkpoint is written at the end of this step")

        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        # A signal reaches ranks at different steps; all must stop after the same one.
        self.asked = distributed.any_of(self.asked)
        if self.asked:
            control.should_save = control.should_training_stop = True
        return control


class _JudgeTheLast(TrainerCallback):
    """Where weights are chosen, the last ones are measured too, whatever step they come to."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        if args.load_best_model_at_end and state.global_step >= state.max_steps:
            control.should_evaluate = True
        return control


class _KeepSnapshots(TrainerCallback):
    """Saves the weights after some of the steps, each under another name until it is whole."""

    def __init__(self, trainer: DistilTrainer, training: Path, wanted: KeptSnapshots, tidy: Finish | None) -> None:
        self._trainer, self._training, self._wanted, self._tidy = trainer, training, wanted, tidy
        self._steps: set[int] = set()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._steps = set(self._wanted.steps(state.max_steps))
        if coming := sum(step > state.global_step for step in self._steps):
            each = _bytes_saved(self._trainer.model)
            say(f"  keeps {coming} snapshots of {size(each)} each")
            check_room(self._training, coming * each, "keep fewer of `distil.snapshots`")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step not in self._steps:
            return
        folder = place(self._training, state.global_step)
        partial = folder.with_name(f".{folder.name}.partial")
        if distributed.is_first():
            remove(partial)
        # Of a model in shards, every rank has a part.
        self._trainer.save_model(str(partial))
        if not distributed.is_first():
            return
        if self._tidy is not None:
            self._tidy(partial)
        remove(partial / "training_args.bin")
        # A training that goes on from an earlier step comes by here again.
        remove(folder)
        partial.rename(folder)


class _MoveOffsets(TrainerCallback):
    """Tells samples with random offsets which epoch it is."""

    def __init__(self, samples: RandomOffsets) -> None:
        self._samples = samples

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # Epochs are counted in fractions; at the beginning of one, the sum of them may lie a hair below it.
        self._samples.set_epoch(int((state.epoch or 0) + 1e-6))


class _ShowProgress(TrainerCallback):
    """Steps done, rate and time left, until `shown` is closed."""

    def __init__(self, what: str, shown: ExitStack) -> None:
        self._what, self._shown = what, shown
        self._advance: Advance = lambda units: None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        showing = progress(self._what, state.max_steps, "steps", done=state.global_step)
        self._advance = self._shown.enter_context(showing)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._advance(1)
