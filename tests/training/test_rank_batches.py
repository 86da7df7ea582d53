"""Rank batches: ranks that take turns read each sample once, in the order in which one rank reads them."""

import pytest
import torch
from accelerate.data_loader import BatchSamplerShard, IterableDatasetShard
from torch.utils.data import BatchSampler, RandomSampler, SequentialSampler

from potstill.data.collators import Collator
from potstill.data.labels import IGNORE_INDEX
from potstill.data.positions import SUPERVISED, PositionsCollator
from potstill.targets.collator import records_column
from potstill.training.rank_batches import STAND_IN, EvenBatches, EvenStream, RankCollator, Surplus, untaught
from toy_training import samples


def _batches(samples, size):
    return BatchSampler(SequentialSampler(range(samples)), size, drop_last=False)


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
@pytest.mark.parametrize("samples", [1, 2, 5, 8, 12, 13])
def test_ranks_have_equally_many_batches_and_each_sample_once(samples, ranks):
    even = EvenBatches(_batches(samples, 2), ranks)
    shards = [BatchSamplerShard(even, ranks, rank) for rank in range(ranks)]
    for shard in shards:
        shard.batch_size = None
    of_each = [list(shard) for shard in shards]
    assert {len(batches) for batches in of_each} == {len(shards[0])} == {len(even) // ranks}
    in_turn = [sample for batches in zip(*of_each, strict=True) for batch in batches for sample in batch]
    assert in_turn == list(range(samples))


def test_the_epoch_reaches_what_draws_the_order():
    class Drawn(RandomSampler):
        epoch = 0

        def set_epoch(self, epoch):
            self.epoch = epoch

    even = EvenBatches(BatchSampler(sampler := Drawn(range(4)), 2, drop_last=False), 2)
    even.set_epoch(3)
    assert sampler.epoch == 3


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 4, 7, 12])
def test_a_stream_is_shared_out_without_repeats(count, ranks):
    even = EvenStream(list(range(count)), 2 * ranks)
    of_each = [list(IterableDatasetShard(even, 2, num_processes=ranks, process_index=rank)) for rank in range(ranks)]
    assert {len(own) for own in of_each} == {len(even) // ranks}
    assert sorted(one for own in of_each for one in own if not isinstance(one, Surplus)) == list(range(count))


def test_an_empty_stream_stays_empty():
    assert list(EvenStream([], 4)) == []


def _collate(rows):
    batch = PositionsCollator(Collator(0))(rows)
    return batch | {records_column(0): torch.ones(len(batch[SUPERVISED]), 3)}


def test_a_batch_without_samples_is_a_stand_in_of_which_nothing_is_learned():
    rows = samples(3)
    collate = RankCollator(_collate, spare=rows[0])
    for stand_in in (collate([]), collate([Surplus(rows[1]), Surplus(rows[1])])):
        assert (stand_in["labels"] == IGNORE_INDEX).all()
        assert len(stand_in["input_ids"]) == 1
        assert len(stand_in[SUPERVISED]) == len(stand_in[records_column(0)]) == 0
        assert STAND_IN in stand_in


def test_surplus_samples_are_left_out_of_a_batch_of_others():
    rows = samples(3)
    mixed, own = RankCollator(_collate)([*rows[:2], Surplus(rows[2])]), _collate(rows[:2])
    assert mixed.keys() == own.keys()
    assert all(torch.equal(mixed[name], own[name]) for name in own)


def test_both_readers_of_a_batch_are_taught_nothing():
    batch = {name: torch.ones(2, 3) for name in ("labels", "teacher_labels")}
    batch |= {name: torch.ones(4) for name in (SUPERVISED, f"teacher_{SUPERVISED}", "pad_positions")}
    emptied = untaught(batch)
    assert (emptied["teacher_labels"] == IGNORE_INDEX).all()
    assert len(emptied[f"teacher_{SUPERVISED}"]) == 0
    assert len(emptied["pad_positions"]) == 4
