"""Batching: samples of unequal length as one right-padded batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from potstill.words import IGNORE_INDEX


@dataclass(frozen=True)
class Collator:
    """Pads samples on the right, to the longest of them.

    A sample has `input_ids`, `labels` where not every token is to be learned, and `attention_mask` where it holds pads
    already. The batch has all three, Int[B, T]; pads are masked and their labels ignored.
    """

    pad_token_id: int

    def __call__(self, samples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """The samples as one batch."""
        ids = [list(sample["input_ids"]) for sample in samples]
        real = [list(sample.get("attention_mask", [1] * len(sample["input_ids"]))) for sample in samples]
        labels = [list(sample.get("labels", sample["input_ids"])) for sample in samples]
        taught = [
            [label if is_real else IGNORE_INDEX for label, is_real in zip(*row, strict=True)]
            for row in zip(labels, real, strict=True)
        ]
        longest = max(len(row) for row in ids)

        def rows(values: list[list[int]], fill: int) -> Tensor:
            return torch.tensor([row + [fill] * (longest - len(row)) for row in values])

        return {
            "input_ids": rows(ids, self.pad_token_id),
            "attention_mask": rows(real, 0),
            "labels": rows(taught, IGNORE_INDEX),
        }


def pad_token_id(tokenizer: Any) -> int:
    """A token to pad with; any will do, because pads are masked everywhere."""
    return tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
