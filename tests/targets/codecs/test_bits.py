import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from potstill.targets.codecs.bits import (
    _set_bits,
    _set_bits_by_torch,
    list_bytes,
    low_width,
    pack,
    pack_ids,
    unpack,
    unpack_ids,
)


@given(st.integers(0, 24), st.integers(1, 40), st.integers(0, 5), st.integers(0, 2**32))
def test_packing_takes_exactly_the_bits_and_comes_back(width: int, count: int, rows: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 1 << width, (rows, count))
    packed = pack(torch.from_numpy(values), width)
    assert packed.shape == (rows, -(-width * count // 8))
    assert np.array_equal(unpack(packed, width, count).numpy(), values)


@given(st.data())
def test_ids_of_any_vocabulary_up_to_a_million_come_back(data: st.DataObject) -> None:
    vocabulary = data.draw(st.integers(1, 1 << 20) | st.sampled_from([1, 2, 49152, 128256, 151936, 262144, 1 << 20]))
    count = data.draw(st.integers(1, 100))
    ids = data.draw(st.lists(st.integers(0, vocabulary - 1), min_size=count, max_size=count))
    edges = [[0] * count, [vocabulary - 1] * count]
    rows = torch.tensor([sorted(ids), *edges])
    low, high = pack_ids(rows, vocabulary)
    assert (low.shape[1], high.shape[1]) == list_bytes(vocabulary, count)
    assert torch.equal(unpack_ids(low, high, vocabulary, count), rows)
    assert torch.equal(_set_bits(high, count), _set_bits_by_torch(high, count))


@pytest.mark.parametrize(("vocabulary", "fixed_width"), [(49152, 16), (128256, 17), (1 << 20, 20)])
def test_lists_are_a_fifth_shorter_than_ids_side_by_side(vocabulary: int, fixed_width: int) -> None:
    assert sum(list_bytes(vocabulary, 64)) <= 0.8 * 64 * fixed_width / 8


def test_the_bits_stand_as_documented() -> None:
    """Ids 1, 5, 5 and 30 below 32: the low width is 2, so low parts 1, 1, 1, 2 and high parts 0, 1, 1, 7."""
    assert low_width(32, 4) == 2
    low, high = pack_ids(torch.tensor([[1, 5, 5, 30]]), 32)
    assert low.tolist() == [[0b10_01_01_01]]
    assert high.tolist() == [[0b0000_1101, 0b0000_0100]]


def test_without_rows_there_are_no_bytes() -> None:
    low, high = pack_ids(torch.empty(0, 64, dtype=torch.int64), 49152)
    assert unpack_ids(low, high, 49152, 64).shape == (0, 64)
