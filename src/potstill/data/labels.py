"""Which tokens a loss looks at: the one place where labels are shifted and ignored tokens are left out."""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor


def learned_labels(labels: Int[Tensor, "B T"], attention_mask: Int[Tensor, "B T"] | None = None) -> Int[Tensor, "B T"]:
    """The labels without those that only a pad could predict: the first token of a row that is padded on the left."""
    if attention_mask is None:
        return labels
    after_a_pad = torch.zeros_like(labels, dtype=torch.bool)
    after_a_pad[:, 1:] = attention_mask[:, :-1] == 0
    return labels.masked_fill(after_a_pad, IGNORE_INDEX)


def supervised_positions(labels: Int[Tensor, "B T"]) -> tuple[Int[Tensor, "N"], Int[Tensor, "N"]]:
    """Where supervised tokens stand in the batch flattened to B·T, row-major, and the label that follows each."""
    following = labels[:, 1:]
    rows, times = (following != IGNORE_INDEX).nonzero(as_tuple=True)
    return rows * labels.shape[1] + times, following[rows, times]


def supervised(
    hidden: Float[Tensor, "B T H"], labels: Int[Tensor, "B T"]
) -> tuple[Float[Tensor, "N H"], Int[Tensor, "N"]]:
    """The hidden states (or logits) at supervised tokens, and the label that follows each; ``labels`` unshifted."""
    assert hidden.shape[:2] == labels.shape, (hidden.shape, labels.shape)
    positions, following = supervised_positions(labels)
    return hidden.flatten(0, 1).index_select(0, positions), following


IGNORE_INDEX = -100
"""The label of a token that must not be learned, as torch's ``cross_entropy`` has it."""


def labels_of(batch: Mapping[str, Tensor]) -> Int[Tensor, "B T"]:
    """The labels of a batch that are learned, unshifted; padding it on either side changes nothing."""
    return learned_labels(batch["labels"], batch.get("attention_mask"))
