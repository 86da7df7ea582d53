"""Content keys: a sample is found by its tokens and supervised positions, never by its place in a file."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from potstill.data.collators import Collate
from potstill.data.labels import count_supervised_by_row, starts_document, supervised_mask
from potstill.data.prompts.collator import teacher_batch
from potstill.data.sample_rows import rows_at

KEY_BYTES = 16
SIZES = Struct("<II")


def sample_key(
    teacher_ids: Int[np.ndarray, "teacher_time"],
    student_ids: Int[np.ndarray, "student_time"],
    supervised: Bool[np.ndarray, "student_time"],
    starts: Int[np.ndarray, "documents"] | None = None,
) -> bytes:
    """The 16-byte key of one sample, padding removed.

    ``supervised[t]`` says whether position ``t`` is supervised: its next token is a label. ``starts`` are the positions
    other than 0 at which the teacher began another document, of which it saw no earlier tokens. Properties of a whole
    store (teacher, tokenizer, template) are in its header instead. The format is part of docs/targets-format.md.
    """
    assert len(supervised) == len(student_ids), (len(supervised), len(student_ids))
    teacher, student = (np.ascontiguousarray(ids, "<u4").data for ids in (teacher_ids, student_ids))
    return _key(teacher, student, np.packbits(supervised, bitorder="little").data, starts)


def _key(
    teacher: memoryview, student: memoryview, supervised: memoryview, starts: Int[np.ndarray, "documents"] | None
) -> bytes:
    """As :func:`sample_key`, of ids in ``<u4`` and packed bits."""
    same = teacher is student or teacher == student
    digest = hashlib.blake2b(
        SIZES.pack(0 if same else len(teacher), len(student)), digest_size=KEY_BYTES, person=b"potstill sample"
    )
    if not same:
        digest.update(teacher)
    digest.update(student)
    digest.update(supervised)
    if starts is not None and len(starts):
        digest.update(np.ascontiguousarray(starts, "<u4").data)
    return digest.digest()


def key_array(keys: Iterable[bytes]) -> np.ndarray:
    """The keys as an array of `V16`, in which a key takes 16 bytes; as an object of Python it takes 57."""
    return np.frombuffer(b"".join(keys), f"V{KEY_BYTES}")


def uniforms(key: bytes, count: int) -> Float64[np.ndarray, "count"]:
    """Random numbers in (0, 1) that depend only on the sample's key; codecs that sample tokens draw with them.

    So the draws are the same after a resume, on another rank and in another order of samples. The numbers are the upper
    halves of the SplitMix64 stream (Steele, Lea & Flood 2014) that starts at the key's first eight bytes.
    """
    seed = np.frombuffer(key, "<u8", 1)
    z = seed + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return ((z >> np.uint64(32)).astype(np.float64) + 0.5) / 2.0**32


SAMPLES_AT_ONCE = 512


@dataclass(frozen=True)
class Contents:
    """What the samples of a collection hold, in its order."""

    keys: np.ndarray
    """As :func:`key_array` gives them."""
    counts: Int[np.ndarray, "samples"]
    """The supervised tokens of each sample."""
    lengths: Int[np.ndarray, "samples"]
    """The tokens that the teacher reads of each sample."""


@dataclass(frozen=True)
class _Rows:
    """The tokens of each row of a batch, moved to its beginning."""

    ids: Int[np.ndarray, "B T"]
    """In the type of the format, ``<u4``."""
    lengths: Sequence[int]
    starts: Bool[np.ndarray, "B T"]
    """Whether a token begins another document than the one before it."""
    supervised: Bool[np.ndarray, "B T"]


def batch_keys(batch: Mapping[str, Tensor]) -> list[bytes]:
    """The content key of each row of a batch.

    A key covers the tokens that teacher and student read, which of the student's tokens are supervised, and where the
    teacher's documents begin if they are read apart. It does not cover padding.

    ``batch`` holds `input_ids`, `labels` and, if rows are padded, `attention_mask`, all [B, T]. It also holds the
    teacher's columns if the teacher reads other tokens (``data/prompts/collator.py``).
    """
    theirs = teacher_batch(batch)
    student = _rows(batch)
    teacher = student if theirs.keys() == batch.keys() else _rows(theirs)
    taught = np.packbits(student.supervised, axis=1, bitorder="little")
    are_apart = bool(teacher.starts.any())
    keys = []
    for row, (own, others) in enumerate(zip(student.lengths, teacher.lengths, strict=True)):
        ids = student.ids[row, :own].data
        read = ids if teacher is student else teacher.ids[row, :others].data
        starts = np.flatnonzero(teacher.starts[row]) if are_apart else None
        keys.append(_key(read, ids, taught[row, : (own + 7) // 8].data, starts))
    return keys


def _rows(batch: Mapping[str, Tensor]) -> _Rows:
    ids, starts, supervised = (
        each.cpu().numpy() for each in (batch["input_ids"], starts_document(batch), supervised_mask(batch))
    )
    ids = ids.astype("<u4")
    if "attention_mask" not in batch:
        return _Rows(ids, [ids.shape[1]] * len(ids), starts, supervised)
    real = batch["attention_mask"].cpu().numpy().astype(bool)
    lengths = real.sum(1)
    if not real.all():
        order = np.argsort(~real, axis=1, kind="stable")
        ids, starts, supervised = (
            np.take_along_axis(each, order, 1) for each in (ids, starts & real, supervised & real)
        )
    return _Rows(ids, lengths.tolist(), starts, supervised)


def contents(samples: Any, collate: Collate) -> Contents:
    """The contents of the samples of an indexable collection."""
    keys = [key_array([])]
    counts, lengths = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for start in range(0, len(samples), SAMPLES_AT_ONCE):
        batch = collate(rows_at(samples, range(start, min(start + SAMPLES_AT_ONCE, len(samples)))))
        keys.append(key_array(batch_keys(batch)))
        counts.append(count_supervised_by_row(batch).numpy())
        theirs = teacher_batch(batch)
        whole = torch.full((len(theirs["input_ids"]),), theirs["input_ids"].shape[1])
        lengths.append((theirs["attention_mask"].sum(1) if "attention_mask" in theirs else whole).numpy())
    return Contents(np.concatenate(keys), np.concatenate(counts), np.concatenate(lengths))
