"""Collators: samples of unequal length become one right-padded batch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from potstill.data.labels import IGNORE_INDEX
from potstill.data.sample_columns import TokenizedSample, read_plain_samples, read_sample
from potstill.errors import UserError

Collate = Callable[[Sequence[Any]], dict[str, Tensor]]
"""Makes one batch of samples."""


@dataclass(frozen=True)
class Collator:
    """Pads samples on the right, to the length of the longest.

    A sample has `input_ids`. Its other columns are optional:

    - `labels`, -100 where a token is not learned; without it, every token is learned.
    - `completion_mask` and `assistant_masks`, 0 where a token is not learned.
    - `attention_mask`, 0 where it already holds pads.
    - `documents` or `seq_lengths`, the number of tokens of each document, or `position_ids`, which begin again at 0
      with each document. The documents are read as if each stood alone, and the first token of each is not learned,
      because no token of its document precedes it.

    The batch has `input_ids`, `attention_mask` and `labels`, Int[B, T]; pads are masked and their labels ignored. If a
    sample names its documents, the batch also has `position_ids`, which begin again at 0 with each document and at the
    pads.

    Raises:
        UserError: a sample has no `input_ids`, or a column does not fit them.
    """

    pad_token_id: int
    least_length: int = 0
    """The least length of rows: those that are shorter are padded."""

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """The samples as one batch."""
        plain = read_plain_samples(samples)
        if plain is not None:
            length = max(int(plain.lengths.max()), self.least_length)
            return {
                "input_ids": _padded(plain.ids, plain.lengths, length, self.pad_token_id),
                "attention_mask": _padded(plain.real, plain.lengths, length, 0),
                "labels": _padded(plain.labels, plain.lengths, length, IGNORE_INDEX),
            }
        read = [read_sample(sample) for sample in samples]
        length = max(self.least_length, *(len(sample.ids) for sample in read))
        batch = {
            "input_ids": _rows([sample.ids for sample in read], length, self.pad_token_id),
            "attention_mask": _rows([sample.real for sample in read], length, 0),
            "labels": _rows([sample.labels for sample in read], length, IGNORE_INDEX),
        }
        if all(sample.positions is None for sample in read):
            return batch
        return batch | {"position_ids": _rows([_positions(sample, length) for sample in read], length, 0)}


def _padded(values: np.ndarray, lengths: np.ndarray, length: int, fill: int) -> Int[Tensor, "B T"]:
    """Values of rows that follow each other as the rows of one tensor of this length."""
    if (lengths == length).all():
        return torch.from_numpy(values.astype(np.int64, copy=False).reshape(-1, length))
    rows = np.full((len(lengths), length), fill, np.int64)
    rows[np.arange(length) < lengths[:, None]] = values
    return torch.from_numpy(rows)


def _rows(values: Sequence[np.ndarray], length: int, fill: int) -> Int[Tensor, "B T"]:
    """Arrays of unequal length as the rows of one tensor of this length."""
    rows = np.full((len(values), length), fill, np.int64)
    for row, own in zip(rows, values, strict=True):
        row[: len(own)] = own
    return torch.from_numpy(rows)


def _positions(sample: TokenizedSample, longest: int) -> np.ndarray:
    """The positions of a row's tokens and pads; without documents, its tokens are one document."""
    positions = np.arange(len(sample.ids)) if sample.positions is None else sample.positions
    return np.concatenate([positions, np.arange(longest - len(positions))])


@dataclass(frozen=True)
class SharedVocabularyCollator:
    """A collator whose batches hold only ids that student and teachers have. A pad may have any id and becomes 0.

    The check runs here, in the data loader: on a GPU, another id would be read as another token or stop the device.

    Raises:
        UserError: a token or a label is beyond them, or a batch has no labels.

    Args:
        collate: the collator of the batches.
        vocabulary: the number of ids.
        owners: who has these ids, for messages.
    """

    collate: Collate
    vocabulary: int
    owners: str = "student and teacher share"

    def __call__(self, samples: Sequence[Any]) -> dict[str, Tensor]:
        """The collator's batch."""
        batch = self.collate(samples)
        if "labels" not in batch:
            raise UserError("the batches of `data_collator` have no `labels`; add them, or leave `data_collator` out")
        readers = [name.removesuffix("input_ids") for name in batch if name.endswith("input_ids")]
        return batch | {f"{reader}input_ids": self._shared(batch, reader) for reader in readers}

    def _shared(self, batch: dict[str, Tensor], reader: str) -> Tensor:
        """The checked ids of one reader: the student, or the teacher if it has its own prompt."""
        ids, real = batch[f"{reader}input_ids"], batch.get(f"{reader}attention_mask")
        is_pad = torch.zeros_like(ids, dtype=torch.bool) if real is None else real == 0
        greatest = max(int(batch[f"{reader}labels"].max()), int(ids.masked_fill(is_pad, 0).max()))
        if greatest >= self.vocabulary:
            raise UserError(
                f"a sample has the token {greatest}, but {self.owners} only the {self.vocabulary:,} tokens before it; "
                "leave out the samples with other tokens"
            )
        return ids.masked_fill(ids >= self.vocabulary, 0)


@dataclass(frozen=True)
class FittingCollator:
    """A collator whose rows are no longer than the models that read them have positions.

    Args:
        collate: the collator of the batches.
        student: the student's positions; None where it has no limit.
        teacher: the fewest positions of a teacher. It reads the student's rows, or its own if it has any.

    Raises:
        UserError: a row is longer.
    """

    collate: Collate
    student: int | None
    teacher: int | None

    def __call__(self, samples: Sequence[Any]) -> dict[str, Tensor]:
        """The collator's batch."""
        batch = self.collate(samples)
        theirs = "teacher_" if "teacher_input_ids" in batch else ""
        for who, reader, most in (("student", "", self.student), ("teacher", theirs, self.teacher)):
            # The positions of packed rows begin again with each document.
            ids, places = batch.get(f"{reader}input_ids"), batch.get(f"{reader}position_ids")
            if most is None or ids is None:
                continue
            longest = ids.shape[1] if places is None else int(places.max()) + 1
            if longest > most:
                raise UserError(f"a sample has {longest:,} tokens, but the {who} has only {most:,} positions; cut it")
        return batch


def pad_token_id(tokenizer: Any) -> int:
    """A token to pad with. Any token will do, because pads are masked everywhere."""
    return tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
