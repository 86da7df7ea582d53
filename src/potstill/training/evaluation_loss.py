"""Evaluation loss: the mean cross-entropy over the supervised tokens of all samples.

transformers averages the losses of batches. That mean depends on the size of the batches, because batches have
different numbers of supervised tokens.
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from potstill.data.labels import count_supervised_by_row
from potstill.data.positions import supervised_positions
from potstill.losses.token_scores import score_tokens
from potstill.models.forward import forward_with_layers
from potstill.models.head_extraction import read_head


@torch.no_grad()
def row_losses(
    model: Any, head_is_extracted: bool, batch: Mapping[str, Tensor], vocabulary: int | None
) -> tuple[Float[Tensor, "B"], Int[Tensor, "B"]]:
    """The summed cross-entropy of each row of a batch, in nats, and the number of its supervised tokens.

    Args:
        model: a causal language model, wrapped or not.
        head_is_extracted: as ``forward_with_layers`` takes it.
        batch: as ``forward_with_layers`` takes it.
        vocabulary: the number of ids that the losses compare; None: all of the head's.
    """
    states, labels, *_ = forward_with_layers(model, head_is_extracted, batch, ())
    head = read_head(model) if head_is_extracted else None
    losses = score_tokens(states, head, labels, vocabulary=vocabulary)["nll"]
    counts = count_supervised_by_row(batch)
    rows = supervised_positions(batch) // batch["labels"].shape[1]
    # Apple's GPUs have no float64.
    dtype = torch.float32 if counts.device.type == "mps" else torch.float64
    return torch.zeros_like(counts, dtype=dtype).index_add_(0, rows, losses.to(dtype)), counts


class TokenMean:
    """A mean over tokens that come in parts."""

    def __init__(self) -> None:
        self._totals: list[Tensor] = []
        self._tokens: list[Tensor] = []

    def add(self, losses: Tensor, tokens: Tensor) -> None:
        """Add some rows: the summed loss of each, and its number of tokens. It does not wait for their device."""
        self._totals.append(losses.sum())
        self._tokens.append(tokens.sum())

    def value(self) -> float | None:
        """The mean; None where there was no token."""
        tokens = sum(torch.stack(self._tokens).tolist()) if self._tokens else 0
        return sum(torch.stack(self._totals).tolist()) / tokens if tokens else None
