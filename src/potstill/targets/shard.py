"""One shard of a store: a file of records and a file of index entries, both append-only.

Records reach the disk before their index entries. So after a writer was killed, every whole entry that matches the plan
and its checksum is valid. The next writer cuts off everything after the last valid entry.
"""

import fcntl
import os
import time
import zlib
from pathlib import Path
from typing import Self

import numpy as np
import torch
from jaxtyping import UInt8

from potstill.errors import UserError
from potstill.targets.durable_writes import write_all

ENTRY = np.dtype([("key", "V16"), ("count", "<u4"), ("checksum", "<u4")])
"""One sample in the index: its key, its number of records, and their CRC-32."""

COMMIT_SECONDS = 5.0
"""The most work, in seconds, that a killed capture loses."""


def records_path(store: Path, shard: int) -> Path:
    """The file of a shard's records."""
    return store / f"{shard:05d}.records"


def index_path(store: Path, shard: int) -> Path:
    """The file of a shard's index entries."""
    return store / f"{shard:05d}.index"


def read_index(store: Path, shard: int) -> np.ndarray:
    """The whole entries of a shard, as ENTRY; empty if the shard does not exist yet."""
    path = index_path(store, shard)
    found = mapped(path) if path.exists() else np.empty(0, np.uint8)
    return found[: len(found) // ENTRY.itemsize * ENTRY.itemsize].view(ENTRY)


def mapped(path: Path) -> UInt8[np.ndarray, "bytes"]:
    """The bytes of a file, which are read when they are used. Do not write to them.

    The map holds no open file, unlike Python's own: a process may often have 1,024, and a store has as many.
    """
    size = path.stat().st_size
    if not size:
        return np.empty(0, np.uint8)
    bytes_: np.ndarray = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).numpy()
    return bytes_


def checksum(records: UInt8[np.ndarray, "n record_bytes"]) -> int:
    """CRC-32 (as in zlib) of a sample's records."""
    return zlib.crc32(records.data)


class ShardWriter:
    """Appends samples to one shard, from where an earlier writer stopped; it is the shard's only writer.

    Args:
        store: the folder.
        shard: the shard's number.
        planned: the shard's samples in order, as ENTRY, with checksums still unknown.
        record_bytes: the size of a record.
        align: resume at a multiple of this many samples, so that batches are those of an uninterrupted run.

    Raises:
        UserError: another process writes this shard.
    """

    def __init__(self, store: Path, shard: int, planned: np.ndarray, record_bytes: int, align: int) -> None:
        self.path, self.index = records_path(store, shard), index_path(store, shard)
        self.planned, self.record_bytes = planned, record_bytes
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
        self._records = os.open(self.path, flags, 0o644)
        try:
            fcntl.flock(self._records, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._records)
            raise UserError(f"{self.path} is being written by another process: wait for it, or stop it.") from None
        self._entries = os.open(self.index, flags, 0o644)
        self._uncommitted: list[np.ndarray] = []
        self._committed = time.monotonic()
        self.done = self._valid_samples(read_index(store, shard)[: len(planned)], align)
        os.ftruncate(self._entries, self.done * ENTRY.itemsize)
        os.ftruncate(self._records, int(planned["count"][: self.done].sum(dtype=np.int64)) * record_bytes)

    def _valid_samples(self, found: np.ndarray, align: int) -> int:
        """The number of samples of an earlier writer that can stay."""
        stops = np.cumsum(found["count"], dtype=np.int64) * self.record_bytes
        planned = self.planned[: len(found)]
        good = (found["key"] == planned["key"]) & (found["count"] == planned["count"])
        good &= stops <= os.fstat(self._records).st_size
        done = len(found) if good.all() else int(good.argmin())
        if done == len(self.planned):
            return done
        for sample in range(done):
            size = int(found["count"][sample]) * self.record_bytes
            if zlib.crc32(os.pread(self._records, size, int(stops[sample]) - size)) != found["checksum"][sample]:
                done = sample
                break
        return done - done % align

    def append(self, records: UInt8[np.ndarray, "n record_bytes"], samples: int) -> None:
        """Append the records of the next ``samples`` samples.

        Raises:
            UserError: the disk is full. The shard can be opened again and continued.
        """
        entries = self.planned[self.done : self.done + samples].copy()
        assert len(entries) == samples
        stops = np.cumsum(entries["count"], dtype=np.int64)
        assert records.shape == (stops[-1], self.record_bytes), (records.shape, stops[-1], self.record_bytes)
        parts = np.split(np.ascontiguousarray(records), stops[:-1])
        entries["checksum"] = [checksum(part) for part in parts]
        self._write(self._records, records, self.path)
        self.done += samples
        self._uncommitted.append(entries)
        if self.done == len(self.planned) or time.monotonic() - self._committed >= COMMIT_SECONDS:
            self.commit()

    def commit(self) -> None:
        """Write everything appended so far durably to the disk.

        Raises:
            UserError: the disk is full. The shard can be opened again and continued.
        """
        if self._uncommitted:
            os.fsync(self._records)
            self._write(self._entries, np.concatenate(self._uncommitted), self.index)
            os.fsync(self._entries)
        self._uncommitted, self._committed = [], time.monotonic()

    def _write(self, file: int, data: np.ndarray, path: Path) -> None:
        try:
            write_all(file, np.ascontiguousarray(data), path)
        except BaseException:
            self._release()
            raise

    def _release(self) -> None:
        """Close the shard's files. The next writer cuts off records without an entry."""
        os.close(self._entries)
        os.close(self._records)
        self._records, self._uncommitted = -1, []

    def close(self) -> None:
        """Commit and close the shard."""
        if self._records >= 0:
            self.commit()
            self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()
