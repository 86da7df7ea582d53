"""distil: train the student from its teachers, once for each seed.

Makes `distil/seed-N/student/`, a plain Hugging Face folder, and `log.jsonl`; `distil/student` points at the first
seed's. A training that was stopped goes on from its last checkpoint, to the same weights.
"""

import json
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from datasets import load_from_disk
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from potstill import ranks
from potstill.console import Advance, progress, say
from potstill.files import read_json, remove, write_json
from potstill.losses.hidden import HiddenLoss
from potstill.losses.terms import Loss
from potstill.pipeline import Made, Work
from potstill.recipe import Recipe
from potstill.recipe.distil import HiddenMatch
from potstill.stages.capture import provenance
from potstill.stages.teachers import compared_vocabulary, prepared
from potstill.targets import TargetStore
from potstill.text.batching import Collator, pad_token_id
from potstill.trainer import DistilTrainer, Teacher
from potstill.training import training_arguments

CHECKPOINTS, ENDED = "checkpoints", "ended.json"


def run(work: Work) -> Made:
    """Train the student of one seed."""
    recipe = work.recipe
    made = train(
        work,
        recipe.distil.training,
        "distil.training",
        losses_of(recipe),
        teacher=teachers_of(work),
        teacher_weights=[teacher.weight for teacher in recipe.teachers.values()],
        mix=recipe.distil.mix,
    )
    if work.step.seed == recipe.seeds[0] and ranks.is_first():
        link = work.folder.parent / "student"
        remove(link)
        link.symlink_to(Path(work.folder.name) / "student", target_is_directory=True)
    return made


def losses_of(recipe: Recipe) -> list[Loss | HiddenLoss]:
    """The recipe's losses as the trainer takes them."""
    return [
        HiddenLoss(**loss.model_dump(exclude={"kind"})) if isinstance(loss, HiddenMatch) else Loss(**loss.model_dump())
        for loss in recipe.distil.losses
    ]


def teachers_of(work: Work) -> list[Teacher]:
    """What was captured of each teacher, or, where the recipe captures nothing, the teachers themselves."""
    teachers = prepared(work)
    if work.recipe.capture is None:
        return [teacher.model() for teacher in teachers]
    folder = work.run.path("capture")
    return [TargetStore(folder / teacher.name, expect=provenance(teacher)) for teacher in teachers]


def train(work: Work, training: dict[str, Any], key: str, losses: Sequence[Loss | HiddenLoss], **teaching: Any) -> Made:
    """Train the student's start on the corpus, or go on training it, and save what it became.

    Args:
        work: the step, which has a seed.
        training: the fields of `TrainingArguments`.
        key: where they stand in the recipe, for messages.
        losses: what is learned from.
        **teaching: what else :class:`DistilTrainer` takes.
    """
    assert work.step.seed is not None
    student, log, ended = work.folder / "student", work.folder / "log.jsonl", work.folder / ENDED
    if (summary := read_json(ended)) is not None:
        say("  had ended before it was stopped")
        return Made([student, log], summary)
    start, checkpoints = work.run.path("student") / "start", work.folder / CHECKPOINTS
    if ranks.is_first():
        remove(work.folder / ".student.partial")
    tokenizer = AutoTokenizer.from_pretrained(start)
    trainer = DistilTrainer(
        model=AutoModelForCausalLM.from_pretrained(start),
        args=training_arguments(training, key, checkpoints, work.step.seed),
        train_dataset=load_from_disk(work.run.path("corpus") / "train"),
        data_collator=Collator(pad_token_id(tokenizer)),
        processing_class=tokenizer,
        losses=losses,
        # The start has its teachers' tokenizer.
        teacher_tokenizer=None if compared_vocabulary(work) is None else tokenizer,
        **teaching,
    )
    last = last_whole_checkpoint(checkpoints)
    if last is not None:
        say(f"  goes on from {last.name}")
    _fit(trainer, last, f"training {work.step}")

    partial = work.folder / ".student.partial"
    trainer.save_model(str(partial))
    if not ranks.is_first():
        return Made([], {})
    remove(student)
    partial.rename(student)
    remove(student / "training_args.bin")
    points = [entry for entry in trainer.state.log_history if "loss" in entry]
    log.write_text("".join(json.dumps(point) + "\n" for point in points), encoding="utf-8")
    state = trainer.state
    summary = {
        "steps": state.global_step,
        "tokens": state.num_input_tokens_seen,
        "made": f"{state.global_step:,} steps",
    }
    # Before the checkpoints go: from here on, a stop costs nothing any more.
    write_json(ended, summary)
    remove(checkpoints)
    return Made([student, log], summary)


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end: transformers writes the trainer's state last."""
    whole = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json") if _is_json(path)]
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _is_json(file: Path) -> bool:
    try:
        return read_json(file) is not None
    except ValueError:
        return False


def _fit(trainer: DistilTrainer, checkpoint: Path | None, what: str) -> None:
    stop = _StopAtStepEnd()
    trainer.remove_callback(PrinterCallback)
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
        self.asked = ranks.any_of(self.asked)
        if self.asked:
            control.should_save = control.should_training_stop = True
        return control


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
