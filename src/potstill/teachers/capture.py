"""Capture: run a teacher once over samples and write its targets into a store."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from potstill.console import progress
from potstill.data.collators import Collate
from potstill.data.prompts.collator import teacher_batch
from potstill.data.sample_columns import DOCUMENT_COLUMNS
from potstill.data.sample_rows import rows_at
from potstill.device import to_device
from potstill.losses.span_likelihood import TokenNumbers
from potstill.losses.teacher_target import TeacherTarget
from potstill.models.head import Head
from potstill.targets import StoreSpec, StoreWriter
from potstill.targets.content_keys import Contents, contents


@dataclass(frozen=True)
class SampleBatches:
    """Samples, and the batches in which teachers read them."""

    samples: Any
    """An indexable collection of samples."""
    collate: Collate
    batch_size: int

    @cached_property
    def contents(self) -> Contents:
        """The keys and counts of all samples; read once, however many teachers are captured."""
        return contents(self.samples, self.collate)


class Telling(Protocol):
    """What a capture asks of a teacher."""

    @property
    def head(self) -> Head | None:
        """As that of a :class:`TeacherBeside`."""

    def check_documents(self) -> None:
        """As that of a :class:`TeacherBeside`."""

    def targets(self, batches: Iterable[Mapping[str, Tensor]]) -> Iterator[TeacherTarget | TokenNumbers]:
        """What the store keeps of each batch."""


def capture(store: StoreSpec, teacher: Telling, batches: SampleBatches, worker: int = 0, workers: int = 1) -> int:
    """Write the teacher's targets for all samples into a store; targets that are there already are not written again.

    The longest samples come first, so that a batch has few pads, and too large a batch fails at once. Samples of equal
    length keep their order. Several workers may write one store together: each writes its own shards.

    Returns:
        The number of supervised tokens of all samples.

    Raises:
        UserError: the folder holds the store of another teacher or corpus, the disk is full, or the samples hold
            several documents each and the teacher cannot read documents apart.
    """
    samples, found = batches.samples, batches.contents
    if len(samples) and any(samples[0].get(name) is not None for name in DOCUMENT_COLUMNS):
        teacher.check_documents()
    order = np.argsort(-found.lengths, kind="stable")
    what = f"capturing {store.provenance.teacher}"
    head = teacher.head if store.codec.mode == "hidden" else None
    with (
        StoreWriter(store, found.keys[order], found.counts[order], head) as writer,
        progress(what, writer.header.samples, "samples", writer.samples_written()) as advance,
    ):
        read: deque[int] = deque()

        def asked() -> Iterator[dict[str, Tensor]]:
            for places in writer.pending(batches.batch_size, worker, workers):
                read.append(len(places))
                batch = teacher_batch(batches.collate(rows_at(samples, order[places].tolist())))
                yield to_device(batch)

        for target in teacher.targets(asked()):
            writer.write(target)
            advance(read.popleft())
    return int(found.counts.sum())
