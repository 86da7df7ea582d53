"""Aligned samples: one answer behind two prompts, and batches of them for student and teacher."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NotRequired, TypedDict

import numpy as np
from torch import Tensor

from potstill.data.collators import Collator
from potstill.data.labels import IGNORE_INDEX, supervised_mask
from potstill.data.sample_columns import MASKS, TOKEN_COLUMNS, check_columns, column, read_sample
from potstill.data.text_samples import TextReader
from potstill.errors import UserError

TEACHER = "teacher_"
"""The prefix of the teacher's columns in a batch."""


class AlignedSample(TypedDict):
    """One answer behind two prompts: ``input_ids[answer_start:] == teacher_input_ids[teacher_answer_start:]``."""

    id: str
    """The id of the question."""
    input_ids: list[int]
    """The student's prompt and the answer."""
    labels: list[int]
    """The answer's tokens at their positions in ``input_ids``; the prompt's positions are ignored."""
    answer_start: int
    teacher_input_ids: list[int]
    """The teacher's prompt and the answer."""
    teacher_answer_start: int
    teacher_labels: NotRequired[list[int]]
    """The answer's tokens at their positions in ``teacher_input_ids``, where they are not all that follows
    `teacher_answer_start`, as in a conversation of several turns."""
    answer_cut: int
    """The number of tokens cut off the answer, its end token included; 0 for a whole answer."""


@dataclass(frozen=True)
class AlignedCollator:
    """Pads aligned samples: the student's tokens to their own longest row, and the teacher's tokens to theirs.

    The batch has the student's `input_ids`, `attention_mask` and `labels`, Int[B, T]. It has the same three for the
    teacher with the prefix `teacher_`, Int[B, T']; :func:`teacher_batch` takes these out. With pads on the left, both
    also have `position_ids`, so that a model with absolute positions computes the same as without pads.

    Args:
        pad_token_id: an id that both models know.
        side: the side of the pads.
        same_answer: whether both models read the same answer. False for placebos, whose teacher is asked another
            question (:func:`placebo_samples`).

    Raises:
        UserError: teacher and student have different supervised tokens in a sample; or, without `same_answer`,
            different numbers of them.
    """

    pad_token_id: int
    side: Literal["left", "right"] = "right"
    same_answer: bool = True

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """The samples as one batch."""
        student = self._padded([_as_the_student_reads(one) for one in samples])
        teacher = self._padded([as_the_teacher_reads(one) for one in samples])
        _check_same_answers(student, teacher, self.same_answer)
        return student | {f"{TEACHER}{name}": value for name, value in teacher.items()}

    def _padded(self, rows: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, Tensor]:
        collate = Collator(self.pad_token_id)
        if self.side == "right":
            return collate([{"input_ids": ids, "labels": labels} for ids, labels in rows])
        backwards = collate([{"input_ids": ids[::-1], "labels": labels[::-1]} for ids, labels in rows])
        batch = {name: value.flip(1) for name, value in backwards.items()}
        return batch | {"position_ids": (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)}


@dataclass(frozen=True)
class SampleCollator:
    """Collates what the samples of each batch are: texts, tokens, or aligned samples.

    Raises:
        UserError: a batch has both aligned and other samples, or columns that mean something and are not read.
    """

    pad_token_id: int
    read: TextReader

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """The samples as one batch."""
        tokenized = [self.read(sample) for sample in samples]
        check_columns(tokenized, (*TOKEN_COLUMNS, *AlignedSample.__annotations__))
        aligned = [sample.get("teacher_input_ids") is not None for sample in tokenized]
        if any(aligned) and not all(aligned):
            raise UserError(
                "some samples have `teacher_input_ids` and some have not; give all samples the tokens that their "
                "teacher reads"
            )
        return (AlignedCollator if any(aligned) else Collator)(self.pad_token_id)(tokenized)


def teacher_batch(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The teacher's columns of a batch, without their prefix; the student's columns if the teacher has none."""
    own = {name.removeprefix(TEACHER): value for name, value in batch.items() if name.startswith(TEACHER)}
    return own or dict(batch)


def as_the_teacher_reads(sample: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """The teacher's tokens of a sample and their labels; labels of its prompt are ignored."""
    ids, labels = column(sample, "teacher_input_ids"), column(sample, "teacher_labels")
    assert ids is not None
    if labels is not None:
        return ids, labels
    start = _start(sample, "teacher_answer_start")
    return ids, _answer_alone(ids, start)


def _as_the_student_reads(sample: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """The student's tokens of a sample and their labels."""
    read = read_sample(sample)
    if read.positions is not None:
        raise UserError("a sample has both `teacher_input_ids` and documents; give one question in each sample")
    if not read.real.all():
        raise UserError("a sample has both `teacher_input_ids` and pads; leave the pads out")
    if any(sample.get(name) is not None for name in ("labels", *MASKS)):
        return read.ids, read.labels
    start = _start(sample, "answer_start")
    return read.ids, _answer_alone(read.labels, start)


def _answer_alone(labels: np.ndarray, start: int) -> np.ndarray:
    """Labels of which those before the answer are ignored."""
    return np.where(np.arange(len(labels)) < start, IGNORE_INDEX, labels)


def _start(sample: Mapping[str, Any], name: str) -> int:
    """The place at which the answer begins."""
    if sample.get(name) is None:
        raise UserError(
            f"a sample has `teacher_input_ids` but no `{name}`, the place of the answer's first token; add it"
        )
    return int(sample[name])


def _check_same_answers(student: Mapping[str, Tensor], teacher: Mapping[str, Tensor], same_answer: bool) -> None:
    """Check that both sides of each row have the same supervised tokens, or at least equally many."""
    for index, (ours, theirs) in enumerate(zip(_answers(student), _answers(teacher), strict=True)):
        if ours == theirs or (not same_answer and len(ours) == len(theirs)):
            continue
        at = next((at for at, (one, other) in enumerate(zip(ours, theirs, strict=False)) if one != other), None)
        differ = (
            f"{len(ours)} supervised tokens for the student and {len(theirs)} for the teacher"
            if at is None
            else f"{ours[at]} as supervised token {at} for the student and {theirs[at]} for the teacher"
        )
        raise UserError(f"sample {index} of a batch has {differ}: the two are not aligned; make the samples again")


def _answers(batch: Mapping[str, Tensor]) -> list[list[int]]:
    """The labels of each row's supervised tokens."""
    rows = zip(batch["labels"], supervised_mask(batch), strict=True)
    return [labels[1:][taught[:-1]].tolist() for labels, taught in rows]
