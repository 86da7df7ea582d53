from pathlib import Path

import numpy as np
import pytest

from potstill.targets.shard import ENTRY, ShardWriter, read_index

RECORD = 3


def planned(counts: list[int]) -> np.ndarray:
    entries = np.zeros(len(counts), ENTRY)
    entries["key"] = np.frombuffer(np.arange(2 * len(counts), dtype=np.uint64).tobytes(), "V16")
    entries["count"] = counts
    return entries


def records(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, RECORD), dtype=np.uint8)


@pytest.fixture
def half(tmp_path: Path) -> Path:
    """A shard of five samples; four of them are committed."""
    with ShardWriter(tmp_path, 0, planned([2, 1, 0, 3, 2]), RECORD, 1) as shard:
        shard.append(records(3), 2)
        shard.append(records(3), 2)
    return tmp_path


def resumed(folder: Path, counts: list[int], align: int = 1) -> int:
    with ShardWriter(folder, 0, planned(counts), RECORD, align) as shard:
        return shard.done


def test_it_goes_on_behind_what_is_committed(half: Path) -> None:
    assert resumed(half, [2, 1, 0, 3, 2]) == 4
    assert resumed(half, [2, 1, 0, 3, 2], align=3) == 3
    assert len(read_index(half, 0)) == 3


def test_records_without_their_entry_are_cut_off(half: Path) -> None:
    path = half / "00000.records"
    path.write_bytes(path.read_bytes() + b"torn")
    assert resumed(half, [2, 1, 0, 3, 2]) == 4
    assert path.stat().st_size == 6 * RECORD


def test_entries_without_their_records_are_cut_off(half: Path) -> None:
    path = half / "00000.records"
    path.write_bytes(path.read_bytes()[:-1])
    assert resumed(half, [2, 1, 0, 3, 2]) == 3
    assert path.stat().st_size == 3 * RECORD


def test_records_that_a_crash_left_empty_are_cut_off(half: Path) -> None:
    path = half / "00000.records"
    path.write_bytes(path.read_bytes()[: 4 * RECORD] + bytes(2 * RECORD))
    assert resumed(half, [2, 1, 0, 3, 2]) == 3


def test_entries_of_another_plan_are_cut_off(half: Path) -> None:
    assert resumed(half, [2, 2, 0, 3, 2]) == 1


def test_the_index_says_what_stands_in_the_records(half: Path) -> None:
    index = (half / "00000.index").read_bytes()
    assert len(index) == 4 * 24
    assert index[:16] == (0).to_bytes(8, "little") + (1).to_bytes(8, "little")
    assert index[16:20] == (2).to_bytes(4, "little")


def test_a_wrong_number_of_records_is_noticed(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, 0, planned([2, 1]), RECORD, 1) as shard, pytest.raises(AssertionError):
        shard.append(records(4), 2)
