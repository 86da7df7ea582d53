"""A teacher whose targets were captured: written once, and found again by the content of each sample of a batch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from potstill.console import progress
from potstill.data.collators import DOCUMENTS
from potstill.data.prompts.collator import teacher_batch
from potstill.device import device
from potstill.errors import IGNORE_INDEX
from potstill.models.document_attention import begins_anew, check_reads_apart
from potstill.models.forward import labels_of
from potstill.targets import Codec, Provenance, StoreWriter, TargetStore, sample_key
from potstill.teachers.live import LiveTeacher

SAMPLES_AT_ONCE = 512

Collate = Callable[[Sequence[Any]], dict[str, Tensor]]


def batch_keys(batch: Mapping[str, Tensor]) -> list[bytes]:
    """The content key of each row of a batch: the real tokens that the teacher and the student read, which of the
    student's are supervised, and where the teacher's documents begin that are read apart; padding is no content.

    ``batch`` holds `input_ids`, `labels` and, if rows are padded, `attention_mask`, all [B, T]; and the teacher's own,
    where it reads others (``data/prompts/render.py``).
    """
    labels = labels_of(batch).cpu().numpy()
    taught = np.zeros(labels.shape, bool)
    taught[:, :-1] = labels[:, 1:] != IGNORE_INDEX
    theirs = teacher_batch(batch)
    rows = zip(_real_ids(theirs), _real_ids(batch), taught, _real(batch), _starts(theirs), strict=True)
    return [sample_key(teacher, student, row[real], starts) for teacher, student, row, real, starts in rows]


def _real_ids(batch: Mapping[str, Tensor]) -> list[np.ndarray]:
    return [ids[real] for ids, real in zip(batch["input_ids"].cpu().numpy(), _real(batch), strict=True)]


def _starts(batch: Mapping[str, Tensor]) -> list[np.ndarray]:
    begun = zip(begins_anew(batch).cpu().numpy(), _real(batch), strict=True)
    return [np.flatnonzero(row[real]) for row, real in begun]


def _real(batch: Mapping[str, Tensor]) -> np.ndarray:
    if "attention_mask" not in batch:
        return np.ones(batch["input_ids"].shape, bool)
    return batch["attention_mask"].cpu().numpy().astype(bool)


def contents(samples: Any, collate: Collate) -> tuple[list[bytes], list[int]]:
    """The content key, and the number of supervised tokens, of each sample of an indexable collection of them."""
    keys: list[bytes] = []
    counts: list[int] = []
    for start in range(0, len(samples), SAMPLES_AT_ONCE):
        batch = collate([samples[at] for at in range(start, min(start + SAMPLES_AT_ONCE, len(samples)))])
        keys += batch_keys(batch)
        counts += (labels_of(batch)[:, 1:] != IGNORE_INDEX).sum(1).tolist()
    return keys, counts


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
        check_reads_apart(teacher.model, "teacher")
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


def field(index: int) -> str:
    """The name under which a batch carries the records of the teacher of that number."""
    return f"captured_targets_{index}"


@dataclass(frozen=True)
class WithTargets:
    """A collator that adds to each batch the records of its samples, so that reading happens in the loader's workers.

    Raises:
        UserError: a sample was never captured, or a store is damaged.
    """

    collate: Collate
    stores: Mapping[int, TargetStore]

    def __call__(self, samples: Sequence[Any]) -> dict[str, Tensor]:
        """The collator's batch, with the records of each store in the order of its rows."""
        batch = self.collate(samples)
        keys = batch_keys(batch)
        return batch | {field(index): store.packed(keys) for index, store in self.stores.items()}
