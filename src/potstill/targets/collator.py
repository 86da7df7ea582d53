"""Collator: adds the captured records of its samples to a batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from potstill.data.collators import Collate
from potstill.targets import TargetStore
from potstill.targets.content_keys import batch_keys

RECORDS = "captured_targets_"
"""How the names of columns with captured records begin."""


def records_column(index: int) -> str:
    """The name of the batch column that holds the records of teacher number ``index``."""
    return f"{RECORDS}{index}"


@dataclass(frozen=True)
class TargetCollator:
    """A collator that adds the records of its samples to each batch, so that the loader's workers read them.

    Raises:
        UserError: a sample was not captured, or a store is damaged.
    """

    collate: Collate
    stores: Mapping[int, TargetStore]

    def __call__(self, samples: Sequence[Any]) -> dict[str, Tensor]:
        """The collator's batch with the records of each store, in the order of the batch's rows."""
        batch = self.collate(samples)
        keys = batch_keys(batch)
        return batch | {records_column(index): store.packed(keys) for index, store in self.stores.items()}
