"""Collators: samples of unequal length become one right-padded batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from potstill.data.labels import IGNORE_INDEX
from potstill.errors import UserError

Collate = Callable[[Sequence[Any]], dict[str, Tensor]]
"""Makes one batch of samples."""

DOCUMENTS = "documents"
"""The column of samples whose documents are read apart: the number of tokens of each document, in order."""


@dataclass(frozen=True)
class Collator:
    """Pads samples on the right, to the length of the longest.

    A sample has `input_ids`. It has `labels` if some tokens are not learned, and `attention_mask` if it already holds
    pads. The batch has all three, Int[B, T]; pads are masked and their labels ignored.

    Samples with a `documents` column are read as if each document stood alone. Then the batch also has `position_ids`,
    which restart at 0 with each document and at the pads. The first token of a document is not learned, because no
    token of its document precedes it.
    """

    pad_token_id: int

    def __call__(self, samples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """The samples as one batch."""
        ids = [list(sample["input_ids"]) for sample in samples]
        real = [list(sample.get("attention_mask", [1] * len(sample["input_ids"]))) for sample in samples]
        labels = [list(sample.get("labels", sample["input_ids"])) for sample in samples]
        learned = [
            [label if is_real else IGNORE_INDEX for label, is_real in zip(*row, strict=True)]
            for row in zip(labels, real, strict=True)
        ]
        longest = max(len(row) for row in ids)
        apart = any(DOCUMENTS in sample for sample in samples)
        positions = _document_positions(samples, learned, longest) if apart else None

        def rows(values: list[list[int]], fill: int) -> Tensor:
            return torch.tensor([row + [fill] * (longest - len(row)) for row in values])

        batch = {
            "input_ids": rows(ids, self.pad_token_id),
            "attention_mask": rows(real, 0),
            "labels": rows(learned, IGNORE_INDEX),
        }
        return batch if positions is None else batch | {"position_ids": rows(positions, 0)}


def _document_positions(samples: Sequence[dict[str, Any]], labels: list[list[int]], longest: int) -> list[list[int]]:
    """Positions of each row's tokens and pads, counted per document; masks each document's first label in `labels`."""
    positions = []
    for sample, row in zip(samples, labels, strict=True):
        sizes = list(sample.get(DOCUMENTS, [len(row)]))
        assert sum(sizes) == len(row), (sizes, len(row))
        for start in accumulate(sizes[:-1]):
            row[start] = IGNORE_INDEX
        positions.append([place for size in [*sizes, longest - len(row)] for place in range(size)])
    return positions


@dataclass(frozen=True)
class SharedVocabularyCollator:
    """A collator whose batches hold only ids that student and teachers share. A pad may have any id and becomes 0.

    The check runs here, in the data loader: on a GPU, another id would be read as another token or stop the device.

    Raises:
        UserError: a token or a label is not shared.
    """

    collate: Collate
    vocabulary: int

    def __call__(self, samples: Sequence[Any]) -> dict[str, Tensor]:
        """The collator's batch."""
        batch = self.collate(samples)
        readers = [name.removesuffix("input_ids") for name in batch if name.endswith("input_ids")]
        return batch | {f"{reader}input_ids": self._shared(batch, reader) for reader in readers}

    def _shared(self, batch: dict[str, Tensor], reader: str) -> Tensor:
        """The checked ids of one reader: the student, or the teacher if it has its own prompt."""
        ids, real = batch[f"{reader}input_ids"], batch.get(f"{reader}attention_mask")
        is_pad = torch.zeros_like(ids, dtype=torch.bool) if real is None else real == 0
        greatest = max(int(batch[f"{reader}labels"].max()), int(ids.masked_fill(is_pad, 0).max()))
        if greatest >= self.vocabulary:
            raise UserError(
                f"a sample has the token {greatest}, but student and teacher share only the {self.vocabulary:,} tokens "
                "before it; leave out the samples with other tokens"
            )
        return ids.masked_fill(ids >= self.vocabulary, 0)


def pad_token_id(tokenizer: Any) -> int:
    """A token to pad with. Any token will do, because pads are masked everywhere."""
    return tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
