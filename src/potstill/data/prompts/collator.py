"""Prompted samples: one answer behind two prompts, and a batch of them for the student and for its teacher."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from torch import Tensor

from potstill.data.collators import Collator
from potstill.data.labels import IGNORE_INDEX, supervised_mask
from potstill.errors import UserError

TEACHER = "teacher_"
"""What the teacher's columns of a batch begin with."""


class Prompted(TypedDict):
    """A sample. ``input_ids[answer_start:] == teacher_input_ids[teacher_answer_start:]`` is its answer."""

    id: str
    """The question's."""
    input_ids: list[int]
    """What the student reads: its prompt, and the answer."""
    labels: list[int]
    """The answer's tokens where they stand in ``input_ids``; the prompt's are ignored."""
    answer_start: int
    teacher_input_ids: list[int]
    """What the teacher reads: its own prompt, and the answer."""
    teacher_answer_start: int
    answer_cut: int
    """So many tokens of the answer, its end token among them, were cut off; 0 for a whole answer."""


@dataclass(frozen=True)
class PromptedCollator:
    """Pads :class:`Prompted` samples, the student's tokens and the teacher's each to the longest of their own.

    The batch is the student's, `input_ids`, `attention_mask` and `labels`, Int[B, T], and beside it the teacher's under
    the same names with `teacher_` before them, Int[B, T']; :func:`teacher_batch` takes it out. Padded on the left, both
    have `position_ids` as well, so that a model whose positions are absolute reads what it reads without pads.

    Args:
        pad_token_id: an id that both models know.
        side: where the pads go.
        aligned: whether both read the same answer. Not so where the teacher is asked another question on purpose
            (:func:`of_another_question`).

    Raises:
        UserError: the supervised tokens of a sample are not the same for both, in the same order; or, not aligned,
            not as many.
    """

    pad_token_id: int
    side: Literal["left", "right"] = "right"
    aligned: bool = True

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """The samples as one batch."""
        student = self._padded([(list(one["input_ids"]), list(one["labels"])) for one in samples])
        teacher = self._padded([as_the_teacher_reads(one) for one in samples])
        _check_same_answers(student, teacher, self.aligned)
        return student | {f"{TEACHER}{name}": value for name, value in teacher.items()}

    def _padded(self, rows: Sequence[tuple[list[int], list[int]]]) -> dict[str, Tensor]:
        collate = Collator(self.pad_token_id)
        if self.side == "right":
            return collate([{"input_ids": ids, "labels": labels} for ids, labels in rows])
        backwards = collate([{"input_ids": ids[::-1], "labels": labels[::-1]} for ids, labels in rows])
        batch = {name: value.flip(1) for name, value in backwards.items()}
        return batch | {"position_ids": (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)}


def teacher_batch(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the teacher reads of a batch: its own columns, or the student's where it has none of its own."""
    own = {name.removeprefix(TEACHER): value for name, value in batch.items() if name.startswith(TEACHER)}
    return own or dict(batch)


def as_the_teacher_reads(sample: Mapping[str, Any]) -> tuple[list[int], list[int]]:
    """The tokens that the teacher reads, and their labels, of which its prompt's are ignored."""
    ids, start = list(sample["teacher_input_ids"]), int(sample["teacher_answer_start"])
    return ids, [IGNORE_INDEX] * start + ids[start:]


def _check_same_answers(student: Mapping[str, Tensor], teacher: Mapping[str, Tensor], aligned: bool) -> None:
    """Each row's supervised tokens, as the losses take them, are the same ids in one order; or at least as many."""
    for index, (ours, theirs) in enumerate(zip(_answers(student), _answers(teacher), strict=True)):
        if ours == theirs or (not aligned and len(ours) == len(theirs)):
            continue
        at = next((at for at, (one, other) in enumerate(zip(ours, theirs, strict=False)) if one != other), None)
        differ = (
            f"{len(ours)} supervised tokens to the student and {len(theirs)} to the teacher"
            if at is None
            else f"{ours[at]} as supervised token {at} to the student and {theirs[at]} to the teacher"
        )
        raise UserError(f"sample {index} of a batch has {differ}: they would not be aligned; make the samples again")


def _answers(batch: Mapping[str, Tensor]) -> list[list[int]]:
    """The labels of each row's supervised tokens."""
    rows = zip(batch["labels"], supervised_mask(batch), strict=True)
    return [labels[1:][taught[:-1]].tolist() for labels, taught in rows]
