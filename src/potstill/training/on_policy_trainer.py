"""OnPolicyTrainer: a Trainer of whose samples the student writes some itself, before each optimizer step."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor

from potstill import distributed
from potstill.console import say
from potstill.data.collators import Collate, pad_token_id
from potstill.data.positions import PositionsCollator
from potstill.errors import UserError
from potstill.files.atomic import write_json
from potstill.losses.loss import Loss
from potstill.models.size import positions_of
from potstill.on_policy.evidence import PREFLIGHT
from potstill.on_policy.evidence import ROLLOUTS as ROLLOUTS_FILE
from potstill.on_policy.figures import StepFigures
from potstill.on_policy.rollouts import RolloutWriter
from potstill.targets import TargetStore
from potstill.teachers.across_tokenizers import TeacherAcross
from potstill.teachers.beside import TeacherBeside
from potstill.teachers.captured_spans import CapturedSpans
from potstill.training.mixed_batches import SAMPLES, KeepSamples, MixedBatches, parts_of
from potstill.training.on_policy_training import (
    OnPolicyTraining,
    rollout_losses,
    rollout_settings,
    rollout_teachers,
)
from potstill.training.preflight_measurement import PROMPTS, Readers, measure
from potstill.training.rollout_callbacks import WatchRollouts
from potstill.training.samples import is_streamed
from potstill.training.saving_trainer import SavingTrainer
from potstill.training.taught_rows import TaughtRowsCollator


class OnPolicyTrainer(SavingTrainer):
    """The part of :class:`DistilTrainer` that lets the student write samples. Without `on_policy`, it does nothing."""

    losses: list[Loss]
    rollout_watch: WatchRollouts | None = None
    on_policy: OnPolicyTraining | None = None
    """What a training with written samples keeps; None without them."""
    rollout_folder: Path
    """The folder in which the training leaves some written samples."""

    def _write_samples(self, given: Any, readers: Sequence[TeacherBeside | TargetStore]) -> None:
        """Prepare to let the student write.

        Args:
            given: the settings, as the trainer was given them.
            readers: the teachers of written samples, if they are not those of the other samples.

        Raises:
            UserError: this training cannot have written samples.
        """
        self.rollout_folder = Path(self.args.output_dir)
        settings = rollout_settings(given)
        if settings is None:
            return
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise UserError(
                "`on_policy` lets the student write, which needs its whole weights on each rank, and FSDP and "
                "DeepSpeed split them; train with DDP, or without `on_policy`"
            )
        if any(isinstance(one, CapturedSpans) for one in self.teachers):
            raise UserError(
                "`on_policy` needs a teacher that reads what the student writes, and spans are captured of texts; "
                "let the teacher run beside the student, or leave `on_policy` out"
            )
        losses, gradients = rollout_losses(settings, self.losses)
        teachers = rollout_teachers(self.teachers, readers)
        writer = RolloutWriter(self.model, self.processing_class, settings, self.args.seed, self.vocabulary)
        assert self.processing_class is not None
        collate = PositionsCollator(self.data_collator)
        batches = MixedBatches(settings, writer, collate, pad_token_id(self.processing_class), self.args.seed)
        batches.rank = self.args.process_index
        across = {index: one for index, one in enumerate(teachers) if isinstance(one, TeacherAcross)}
        limits = [positions_of(one.config.get_text_config()) for one in teachers if not isinstance(one, TeacherAcross)]
        batches.teacher_positions = min((limit for limit in limits if limit is not None), default=None)
        self._read_by_others(batches, across, collate)
        if self.taught is not None:
            batches.taught = replace(self.taught, stores={}, others=batches.others)
        figures, teaching = StepFigures(self.args.device), replace(self.teaching, teachers=teachers)
        self.on_policy = OnPolicyTraining(settings, losses, gradients, teaching, batches, figures)
        self.rollout_watch = WatchRollouts(self.on_policy)
        self.add_callback(self.rollout_watch)

    def _read_by_others(self, batches: MixedBatches, across: Mapping[int, TeacherAcross], collate: Collate) -> None:
        """Let teachers of other tokenizers, given by number, read what the student writes."""
        if not across:
            return
        batches.ours = next(iter(across.values())).ours
        if not self._pieces_are_compared:
            # How many tokens of such a teacher an answer has is not known before it is written.
            batches.others = {index: replace(one.collator(collate), cut=True) for index, one in across.items()}
            return
        batches.others = {index: one.turns(collate, index) for index, one in across.items()}
        # The readers of written answers may be others than those of the samples.
        self._match_ends({index: one for index, one in across.items() if one is not self._others.get(index)})
        batches.turns = self._rollout_turns(across)
        batches.turns.check(self.train_dataset)

    def _loader_collator(self, collate: Collate, is_training: bool) -> Collate:
        """The collator of a loader: batches of which some rows will be replaced keep their samples."""
        return KeepSamples(collate) if is_training and self.on_policy is not None else collate

    def _with_rollouts(self, batches: Any, options: Callable[[], Mapping[str, Any]]) -> Any:
        """The micro-batches of a step, some of whose rows the student has written now.

        Args:
            batches: those of the corpus.
            options: gives the options of every loss.
        """
        step = self.state.global_step
        if self.on_policy is None or not self.on_policy.is_active(step):
            return batches
        self.on_policy.options = options()
        batches = list(batches)
        if step == self.on_policy.settings.from_step and self.on_policy.settings.preflight != "off":
            self._check_before_writing(batches)
        return self.on_policy.mix(batches, step, self.state.max_steps, self.accelerator.autocast())

    def _check_before_writing(self, batches: Sequence[Mapping[str, Any]]) -> None:
        """Measure whether learning from written samples can work here.

        Raises:
            UserError: it cannot, by the figures, and the settings do not say to go on.
        """
        assert self.on_policy is not None
        if self.on_policy.batches.others:
            say("  pre-flight: not measured, because it compares token by token, and the teacher has other tokens")
            return
        found = distributed.broadcast(self._preflight(batches) if distributed.is_first() else None)
        if found is None:
            return
        say(f"  pre-flight: {found['sentence']}")
        if found["verdict"] != "go" and self.on_policy.settings.preflight == "refuse":
            raise UserError(
                f"{found['sentence']} So the student does not learn from its own answers: let it learn from the corpus "
                "for longer (`on_policy.from_step`), choose another teacher, or go on all the same by "
                "`on_policy.preflight: warn`, or by `--force distil`, which trains finished students anew, too"
            )

    def _preflight(self, batches: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
        assert self.on_policy is not None
        here, settings = self.on_policy, self.on_policy.settings
        if is_streamed(self.train_dataset):
            samples = [sample for batch in batches for sample in batch[SAMPLES].rows]
        else:
            order = torch.randperm(len(self.train_dataset), generator=torch.Generator().manual_seed(self.args.seed))
            samples = [self.train_dataset[at] for at in order[:PROMPTS].tolist()]
        readers = Readers(self.model, self._head_is_extracted, here.teaching, self.args.device, self.vocabulary)
        collate = self.data_collator
        if here.batches.taught is not None:
            # A group after the other, so that what teachers say is in the order of the samples.
            samples = [samples[row] for row in here.batches.taught_rows(samples)]
            samples.sort(key=here.batches.taught.group_of)
            collate = TaughtRowsCollator(collate.collate, here.batches.taught)
        with self.accelerator.autocast():
            found = measure(readers, here.batches, collate, samples, settings.from_step)
        if found is None:
            say("  pre-flight: too few prompts to measure anything")
            return None
        write_json(self.rollout_folder / PREFLIGHT, found.as_json())
        return found.as_json()

    def _timed(self, part: str, inputs: Mapping[str, Any]) -> AbstractContextManager[None]:
        return nullcontext() if self.on_policy is None else self.on_policy.timed(part, inputs)

    def _names_of_all_ranks(self, names: list[str]) -> list[str]:
        """The names of logged terms. A rank without a written sample, or a sample of some teacher, has fewer."""
        if (self.on_policy is None and self.taught is None) or self.args.world_size == 1:
            return names
        return sorted({name for each in gather_object([names]) for name in each})

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Forward and backward of one micro-batch, part by part. Returns the sum of the parts' losses."""
        *first, last = parts_of(inputs)
        total: Tensor | float = 0.0
        for part in first:
            # The gradients of ranks are joined once, in the last part: ranks may have different numbers of parts.
            with self.accelerator.no_sync(model):
                total = total + self._part_step(model, part, num_items_in_batch)
        return total + self._part_step(model, last, num_items_in_batch)

    def _part_step(self, model: Any, inputs: Mapping[str, Any], num_items_in_batch: Any) -> Tensor:
        with self._timed("step", inputs):
            return super().training_step(model, dict(inputs), num_items_in_batch)

    def _track_num_input_tokens(self, inputs: Mapping[str, Any]) -> None:
        for part in parts_of(inputs):
            super()._track_num_input_tokens(part)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with the figures of all ranks' written samples."""
        if "loss" in logs and self.on_policy is not None:
            logs |= self.on_policy.figures.as_log()
            self.on_policy.figures.clear()
        super().log(logs, start_time)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As Trainer's. At the end, some of the written samples are in a file."""
        if self.on_policy is not None:
            self.on_policy.begin()
        result = super().train(*args, **kwargs)
        if self.on_policy is not None and self.on_policy.evidence is not None and distributed.is_first():
            self.on_policy.evidence.save(self.rollout_folder / ROLLOUTS_FILE)
        return result

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        if self.on_policy is not None:
            self.on_policy.save(Path(output_dir), self.args.process_index)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if self.on_policy is not None and checkpoint is not None:
            self.on_policy.load(Path(checkpoint), self.args.process_index, self.state.max_steps)
