"""Key index: the entries of a store's samples, and where each key is; 8 bytes of memory for each sample.

Keys are hashes, so the first bits of a key tell it from almost all others. One word of 64 bits for each sample holds
the first bits of its key, and its place in the rest. The words are sorted; a search ends with a look at whole keys.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt64

from potstill.targets.content_keys import key_array


class SortedKeys(NamedTuple):
    """A word for each key, in ascending order."""

    words: UInt64[np.ndarray, "keys"]
    low: np.uint64
    """The bits of a word that are the place of its key. The others are the key's own."""

    @classmethod
    def of(cls, parts: Sequence[np.ndarray]) -> "SortedKeys":
        """The words of the keys of several arrays, whose places go on from one to the next."""
        words, start = np.empty(sum(map(len, parts)), "<u8"), 0
        low = np.uint64((1 << max(len(words) - 1, 1).bit_length()) - 1)
        for keys in parts:
            places = np.arange(start, start + len(keys), dtype="<u8")
            words[start : start + len(keys)] = (_halves(keys)[:, 0] & ~low) | places
            start += len(keys)
        words.sort()
        return cls(words, low)


def first_places(keys: np.ndarray) -> Int[np.ndarray, "distinct"]:
    """The places of all keys of an array that are no repeats of earlier ones, in order."""
    words, low = SortedKeys.of([keys])
    alike = np.diff(words & ~low) == 0
    suspects = words[np.concatenate([alike, [False]]) | np.concatenate([[False], alike])] & low
    seen: set[bytes] = set()
    is_first = np.ones(len(keys), bool)
    for place in np.sort(suspects).tolist():
        key = keys[place].tobytes()
        is_first[place] = key not in seen
        seen.add(key)
    return np.flatnonzero(is_first)


class KeyIndex:
    """The index of a finished store.

    Args:
        shards: the entries of each shard, as ENTRY. All shards but the last have equally many.
    """

    def __init__(self, shards: Sequence[np.ndarray]) -> None:
        self.shards = shards
        self._samples = sum(map(len, shards))

    def __len__(self) -> int:
        return self._samples

    @cached_property
    def _sorted(self) -> SortedKeys:
        return SortedKeys.of([shard["key"] for shard in self.shards])

    def entry(self, place: int) -> np.void:
        """The entry of the sample at a place."""
        shard, row = divmod(place, len(self.shards[0]))
        found: np.void = self.shards[shard][row]
        return found

    def find(self, keys: Sequence[bytes]) -> Int[np.ndarray, "keys"]:
        """The places of samples; -1 for a key that no sample has."""
        words, low = self._sorted
        wanted, found = _halves(key_array(keys)), np.full(len(keys), -1)
        heads = wanted[:, 0] & ~low
        # Keys that are not found yet, and the words to compare them with.
        left, at = np.arange(len(keys)), np.searchsorted(words, heads)
        while len(left):
            left, at = left[inside := at < len(words)], at[inside]
            left, at = left[alike := (words[at] & ~low) == heads[left]], at[alike]
            places = (words[at] & low).astype(np.int64)
            hit = (self._halves_at(places) == wanted[left]).all(1)
            found[left[hit]] = places[hit]
            left, at = left[~hit], at[~hit] + 1
        return found

    def _halves_at(self, places: Int[np.ndarray, "places"]) -> UInt64[np.ndarray, "places 2"]:
        keys = np.empty(len(places), "V16")
        of_shard, rows = np.divmod(places, len(self.shards[0]))
        for shard in np.unique(of_shard):
            here = of_shard == shard
            keys[here] = self.shards[shard]["key"][rows[here]]
        return _halves(keys)


def _halves(keys: np.ndarray) -> UInt64[np.ndarray, "keys 2"]:
    """Both halves of each key."""
    return np.ascontiguousarray(keys).view("<u8").reshape(-1, 2)
