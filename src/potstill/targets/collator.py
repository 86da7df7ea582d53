"""Collator: a batch with the captured records of its samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from potstill.data.collators import Collate
from potstill.targets import TargetStore
from potstill.targets.content_keys import batch_keys


def records_column(index: int) -> str:
    """The name under which a batch carries the records of the teacher of that number."""
    return f"captured_targets_{index}"


@dataclass(frozen=True)
class TargetCollator:
    """A collator that adds to each batch the records of its samples, so that reading happens in the loader's workers.

    Raises:
        UserError: a sample was never captured, or a store is damaged.
    """

    collate: Collate
    stores: Mapping[int, TargetStore]

    def __call__(self, samples: Sequence[Any]) -> dict[str, Tensor]:
        """The collator's batch, with the records of each store in the order of its rows."""
        batch = self.collate(samples)
        keys = batch_keys(batch)
        return batch | {records_column(index): store.packed(keys) for index, store in self.stores.items()}
