"""Capture: run a teacher once over samples and write its targets into a store."""

from dataclasses import dataclass
from typing import Any

from potstill.console import progress
from potstill.data.collators import Collate
from potstill.data.prompts.collator import teacher_batch
from potstill.data.sample_columns import DOCUMENT_COLUMNS
from potstill.device import device
from potstill.models.document_attention import check_documents_are_isolated
from potstill.targets import StoreSpec, StoreWriter
from potstill.targets.content_keys import keys_and_counts
from potstill.teachers.live import LiveTeacher


@dataclass(frozen=True)
class SampleBatches:
    """Samples, and the batches in which a teacher reads them."""

    samples: Any
    """An indexable collection of samples."""
    collate: Collate
    batch_size: int


def capture(store: StoreSpec, teacher: LiveTeacher, batches: SampleBatches, worker: int = 0, workers: int = 1) -> int:
    """Write the teacher's targets for all samples into a store; targets that are there already are not written again.

    Several workers may write one store together: each writes its own shards.

    Returns:
        The number of supervised tokens of all samples.

    Raises:
        UserError: the folder holds the store of another teacher or corpus, the disk is full, or the samples hold
            several documents each and the teacher cannot read documents apart.
    """
    samples, collate = batches.samples, batches.collate
    if len(samples) and any(samples[0].get(name) is not None for name in DOCUMENT_COLUMNS):
        check_documents_are_isolated(teacher.model, "teacher")
    keys, counts = keys_and_counts(samples, collate)
    what = f"capturing {store.provenance.teacher}"
    head = teacher.head if store.codec.mode == "hidden" else None
    with (
        StoreWriter(store, keys, counts, head) as writer,
        progress(what, writer.header.samples, "samples", writer.samples_written()) as advance,
    ):
        for places in writer.pending(batches.batch_size, worker, workers):
            batch = collate([samples[int(place)] for place in places])
            writer.write(teacher.target({name: each.to(device()) for name, each in teacher_batch(batch).items()}))
            advance(len(places))
    return sum(counts)
