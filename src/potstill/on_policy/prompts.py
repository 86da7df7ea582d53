"""Prompts of samples: the beginning of a sample, which the student continues in its own words."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from potstill.data.labels import IGNORE_INDEX
from potstill.data.prompts.collator import TEACHER


@dataclass(frozen=True)
class SamplePrompt:
    """What stands before the tokens that a student writes."""

    student: list[int]
    """The prompt that the student reads."""
    teacher: list[int] | None = None
    """The prompt that the teachers read; None where it is the student's."""
    taught_by: list[str] | None = None
    """The teachers of the sample; None where all teachers teach every sample."""
    others: list[list[int]] | None = None
    """The prompts of the teachers of other tokenizers, in their order, where these read turns; empty for one that does
    not read the answer. None where they read the student's text."""


def prompts_of(batch: Mapping[str, Tensor], beginning: int) -> list[SamplePrompt | None]:
    """The prompt of each row of a batch on the CPU; None for a row in which nothing is learned.

    A prompt ends where the row's last learned answer begins: behind the question, or before the last learned turn of a
    conversation. A row of text, whose first token is learned like all others, has no prompt, and its beginning takes
    that place. Of a row with several documents, the first one that teaches something counts.

    Args:
        batch: `input_ids` and `labels`, Int[B, T]; `attention_mask` where rows have pads; `position_ids` where they
            have several documents; and the same with the prefix ``teacher_`` where teachers read other prompts.
        beginning: the number of tokens that stand for the prompt of a text.
    """
    apart = f"{TEACHER}input_ids" in batch
    found: list[SamplePrompt | None] = []
    for row in range(len(batch["input_ids"])):
        student = prompt_of(*_document(batch, "", row), beginning)
        teacher = prompt_of(*_document(batch, TEACHER, row), beginning) if apart else None
        found.append(None if student is None or (apart and teacher is None) else SamplePrompt(student, teacher))
    return found


def _document(batch: Mapping[str, Tensor], reader: str, row: int) -> tuple[np.ndarray, np.ndarray]:
    """The tokens and labels of a row's first document that teaches something; of an empty one, if there is none."""
    ids, labels = batch[f"{reader}input_ids"][row].numpy(), batch[f"{reader}labels"][row].numpy()
    mask = batch.get(f"{reader}attention_mask")
    real = np.ones(len(ids), bool) if mask is None else mask[row].numpy().astype(bool)
    ids, labels = ids[real], labels[real]
    positions = batch.get(f"{reader}position_ids")
    starts = [0]
    if positions is not None:
        starts += (np.flatnonzero(np.diff(positions[row].numpy()[real]) != 1) + 1).tolist()
    for start, end in zip(starts, [*starts[1:], len(ids)], strict=True):
        if (labels[start + 1 : end] != IGNORE_INDEX).any():
            return ids[start:end], labels[start:end]
    return ids[:0], labels[:0]


def prompt_of(ids: np.ndarray, labels: np.ndarray, beginning: int) -> list[int] | None:
    """The prompt of one document; None if it is empty."""
    learned = labels != IGNORE_INDEX
    if not len(ids):
        return None
    if learned[0]:
        return ids[: min(beginning, len(ids) - 1)].tolist()
    (starts,) = np.nonzero(learned[1:] & ~learned[:-1])
    return ids[: starts[-1] + 1].tolist()
