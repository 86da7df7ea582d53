"""SampleTrainer: a Trainer that reads samples of text or tokens, and whose evaluation loss is a mean over tokens."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.trainer_utils import EvalLoopOutput

from potstill.data.collators import Collate, FittingCollator, SharedVocabularyCollator, pad_token_id
from potstill.data.conversations.across import OtherReaders, OtherTeacher
from potstill.data.labels import count_supervised
from potstill.data.positions import PADS, PositionsCollator
from potstill.data.prompts.collator import SampleCollator
from potstill.data.row_teachers import TEACHERS
from potstill.data.sample_columns import DOCUMENT_COLUMNS
from potstill.data.text_of_batch import TextCollator
from potstill.data.text_samples import TextReader
from potstill.data.turns_of_batch import PIECES, TurnsCollator, ends_of_turns
from potstill.errors import UserError
from potstill.models.document_attention import check_documents_are_isolated, model_inputs
from potstill.models.size import positions_of
from potstill.recipe.conversations import ChatSettings
from potstill.recipe.section import MOST_AT_ONCE
from potstill.targets import TargetStore
from potstill.targets.collator import TargetCollator
from potstill.targets.span_collator import SpanCollator
from potstill.targets.turn_collator import CapturedTurnsCollator
from potstill.teachers.across_tokenizers import TeacherAcross
from potstill.teachers.beside import TeacherBeside
from potstill.teachers.captured_spans import CapturedSpans
from potstill.teachers.vocabulary_agreement import head_rows
from potstill.training.chat_samples import are_chats, chat_samples, chat_settings
from potstill.training.evaluation_loss import TokenMean, row_losses
from potstill.training.rank_batches import STAND_IN, EvenStream, even_out
from potstill.training.rollout_turns import NO_END, AnswerSide, RolloutTurns
from potstill.training.samples import (
    COLUMNS,
    OneDocumentCollator,
    check_collator,
    first_samples,
    is_own,
    is_streamed,
    name_documents,
)
from potstill.training.taught_rows import EachReadingCollator, TaughtRows, TaughtRowsCollator, without_teachers
from potstill.training.teaching import Teaching
from potstill.training.text_alignment import measure_texts

TYPICAL_LENGTH = 512
"""The assumed number of tokens of a sample where none is known before the training."""

FOR_TEACHERS = (
    *(TargetCollator, TaughtRowsCollator, EachReadingCollator),
    *(TextCollator, TurnsCollator, SpanCollator, CapturedTurnsCollator),
)
"""Collators that add what teachers read or have said to the batches of `collate`."""

OtherCollator = TextCollator | TurnsCollator | SpanCollator | CapturedTurnsCollator
"""A collator for one teacher of another tokenizer."""

_DATA_SETS = {"Training": "train_dataset", "Evaluation": "eval_dataset"}
"""The arguments of data sets, by what transformers calls a loader."""


class SampleTrainer(Trainer):
    """The part of :class:`DistilTrainer` that reads samples. It knows no losses but that of an evaluation.

    A subclass sets `teachers`, `teaching` and `vocabulary`, and then calls `_read_samples`.
    """

    data_collator: Any
    train_dataset: Any
    eval_dataset: Any
    teachers: list[TeacherBeside | TargetStore]
    teaching: Teaching
    taught: TaughtRows | None
    """Which rows each teacher reads; None where each reads all of them."""
    vocabulary: int | None
    """The number of ids that the losses compare; None: all of the head's."""
    _head_is_extracted: bool
    _chats: ChatSettings | None
    """How conversations become samples; None where the user's own collator reads them."""
    _tokens_per_step: int | None = None
    _tokens_not_shared: int = 0
    """Tokens that this rank read and the training's state does not count yet."""

    def _teachers_beside(self) -> list[TeacherBeside]:
        return [one for one in self.teachers if not isinstance(one, TargetStore)]

    def _read_samples(
        self, given: Collate | None, max_length: int | None, conversations: Mapping[str, Any] | None
    ) -> None:
        """Choose the collator, and try it on the first samples of each data set, before anything is spent.

        Args:
            given: the user's own collator.
            max_length: the length to which texts are cut.
            conversations: how conversations become samples.
        """
        collate: Collate = given or self._sample_collator(max_length)
        longest = self._max_length(max_length) or self._positions or MOST_AT_ONCE
        self._chats = None if given is not None else chat_settings(conversations, longest)
        self._render_training_samples()
        several = isinstance(self.eval_dataset, dict)
        evaluated = self.eval_dataset.items() if several else [("eval_dataset", self.eval_dataset)]
        rendered = {name: self._rendered(dataset, name) for name, dataset in evaluated}
        self.eval_dataset = rendered if several else rendered["eval_dataset"]
        # Its samples are checked column by column, which Trainer would remove before.
        self._keeps_columns = isinstance(collate, SampleCollator)
        shared, owners = self.vocabulary, "student and teacher share"
        if shared is None:
            shared, owners = head_rows(self.model), "the student has"
        read = [one for one in self._teachers_beside() if not isinstance(one, TeacherAcross | CapturedSpans)]
        limits = [positions_of(one.config.get_text_config()) for one in read]
        teacher = min((limit for limit in limits if limit is not None), default=None)
        fitting = FittingCollator(collate, self._positions, teacher)
        collate = SharedVocabularyCollator(fitting, shared, owners)
        for_teachers = self._for_teachers(collate)
        for name, dataset in {"train_dataset": self.train_dataset, **rendered}.items():
            samples = first_samples(dataset, name)
            if self.taught is not None and name == "train_dataset":
                for sample in samples:
                    self.taught.group_of(sample)
            samples = [without_teachers(sample) for sample in samples] if self.taught is not None else samples
            if given is not None and self.args.remove_unused_columns:
                samples = [{key: sample[key] for key in sample if key in COLUMNS} for sample in samples]
            if given is not None:
                check_collator(given, samples)
            if samples:
                # No teacher reads the samples of an evaluation.
                self._try((for_teachers if name == "train_dataset" else collate)(samples), samples, name)
        if given is None and not self._pieces_are_compared:
            measure_texts(self.train_dataset, self._text_field, self._others, self.teaching.names)

    def _for_teachers(self, collate: Collate) -> Collate:
        """Choose the collator that adds what the teachers read, or what they have said, to the batches of another.

        Args:
            collate: the other collator.

        Returns:
            The collator that training samples without the names of teachers are tried with.
        """
        others = {index: self._other_reading(index, collate) for index in self._others}
        stores = {index: one for index, one in enumerate(self.teachers) if isinstance(one, TargetStore)}
        self.taught = None
        if self.teaching.names is not None:
            self.taught = TaughtRows(self.teaching.names, stores, others, always=self.is_fsdp_enabled)
            self.data_collator = TaughtRowsCollator(collate, self.taught)
        elif others:
            first, *rest = others.values()
            collate = EachReadingCollator(collate, tuple(others.values())) if rest else first
            self.data_collator = collate
        else:
            self.data_collator = TargetCollator(collate, stores) if stores else collate
        return collate

    @cached_property
    def _others(self) -> dict[int, TeacherAcross | CapturedSpans]:
        """The teachers of another tokenizer, by number."""
        kinds = TeacherAcross | CapturedSpans
        return {index: one for index, one in enumerate(self.teachers) if isinstance(one, kinds)}

    @property
    def _logits_of_token(self) -> int:
        """The logits that the losses read for a token, those of teachers of another tokenizer included."""
        return head_rows(self.model) + sum(one.embeddings for one in self._others.values())

    def _other_reading(self, index: int, collate: Collate) -> OtherCollator:
        teacher = self._others[index]
        if self._pieces_are_compared:
            return teacher.turns(collate, index)
        return teacher.collator(collate, self._text_field)

    def _render_training_samples(self) -> None:
        """Render the training samples, if they are conversations and are not rendered yet."""
        if self._others and self._chats is not None and are_chats(self.train_dataset, "train_dataset"):
            self.train_dataset = self._read_by_all()
        else:
            self.train_dataset = self._rendered(self.train_dataset, "train_dataset")
        if self._pieces_are_compared:
            self._match_ends(self._others)

    def _match_ends(self, teachers: Mapping[int, TeacherAcross | CapturedSpans]) -> None:
        """Tell teachers of another tokenizer, given by number, which token ends a turn."""
        ours, theirs = self._ends_of_turns
        if ours is not None:
            for index, one in teachers.items():
                one.match_ends(ours, theirs[index])

    @cached_property
    def _ends_of_turns(self) -> tuple[int | None, dict[int, int | None]]:
        """The student's token that ends a turn, and that of each teacher of another tokenizer, by number; None where
        no whole turn is compared."""
        found = {index: ends_of_turns(self.train_dataset, index) for index in self._others}
        # The student's token is one and the same.
        ours = next((ends[0] for ends in found.values() if ends is not None), None)
        return ours, {index: None if ends is None else ends[1] for index, ends in found.items()}

    def _rollout_turns(self, readers: Mapping[int, TeacherAcross]) -> RolloutTurns:
        """What teachers of other tokenizers, given by number, read of an answer that the student writes to a training
        sample."""
        (first, *_), (ours, theirs) = first_samples(self.train_dataset, "train_dataset"), self._ends_of_turns
        ends = {index: NO_END if end is None else end for index, end in theirs.items()}
        teachers = [AnswerSide(one.theirs, ends[index], one.longest) for index, one in readers.items()]
        student = AnswerSide(next(iter(readers.values())).ours, NO_END if ours is None else ours)
        return RolloutTurns(student, teachers, is_apart="answer_start" in first)

    @cached_property
    def _pieces_are_compared(self) -> bool:
        """Whether teachers of another tokenizer read turns or answers, each after a prompt of its own."""
        # A control learns from the same samples without a teacher.
        samples = first_samples(self.train_dataset, "train_dataset") if self._others else []
        return any(PIECES in one for one in samples)

    def _read_by_all(self) -> list[dict[str, Any]]:
        """The training conversations as samples that the teachers of other tokenizers read, too.

        Raises:
            UserError: a conversation cannot be rendered.
        """
        assert self._chats is not None
        ours = next(iter(self._others.values())).ours
        teachers = [OtherTeacher(one.theirs, one.longest) for one in self._others.values()]
        readers = OtherReaders(ours, teachers, self.teaching.names)
        return chat_samples(self.train_dataset, self.processing_class, self._chats, "train_dataset", readers)

    def _rendered(self, dataset: Any, name: str) -> Any:
        """A data set of conversations as samples of tokens; any other stays as it is."""
        if self._chats is None or not are_chats(dataset, name):
            return dataset
        return chat_samples(dataset, self.processing_class, self._chats, name)

    @property
    def _positions(self) -> int | None:
        return positions_of(self.model.config.get_text_config())

    def _try(self, batch: Mapping[str, Tensor], samples: list[Mapping[str, Any]], name: str) -> None:
        if name_documents(batch, samples) and self._documents_refusal is not None:
            raise UserError(self._documents_refusal)
        if name == "train_dataset" and not count_supervised(batch):
            raise UserError(
                f"the first {len(samples)} samples of `train_dataset` have no token to learn; correct their labels or "
                "masks (`assistant_masks` are all 0 where a chat template does not mark its answers)"
            )

    def _sample_collator(self, max_length: int | None) -> SampleCollator:
        pad = 0 if self.processing_class is None else pad_token_id(self.processing_class)
        length = self._max_length(max_length)
        return SampleCollator(pad, TextReader(self.processing_class, self._text_field, length, self._positions))

    @property
    def _text_field(self) -> str:
        return getattr(self.args, "dataset_text_field", "text")

    def _max_length(self, given: int | None) -> int | None:
        return getattr(self.args, "max_length", None) if given is None else given

    @cached_property
    def _documents_refusal(self) -> str | None:
        """Why rows of several documents are refused; None where all models keep documents apart."""
        try:
            check_documents_are_isolated(self.model, "student")
            for one in self._teachers_beside():
                one.check_documents()
        except UserError as error:
            return str(error)
        return None

    def _set_signature_columns_if_needed(self) -> None:
        # Trainer keeps only the arguments of the student's forward. Without `labels`, prompts would be learned.
        self._signature_columns = [*COLUMNS, *([] if self.taught is None else [TEACHERS])]

    def _remove_unused_columns(self, dataset: Any, description: str | None = None) -> Any:
        return dataset if self._keeps_columns else super()._remove_unused_columns(dataset, description)

    def _get_collator_with_removed_columns(self, data_collator: Any, description: str | None = None) -> Any:
        if self._keeps_columns:
            return data_collator
        return super()._get_collator_with_removed_columns(data_collator, description)

    def _get_dataloader(self, dataset: Any, description: str, *args: Any, **kwargs: Any) -> DataLoader:
        """As Trainer's. Only training samples have captured targets.

        Raises:
            UserError: samples of an evaluation on several ranks are streamed.
        """
        if is_streamed(dataset) and not kwargs.get("is_training") and self.args.world_size > 1:
            raise UserError(
                f"evaluation samples are streamed, and {self.args.world_size} ranks would count some of them twice; "
                "give a list or a table, such as `Dataset.from_list(list(stream))`"
            )
        # An evaluation may be given a data set of its own.
        dataset = self._rendered(dataset, _DATA_SETS.get(description, "test_dataset"))
        given: Any = self.data_collator
        collate: Any = given
        if isinstance(given, FOR_TEACHERS) and not kwargs.get("is_training"):
            collate = given.collate
        samples = first_samples(dataset, _DATA_SETS.get(description, "test_dataset"))
        named = any(sample.get(name) is not None for sample in samples for name in DOCUMENT_COLUMNS)
        # Of streams and of the user's own collators it is not known whether rows will have several documents.
        if (named or is_streamed(dataset) or not is_own(given)) and self._documents_refusal is not None:
            collate = OneDocumentCollator(collate, self._documents_refusal)
        if is_streamed(dataset):
            # accelerate would else cut batches by their first dimension, which captured targets do not share, and join
            # the batches of ranks, which have different lengths.
            self.accelerator.dataloader_config.dispatch_batches = False
        shared = kwargs.get("is_training") and self.args.world_size > 1
        if shared and is_streamed(dataset):
            dataset = EvenStream(dataset, self.args.train_batch_size * self.args.world_size)
        self.data_collator = self._loader_collator(PositionsCollator(collate), bool(kwargs.get("is_training")))
        try:
            loader = super()._get_dataloader(dataset, description, *args, **kwargs)
        finally:
            self.data_collator = given
        return even_out(loader, self.args.world_size) if shared else loader

    def _loader_collator(self, collate: Collate, is_training: bool) -> Collate:
        """The collator of a loader, which a subclass may change."""
        return collate

    def _track_num_input_tokens(self, inputs: Mapping[str, Any]) -> None:
        """As Trainer's, without its wait for the device in each micro-batch; ranks add their counts up at a log."""
        if STAND_IN in inputs:
            inputs = {name: value[:0] for name, value in inputs.items() if name != STAND_IN and torch.is_tensor(value)}
        if self.args.include_num_input_tokens_seen != "non_padding" or PADS not in inputs:
            return super()._track_num_input_tokens(inputs)
        self._tokens_not_shared += inputs["input_ids"].numel() - len(inputs[PADS])
        return None if self.args.world_size > 1 else self._share_tokens_seen()

    def _share_tokens_seen(self) -> None:
        """Add the tokens that all ranks read to the training's state."""
        own, self._tokens_not_shared = self._tokens_not_shared, 0
        if self.args.world_size > 1:
            own = int(self.accelerator.gather(torch.full((1,), own, device=self.args.device)).sum())
        self.state.num_input_tokens_seen += own

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As Trainer's. The logs of a step and of the end count the tokens of all ranks."""
        if "loss" in logs or "train_runtime" in logs:
            self._share_tokens_seen()
        super().log(logs, start_time)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self._share_tokens_seen()
        super()._save_checkpoint(model, trial)

    def _estimate_tokens_per_step(self) -> int:
        """The approximate number of tokens of an optimizer step, on all ranks together."""
        if self._tokens_per_step is None:
            ids = [sample.get("input_ids") for sample in first_samples(self.train_dataset, "train_dataset")]
            length = len(ids[0]) if ids and ids[0] is not None else TYPICAL_LENGTH
            batch = self.args.train_batch_size * self.args.gradient_accumulation_steps
            self._tokens_per_step = batch * length * self.args.world_size
        return self._tokens_per_step

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """As Trainer's, with the mean loss over all supervised tokens. There is no loss where no token is supervised.

        Raises:
            UserError: no token is supervised, and the result is not a prediction but an evaluation.
        """
        self._evaluated = TokenMean()
        output = super().evaluation_loop(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        loss = self._evaluated.value()
        if loss is not None:
            output.metrics[f"{metric_key_prefix}_loss"] = loss
        elif description == "Evaluation":
            raise UserError(
                f"the samples of `{metric_key_prefix}_loss` have no token to learn, so there is no loss to measure; "
                "give `eval_dataset` samples whose labels or masks leave some tokens"
            )
        else:
            output.metrics.pop(f"{metric_key_prefix}_loss", None)
        return output

    def prediction_step(
        self, model: Any, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The mean loss of one batch; for `compute_metrics` and `predict` also its whole logits and its labels."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.accelerator.autocast():
            losses, tokens = row_losses(model, self._head_is_extracted, inputs, self.vocabulary)
            # This drops the samples that fill up the last batch of the ranks.
            self._evaluated.add(*self.accelerator.gather_for_metrics((losses, tokens)))
            loss = (losses.sum() / tokens.sum().clamp(min=1)).float()
            if prediction_loss_only:
                return loss, None, None
            return loss, model(**model_inputs(inputs), use_cache=False).logits, inputs["labels"]
