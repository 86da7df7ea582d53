"""StoreWriter: writes the targets of a list of samples into a store, with any number of workers and resumes.

The list alone decides the place of each record: sample ``i`` lies in shard ``i // samples_per_shard``. So a finished
store is byte for byte the same for any number of workers and interruptions.
"""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from jaxtyping import Int

from potstill.errors import UserError
from potstill.files.atomic import check_room
from potstill.losses.span_likelihood import TokenNumbers
from potstill.losses.teacher_target import TeacherTarget
from potstill.models.head import Head
from potstill.models.head_bytes import head_bytes, head_entry
from potstill.targets.codecs.hidden_states import HiddenCodec
from potstill.targets.codecs.registry import Codec, estimate
from potstill.targets.codecs.spans import SpanNumbers
from potstill.targets.content_keys import key_array, uniforms
from potstill.targets.describe import samples_written
from potstill.targets.durable_writes import locked
from potstill.targets.head_file import write_head
from potstill.targets.header import NAME, Header, Provenance, expect_same, plan_digest, read_header, write_header
from potstill.targets.key_index import first_places
from potstill.targets.shard import ENTRY, ShardWriter, index_path, records_path

SHARD_BYTES = 256 << 20
SMALLEST_SHARD = 256
MOST_SHARDS = 512


def shard_size(samples: int, total_bytes: int) -> int:
    """The number of samples per shard: at least 8 shards for up to 8 workers, but no shard below `SMALLEST_SHARD`."""
    shards = min(max(8, math.ceil(total_bytes / SHARD_BYTES)), MOST_SHARDS)
    return max(SMALLEST_SHARD, math.ceil(samples / shards))


@dataclass(frozen=True)
class StoreSpec:
    """A store that is to be written."""

    folder: Path
    codec: Codec
    """What it keeps of each token."""
    provenance: Provenance
    """Where its targets come from."""


class StoreWriter:
    """Writes a store, or the samples that it still lacks.

    Args:
        spec: the store.
        keys: the :func:`sample_key` of each sample, in an order that stays the same. Repeated keys are written once.
        counts: the number of supervised tokens of each sample.
        head: the teacher's head, for hidden states only.
        samples_per_shard: the number of samples per shard; by default :func:`shard_size`.

    Raises:
        UserError: there is nothing to capture, the folder holds a store of other settings or samples, or the disk has
            too little room.
    """

    def __init__(
        self,
        spec: StoreSpec,
        keys: Sequence[bytes] | np.ndarray,
        counts: Sequence[int] | Int[np.ndarray, "samples"],
        head: Head | None = None,
        samples_per_shard: int | None = None,
    ) -> None:
        self.store, self.codec = spec.folder, spec.codec
        assert (head is not None) == isinstance(self.codec, HiddenCodec), "only hidden states need the teacher's head"
        assert len(keys) == len(counts), (len(keys), len(counts))
        given = keys if isinstance(keys, np.ndarray) and keys.dtype == ENTRY["key"] else key_array(keys)
        self._chosen = first_places(given)
        self._planned = np.zeros(len(self._chosen), ENTRY)
        self._planned["key"] = given[self._chosen]
        self._planned["count"] = np.asarray(counts)[self._chosen]
        tokens = int(self._planned["count"].sum(dtype=np.int64))
        if not tokens:
            raise UserError("there is nothing to capture: no sample has a supervised token.")
        samples = len(self._planned)
        size = samples_per_shard or shard_size(samples, estimate(self.codec, tokens, samples).total_bytes)
        saved = head_bytes(head) if head else b""
        entry = head_entry(head, saved) if head else None
        self.header = Header(spec.provenance, self.codec, samples, tokens, size, plan_digest([self._planned]), entry)
        self._open: list[ShardWriter] = []
        self._asked: deque[tuple[ShardWriter, slice]] = deque()
        self._begin(saved)

    def _begin(self, head: bytes) -> None:
        self.store.mkdir(parents=True, exist_ok=True)
        with locked(self.store):
            if (self.store / NAME).exists():
                expect_same(self.store, read_header(self.store), self.header)
            else:
                if head:
                    write_head(self.store, head)
                write_header(self.store, self.header)
        self._check_disk_room()

    def samples_written(self) -> int:
        """The number of samples that all workers have committed so far."""
        return samples_written(self.store)

    def _check_disk_room(self) -> None:
        there = sum(
            path(self.store, shard).stat().st_size
            for shard in range(self.header.shards)
            for path in (records_path, index_path)
            if path(self.store, shard).exists()
        )
        need = estimate(self.codec, self.header.tokens, self.header.samples).total_bytes - there
        less = "keep less (capture.k)" if self.codec.mode in ("top_k", "hybrid") else "capture less text"
        check_room(self.store, need, less)

    def pending(self, batch_size: int, worker: int = 0, workers: int = 1) -> Iterator[Int[np.ndarray, "batch"]]:
        """The batches that worker ``worker`` of ``workers`` still has to write, as places in ``keys``.

        Call :meth:`write` for the batches in their order; any number of them may be asked for ahead. The same batch
        size gives the same batches.

        Raises:
            UserError: another process writes one of these shards.
        """
        size = self.header.samples_per_shard
        for number in range(worker, self.header.shards, workers):
            start, stop = number * size, min((number + 1) * size, self.header.samples)
            planned = self._planned[start:stop]
            shard = ShardWriter(self.store, number, planned, self.codec.layout.record_bytes, batch_size)
            self._open.append(shard)
            for at in range(start + shard.done, stop, batch_size):
                batch = slice(at, min(at + batch_size, stop))
                self._asked.append((shard, batch))
                yield self._chosen[batch]
            self._close_finished()

    def write(self, target: TeacherTarget | SpanNumbers | TokenNumbers) -> None:
        """Write the first batch of :meth:`pending` that is not written yet.

        ``target`` covers the batch's supervised tokens, sample after sample.

        Raises:
            UserError: the disk is full, or the target does not fit the store. Committed samples stay.
        """
        assert self._asked, "write() answers a batch from pending()"
        shard, batch = self._asked.popleft()
        entries = self._planned[batch]
        drawn = [uniforms(entry["key"].tobytes(), int(entry["count"])) for entry in entries]
        with torch.no_grad():
            records = self.codec.encode(target, torch.from_numpy(np.concatenate(drawn)))  # type: ignore[arg-type]
        assert len(records) == entries["count"].sum(), f"{len(records)} targets for {entries['count'].sum()} tokens"
        shard.append(records.cpu().numpy(), len(entries))
        self._close_finished()

    def close(self) -> None:
        """Commit everything written so far."""
        for shard in self._open:
            shard.close()

    def _close_finished(self) -> None:
        for shard in [one for one in self._open if one.done == len(one.planned)]:
            shard.close()
            self._open.remove(shard)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()
