"""The key index finds every key, tells alike ones apart, and needs 8 bytes a sample."""

import tracemalloc

import numpy as np
import pytest

from potstill.targets.key_index import KeyIndex, first_places
from potstill.targets.shard import ENTRY

MILLION = 10**6


def _entries(halves):
    entries = np.zeros(len(halves), ENTRY)
    entries["key"] = np.asarray(halves, "<u8").view("V16").ravel()
    entries["count"] = np.arange(len(halves))
    return entries


def _random(count, seed=0):
    return np.random.default_rng(seed).integers(0, 2**64, (count, 2), np.uint64)


@pytest.mark.parametrize("count", [1, 2, 3, 255, 256, 257])
@pytest.mark.parametrize("per_shard", [1, 7, 300])
def test_every_key_is_found_at_its_place(count, per_shard):
    entries = _entries(_random(count))
    index = KeyIndex(np.split(entries, range(per_shard, count, per_shard)))
    assert len(index) == count
    assert index.find([key.tobytes() for key in entries["key"]]).tolist() == list(range(count))
    assert [index.entry(place)["count"] for place in range(count)] == list(range(count))
    assert index.find([key.tobytes() for key in _entries(_random(20, seed=1))["key"]]).tolist() == [-1] * 20


@pytest.mark.parametrize("head", [0, 1, 2**63, 2**64 - 1])
def test_keys_that_begin_alike_are_told_apart(head):
    halves = [(head, second) for second in (5, 0, 3, 2**64 - 1)]
    entries = _entries([*halves, (head ^ 1, 5)])
    keys = [key.tobytes() for key in entries["key"]]
    absent = _entries([(head, 4), (head ^ 2, 5)])["key"]
    assert KeyIndex([entries]).find([*keys, *(key.tobytes() for key in absent)]).tolist() == [0, 1, 2, 3, 4, -1, -1]


def test_nothing_is_found_for_no_keys():
    assert KeyIndex([_entries(_random(3))]).find([]).tolist() == []


@pytest.mark.parametrize("seed", range(5))
def test_the_first_of_equal_keys_counts(seed):
    few = _random(6)
    few[3:, 0] = few[0, 0]
    keys = _entries(few[np.random.default_rng(seed).integers(0, 6, 20)])["key"]
    seen = {}
    for place, key in enumerate(keys):
        seen.setdefault(key.tobytes(), place)
    assert first_places(keys).tolist() == list(seen.values())


def test_its_memory_does_not_hold_the_keys_again():
    held, peak = _memory_of_a_search(8, MILLION // 8)
    assert held < 9 * MILLION
    assert peak < 15 * MILLION


@pytest.mark.slow
def test_a_hundred_million_keys_are_found_in_less_than_a_gibibyte():
    held, peak = _memory_of_a_search(500, MILLION // 5)
    assert held < peak < 2**30


def _memory_of_a_search(shards, each):
    """The bytes that an index of so many entries holds after a search, and the most during it."""
    of_shard = np.arange(each, dtype="<u8")
    parts = []
    for shard in range(shards):
        entries = np.zeros(each, ENTRY)
        # All are distinct, and their first bits are spread evenly, as those of hashes.
        heads = (of_shard + shard * each) * np.uint64(0x9E3779B97F4A7C15)
        entries["key"] = np.stack([heads, of_shard], 1).view("V16").ravel()
        parts.append(entries)
    index = KeyIndex(parts)
    places = [0, each - 1, each, shards * each // 2, shards * each - 1]
    keys = [parts[place // each]["key"][place % each].tobytes() for place in places]
    tracemalloc.start()
    try:
        assert index.find([*keys, b"never captured!!"]).tolist() == [*places, -1]
        return tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
