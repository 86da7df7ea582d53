"""Row cache: keys and values of rows of unequal length, which join, grow and leave one by one.

transformers' own caches give all rows one length: a row that joins later needs padding before it, and each step copies
all keys and values. Its paged cache does not, but the engine that it is made for (`generate_batch`, transformers 5.23)
takes 1.5 times as long as fixed batches on a CPU, and draws all rows from one random state.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import Cache

States = Sequence[tuple[Float[Tensor, "R A T D"], Float[Tensor, "R A T D"]]]
"""Keys and values of each layer: R rows, A heads, T tokens, D numbers."""

_GROWTH = 2
"""Rows get room for so many times the tokens that they have, because more room means to copy them."""
_ALIGNMENT = 64
"""In tokens. Room is a multiple of it, so that rows lie alike in memory whatever was written before: sums of numbers
that lie otherwise may be rounded otherwise."""


class RowCache(Cache):
    """Keys and values of rows; row r holds its first ``lengths[r]`` tokens, with nothing before them.

    A forward reads one token of each row, between :meth:`begin_step` and :meth:`end_step`.

    Args:
        size: the greatest number of rows.
        most: the greatest number of tokens that a row will have, so that no memory is kept for more.
    """

    def __init__(self, size: int, most: float = math.inf) -> None:
        super().__init__(layers=[])
        self.lengths: list[int] = []
        self._size, self._most, self._longest = size, most, 0
        self._kept: list[list[Tensor]] = []
        self._rows, self._at = torch.empty(0), torch.empty(0)

    def join(self, states: States, row: int, length: int) -> None:
        """Add a row, with the first ``length`` tokens of that row of ``states``."""
        at = len(self.lengths)
        self.lengths.append(length)
        for layer, both in enumerate(states):
            for mine, given in zip(self._room(layer, both, length), both, strict=True):
                mine[at, :, :length] = given[row, :, :length]

    def leave(self, row: int) -> None:
        """Remove a row; the last row takes its place."""
        length = self.lengths.pop()
        if row == len(self.lengths):
            return
        for both in self._kept:
            for mine in both:
                mine[row, :, :length] = mine[len(self.lengths), :, :length]
        self.lengths[row] = length

    def clear(self) -> None:
        """Remove all rows, and keep their memory for others."""
        self.lengths = []

    def begin_step(self, device: torch.device) -> tuple[Bool[Tensor, "R T"], Int[Tensor, "R 1"]]:
        """The attention mask and the positions for a forward of one token of each row."""
        self._longest = max(self.lengths) + 1
        self._rows = torch.arange(len(self.lengths), device=device)
        self._at = torch.tensor(self.lengths, device=device)
        return torch.arange(self._longest, device=device) <= self._at[:, None], self._at[:, None]

    def end_step(self) -> None:
        """Count the tokens that a forward read."""
        self.lengths = [length + 1 for length in self.lengths]

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Keep one more token of each row, and return all that the rows' layer holds, as transformers asks."""
        both = key_states, value_states
        rows, at = self._rows.to(key_states.device), self._at.to(key_states.device)
        kept = self._room(layer_idx, both, self._longest)
        for mine, new in zip(kept, both, strict=True):
            mine[rows, :, at] = new[:, :, 0]
        keys, values = (mine[: len(self.lengths), :, : self._longest] for mine in kept)
        return keys, values

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """The tokens before the one that is read, in the longest row."""
        return self._longest - 1

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """The width of the mask, and its offset."""
        return self._longest, 0

    def _room(self, layer: int, like: tuple[Tensor, Tensor], length: int) -> list[Tensor]:
        """The memory of a layer, with room for rows of that length."""
        if layer == len(self._kept):
            self._kept.append([each.new_empty(self._size, each.shape[1], 0, each.shape[3]) for each in like])
        old = self._kept[layer]
        if old[0].shape[2] < length:
            # Zeros, because attention multiplies what it masks, too, and memory may hold NaN.
            wanted = max(length, min(_GROWTH * length, self._most))
            more = _ALIGNMENT * math.ceil(wanted / _ALIGNMENT) - old[0].shape[2]
            self._kept[layer] = [torch.nn.functional.pad(each, (0, 0, 0, more)) for each in old]
        return self._kept[layer]
