"""Positions: the places in a batch that are supervised, are pads or start a document, listed by the loader.

The length of a list is known to the host. To count a mask that lies on a GPU, the host waits for all work before it.
So ``PositionsCollator`` makes the lists on the CPU. Without them, as in a batch that did not come from a loader, the
functions make them anew. All places are in the batch flattened to B·T, row-major.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from potstill.data.collators import Collate
from potstill.data.labels import starts_document, supervised_mask

SUPERVISED, PADS, STARTS = "supervised_positions", "pad_positions", "document_start_positions"
"""The columns of a batch that hold its lists."""


@dataclass(frozen=True)
class PositionsCollator:
    """A collator that adds the lists to each batch, for the student and for a teacher with a prompt of its own."""

    collate: Collate

    def __call__(self, samples: Sequence[Any]) -> dict[str, Tensor]:
        """The collator's batch with its lists."""
        batch = dict(self.collate(samples))
        for reader in [name.removesuffix("input_ids") for name in batch if name.endswith("input_ids")]:
            own = {name.removeprefix(reader): value for name, value in batch.items() if name.startswith(reader)}
            lists = {SUPERVISED: supervised_positions(own), PADS: pad_positions(own), STARTS: start_positions(own)}
            batch |= {f"{reader}{name}": places for name, places in lists.items()}
        return batch


def supervised_positions(batch: Mapping[str, Tensor]) -> Int[Tensor, "N"]:
    """The places whose next token is a label (see ``labels.labels_of``)."""
    return batch[SUPERVISED] if SUPERVISED in batch else _places(supervised_mask(batch))


def supervised_labels(batch: Mapping[str, Tensor]) -> Int[Tensor, "N"]:
    """The label after each supervised token."""
    return batch["labels"].flatten().index_select(0, supervised_positions(batch) + 1)


def supervised_states(
    states: Float[Tensor, "B T H"], batch: Mapping[str, Tensor]
) -> tuple[Float[Tensor, "N H"], Int[Tensor, "N"]]:
    """The hidden states (or logits) at the supervised tokens, on the batch's device, and the label after each.

    Args:
        states: one vector for each position.
        batch: `labels`, and all else that ``labels.labels_of`` reads.
    """
    labels = batch["labels"]
    assert states.shape[:2] == labels.shape, (states.shape, labels.shape)
    # A model that spans devices leaves its states on the last of them.
    taught = states.to(labels.device).flatten(0, 1).index_select(0, supervised_positions(batch))
    return taught, supervised_labels(batch)


def pad_positions(batch: Mapping[str, Tensor]) -> Int[Tensor, "pads"]:
    """The places of the pads."""
    if PADS in batch:
        return batch[PADS]
    mask = batch.get("attention_mask")
    return _places(torch.zeros_like(batch["input_ids"], dtype=torch.bool) if mask is None else mask == 0)


def start_positions(batch: Mapping[str, Tensor]) -> Int[Tensor, "starts"]:
    """The places at which a document starts right after another (see ``labels.starts_document``)."""
    return batch[STARTS] if STARTS in batch else _places(starts_document(batch))


def _places(mask: Bool[Tensor, "B T"]) -> Int[Tensor, "places"]:
    return mask.flatten().nonzero()[:, 0]
