"""A teacher whose targets were captured: written once, and found again by the content of each sample of a batch."""

from pathlib import Path
from typing import Any

from potstill.console import progress
from potstill.data.collators import DOCUMENTS, Collate
from potstill.data.prompts.collator import teacher_batch
from potstill.device import device
from potstill.models.document_attention import check_documents_are_isolated
from potstill.targets import Codec, Provenance, StoreWriter
from potstill.targets.content_keys import contents
from potstill.teachers.live import LiveTeacher


def capture(
    folder: Path,
    teacher: LiveTeacher,
    codec: Codec,
    provenance: Provenance,
    samples: Any,
    collate: Collate,
    batch_size: int,
    worker: int = 0,
    workers: int = 1,
) -> int:
    """Write what a teacher says about samples into a store, or what is missing of it; returns the supervised tokens.

    Several workers write a store together, each the shards that are its own.

    Raises:
        UserError: the folder holds another teacher's or another corpus's store, the disk is full, or the teacher cannot
            read documents apart and is asked to.
    """
    if len(samples) and DOCUMENTS in samples[0]:
        check_documents_are_isolated(teacher.model, "teacher")
    keys, counts = contents(samples, collate)
    what = f"capturing {provenance.teacher}"
    head = teacher.head if codec.mode == "hidden" else None
    with (
        StoreWriter(folder, codec, provenance, keys, counts, head) as writer,
        progress(what, writer.header.samples, "samples", writer.samples_written()) as advance,
    ):
        for places in writer.pending(batch_size, worker, workers):
            batch = collate([samples[int(place)] for place in places])
            writer.write(teacher.target({name: each.to(device()) for name, each in teacher_batch(batch).items()}))
            advance(len(places))
    return sum(counts)
