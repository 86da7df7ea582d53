"""Random offsets: contiguous samples that begin at another place each epoch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset


class RandomOffsets(Dataset):
    """Samples of T tokens, sample i out of the 2T tokens of rows i and i + 1, from a place of 0 to T - 1 on.

    The last row is only ever the end of the one before it, so there is one sample less than there are rows. The place
    depends on nothing but the seed, the epoch and i: whatever reads a sample, in whatever order, and again after a
    stop, reads the same.
    """

    def __init__(self, rows: Sequence[dict[str, Any]], seed: int) -> None:
        self._rows, self._seed = rows, seed
        # Shared, so that a loader's workers that were started in an earlier epoch know of the new one.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Go on to the offsets of another epoch."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self._rows) - 1

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        first, second = self._rows[index]["input_ids"], self._rows[index + 1]["input_ids"]
        offset = int(np.random.default_rng((self._seed, int(self._epoch), index)).integers(len(first)))
        return {"input_ids": [*first[offset:], *second[:offset]]}
