"""Random offsets: contiguous samples that start at another token in each epoch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset


class RandomOffsets(Dataset):
    """Samples of T tokens. Sample i is cut from the 2T tokens of rows i and i + 1, at an offset from 0 to T - 1.

    There is one sample less than there are rows, because the last row only completes the sample before it. The offset
    depends only on the seed, the epoch and i. So every reader gets the same sample, in any order and after a resume.
    """

    def __init__(self, rows: Sequence[dict[str, Any]], seed: int) -> None:
        self._rows, self._seed = rows, seed
        # Shared memory, so that loader workers started in an earlier epoch see the new one.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Use the offsets of another epoch."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self._rows) - 1

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        first, second = self._rows[index]["input_ids"], self._rows[index + 1]["input_ids"]
        offset = int(np.random.default_rng((self._seed, int(self._epoch), index)).integers(len(first)))
        return {"input_ids": [*first[offset:], *second[:offset]]}
