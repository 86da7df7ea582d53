"""Content keys: a sample is found by its tokens and supervised positions, never by its place in a file."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int, UInt8
from torch import Tensor

from potstill.data.collators import Collate
from potstill.data.labels import count_supervised_by_row, starts_document, supervised_mask
from potstill.data.prompts.collator import teacher_batch

KEY_BYTES = 16


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
    same = teacher_ids is student_ids or np.array_equal(teacher_ids, student_ids)
    assert len(supervised) == len(student_ids), (len(supervised), len(student_ids))
    sizes = np.array([0 if same else len(teacher_ids), len(student_ids)], "<u4")
    digest = hashlib.blake2b(sizes.data, digest_size=KEY_BYTES, person=b"potstill sample")
    if not same:
        digest.update(np.ascontiguousarray(teacher_ids, "<u4").data)
    digest.update(np.ascontiguousarray(student_ids, "<u4").data)
    digest.update(np.packbits(supervised, bitorder="little").data)
    if starts is not None and len(starts):
        digest.update(np.ascontiguousarray(starts, "<u4").data)
    return digest.digest()


def key_array(keys: Iterable[bytes]) -> UInt8[np.ndarray, "samples 16"]:
    """The keys as an array, one key per row."""
    joined = b"".join(keys)
    return np.frombuffer(joined, np.uint8).reshape(-1, KEY_BYTES)


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


def batch_keys(batch: Mapping[str, Tensor]) -> list[bytes]:
    """The content key of each row of a batch.

    A key covers the tokens that teacher and student read, which of the student's tokens are supervised, and where the
    teacher's documents begin if they are read apart. It does not cover padding.

    ``batch`` holds `input_ids`, `labels` and, if rows are padded, `attention_mask`, all [B, T]. It also holds the
    teacher's columns if the teacher reads other tokens (``data/prompts/collator.py``).
    """
    taught = supervised_mask(batch).cpu().numpy()
    theirs = teacher_batch(batch)
    rows = zip(_real_ids(theirs), _real_ids(batch), taught, _real(batch), _starts(theirs), strict=True)
    return [sample_key(teacher, student, row[real], starts) for teacher, student, row, real, starts in rows]


def _real_ids(batch: Mapping[str, Tensor]) -> list[np.ndarray]:
    return [ids[real] for ids, real in zip(batch["input_ids"].cpu().numpy(), _real(batch), strict=True)]


def _starts(batch: Mapping[str, Tensor]) -> list[np.ndarray]:
    begun = zip(starts_document(batch).cpu().numpy(), _real(batch), strict=True)
    return [np.flatnonzero(row[real]) for row, real in begun]


def _real(batch: Mapping[str, Tensor]) -> np.ndarray:
    if "attention_mask" not in batch:
        return np.ones(batch["input_ids"].shape, bool)
    return batch["attention_mask"].cpu().numpy().astype(bool)


def keys_and_counts(samples: Any, collate: Collate) -> tuple[list[bytes], list[int]]:
    """The content key and the number of supervised tokens of each sample in an indexable collection."""
    keys: list[bytes] = []
    counts: list[int] = []
    for start in range(0, len(samples), SAMPLES_AT_ONCE):
        batch = collate([samples[at] for at in range(start, min(start + SAMPLES_AT_ONCE, len(samples)))])
        keys += batch_keys(batch)
        counts += count_supervised_by_row(batch).tolist()
    return keys, counts
