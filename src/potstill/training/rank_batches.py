"""Rank batches: all ranks together train on each sample of an epoch once, as one rank does.

Ranks take batches in turn, and all of them must take equally many. Where an epoch's samples do not suffice, accelerate
repeats samples from the beginning of the epoch, and one rank would not. So here the last batches are as short as they
come, and a rank without one gets a stand-in: the batch of some sample, of which nothing is learned.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.data_loader import BatchSamplerShard
from torch import Tensor
from torch.utils.data import BatchSampler, IterableDataset

from potstill.data.collators import Collate
from potstill.data.labels import IGNORE_INDEX
from potstill.data.positions import SUPERVISED
from potstill.data.text_of_batch import SAME_BYTE, SPANS
from potstill.targets.collator import RECORDS
from potstill.training.taught_rows import GROUPS, ORDER, TaughtGroups

OF_TOKENS = (SUPERVISED, SPANS, SAME_BYTE)
"""How the names of columns end that list supervised tokens."""

STAND_IN = "stand_in"
"""The column that marks a batch of which nothing is learned, and whose tokens do not count as read."""


@dataclass(frozen=True)
class Surplus:
    """A sample that another rank has too. It is not learned."""

    sample: Any


class EvenBatches(BatchSampler):
    """The batches of all ranks in turn, with empty ones at the end for the ranks that have one batch less."""

    def __init__(self, batches: BatchSampler, ranks: int) -> None:
        self.batches, self.ranks = batches, ranks
        self.sampler, self.drop_last = batches.sampler, batches.drop_last

    def __iter__(self) -> Iterator[list[int]]:
        count = 0
        for batch in self.batches:
            count += 1
            yield batch
        yield from [[]] * (-count % self.ranks)

    def __len__(self) -> int:
        return len(self.batches) + -len(self.batches) % self.ranks

    def set_epoch(self, epoch: int) -> None:
        """Hand the number of the epoch to whatever draws the order of the samples."""
        for one in (self.batches, self.sampler):
            if hasattr(one, "set_epoch"):
                one.set_epoch(epoch)


class EvenStream(IterableDataset):
    """A stream that ends with as many surplus samples as fill up the last batches of all ranks.

    Every rank reads the whole stream and keeps its own batches. So their order is that of one rank.

    Args:
        stream: the samples.
        multiple: the number of samples in one batch of each rank.
    """

    def __init__(self, stream: Any, multiple: int) -> None:
        self.stream, self.multiple = stream, multiple
        for name in ("set_epoch", "generator"):
            if hasattr(stream, name):
                setattr(self, name, getattr(stream, name))

    def __iter__(self) -> Iterator[Any]:
        count, sample = 0, None
        for sample in self.stream:
            count += 1
            yield sample
        for _ in range(-count % self.multiple):
            yield Surplus(sample)

    def __len__(self) -> int:
        return len(self.stream) + -len(self.stream) % self.multiple


@dataclass(frozen=True)
class RankCollator:
    """A collator of a rank's batches. Surplus samples are left out, and a batch without samples is a stand-in.

    Args:
        collate: the collator of batches that have samples.
        spare: a sample for stand-ins, where samples are not streamed.
    """

    collate: Collate
    spare: Any = None

    def __call__(self, samples: Sequence[Any]) -> dict[str, Tensor]:
        """The batch."""
        own = [sample for sample in samples if not isinstance(sample, Surplus)]
        if own:
            return self.collate(own)
        return untaught(self.collate([samples[0].sample if samples else self.spare]))


def untaught(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The batch with the mark of a stand-in, and without labels, supervised tokens, captured targets and groups."""
    labels = {name: torch.full_like(batch[name], IGNORE_INDEX) for name in batch if name.endswith("labels")}
    none = {name: batch[name][:0] for name in batch if name.endswith(OF_TOKENS) or name.startswith(RECORDS)}
    groups = {GROUPS: TaughtGroups(())} if GROUPS in batch else {}
    kept = {name: value for name, value in batch.items() if name != ORDER}
    return {**kept, **labels, **none, **groups, STAND_IN: torch.ones(())}


def even_out(loader: Any, ranks: int) -> Any:
    """Change a training's loader, which accelerate has shared out among ranks, so that no sample is repeated.

    A loader that drops its last batches, or splits each batch among the ranks, stays as it is.
    """
    inner, shard = loader.base_dataloader, loader.batch_sampler
    if isinstance(loader.dataset, IterableDataset):
        inner.collate_fn = RankCollator(inner.collate_fn)
    elif isinstance(shard, BatchSamplerShard) and not (shard.drop_last or shard.split_batches):
        shard.batch_sampler = EvenBatches(shard.batch_sampler, ranks)
        # To accelerate, None says that batches differ in size, so it does not fill them up.
        shard.batch_size = None
        inner.collate_fn = RankCollator(inner.collate_fn, loader.dataset[0])
    return loader
