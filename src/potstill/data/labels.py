"""Labels: which tokens of a batch are supervised, and how many. No other file shifts or ignores labels."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Int
from torch import Tensor

IGNORE_INDEX = -100
"""The label of a token that must not be learned, as in torch's ``cross_entropy``."""


def labels_of(batch: Mapping[str, Tensor]) -> Int[Tensor, "B T"]:
    """The labels that a batch teaches, unshifted. Padding the batch on either side changes none of them.

    A label that no token of its document precedes is ignored: the first token of a row that is padded on the left, and
    the first token of each document.

    Args:
        batch: `labels` and, if rows are padded, `attention_mask`, all [B, T]. For documents that do not attend to each
            other also `position_ids`, which start again at 0 with each document.
    """
    labels, attention_mask = batch["labels"], batch.get("attention_mask")
    if "position_ids" in batch:
        labels = labels.masked_fill(starts_document(batch), IGNORE_INDEX)
    if attention_mask is None:
        return labels
    after_a_pad = torch.zeros_like(labels, dtype=torch.bool)
    after_a_pad[:, 1:] = attention_mask[:, :-1] == 0
    return labels.masked_fill(after_a_pad, IGNORE_INDEX)


def starts_document(batch: Mapping[str, Tensor]) -> Bool[Tensor, "B T"]:
    """Whether a position is a real token that starts a document, right after a real token of another document."""
    found = torch.zeros_like(batch["input_ids"], dtype=torch.bool)
    if "position_ids" in batch:
        found[:, 1:] = batch["position_ids"].diff() != 1
        if "attention_mask" in batch:
            real = batch["attention_mask"].bool()
            found[:, 1:] &= real[:, 1:] & real[:, :-1]
    return found


def supervised_mask(batch: Mapping[str, Tensor]) -> Bool[Tensor, "B T"]:
    """Whether the token after each position is a label of the batch (see ``labels_of``); False at the last position."""
    return _before_a_label(labels_of(batch))


def count_supervised(batch: Mapping[str, Tensor]) -> Int[Tensor, ""]:
    """The number of supervised tokens in a batch."""
    return supervised_mask(batch).sum()


def count_supervised_by_row(batch: Mapping[str, Tensor]) -> Int[Tensor, "B"]:
    """The number of supervised tokens in each row of a batch."""
    return supervised_mask(batch).sum(1)


def _before_a_label(labels: Int[Tensor, "B T"]) -> Bool[Tensor, "B T"]:
    found = torch.zeros_like(labels, dtype=torch.bool)
    found[:, :-1] = labels[:, 1:] != IGNORE_INDEX
    return found
