"""Samples start at another offset in each epoch, and at the same offset for the same epoch."""

import pytest
from torch.utils.data import DataLoader

from potstill.data.random_offsets import RandomOffsets

LENGTH = 8
STREAM = list(range(LENGTH * 50))
ROWS = [{"input_ids": STREAM[start : start + LENGTH]} for start in range(0, len(STREAM), LENGTH)]


def read(samples):
    return [samples[index]["input_ids"] for index in range(len(samples))]


def test_a_sample_is_contiguous_and_begins_in_its_own_row():
    samples = RandomOffsets(ROWS, seed=3)
    assert len(samples) == len(ROWS) - 1
    for index, ids in enumerate(read(samples)):
        assert ids == list(range(ids[0], ids[0] + LENGTH))
        assert index * LENGTH <= ids[0] < (index + 1) * LENGTH


def test_every_offset_occurs():
    samples = RandomOffsets(ROWS, seed=0)
    assert {ids[0] % LENGTH for ids in read(samples)} == set(range(LENGTH))


def test_an_epoch_is_read_alike_again_and_another_one_otherwise():
    samples, again = RandomOffsets(ROWS, seed=0), RandomOffsets(ROWS, seed=0)
    first = read(samples)
    samples.set_epoch(1)
    second = read(samples)
    assert first != second
    assert read(again) == first
    again.set_epoch(1)
    assert [again[index]["input_ids"] for index in reversed(range(len(again)))] == second[::-1]
    assert read(RandomOffsets(ROWS, seed=1)) != first


def test_workers_that_stay_learn_of_the_new_epoch():
    samples = RandomOffsets(ROWS, seed=0)
    loader = DataLoader(samples, batch_size=None, num_workers=1, persistent_workers=True)
    first = [sample["input_ids"] for sample in loader]
    samples.set_epoch(1)
    assert [sample["input_ids"] for sample in loader] == read(samples) != first


@pytest.mark.parametrize("index", [-1, len(ROWS) - 1])
def test_there_is_no_sample_beyond_the_last(index):
    with pytest.raises(IndexError):
        RandomOffsets(ROWS, seed=0)[index]
