"""TargetStore: captured targets, read by content."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8, UInt32
from torch import Tensor

from potstill.errors import UserError
from potstill.losses.span_likelihood import TokenNumbers
from potstill.losses.teacher_target import HiddenTarget, SparseTarget
from potstill.models.head import Head
from potstill.targets.codecs.hidden_states import HiddenCodec
from potstill.targets.codecs.spans import SpanCodec, SpanNumbers
from potstill.targets.head_file import read_head
from potstill.targets.header import Header, Provenance, expect_provenance, plan_digest, read_header
from potstill.targets.key_index import KeyIndex
from potstill.targets.shard import checksum, index_path, mapped, read_index, records_path


class TargetStore:
    """A finished store, open for reading.

    Opening reads the index and compares it with the header; records are checked when a sample is first read. A store
    pickles as its path, so that each DataLoader worker opens its own. Samples may be read in any order.

    Args:
        store: the folder.
        expect: the provenance that the targets must have; ``None`` only to inspect a store.

    Raises:
        UserError: there is no store, it is unfinished or damaged, or its teacher, tokenizer or template is another one.
    """

    def __init__(self, store: Path | str, expect: Provenance | None) -> None:
        self.path, self.expect = Path(store), expect
        self.header: Header = read_header(self.path)
        if expect is not None:
            expect_provenance(self.path, self.header.provenance, expect)
        self.codec = self.header.codec
        self._index = self._read_index()
        self._check_sizes()
        self._verified = np.zeros(len(self._index), bool)
        self._heads: dict[torch.device, Head] = {}
        self._maps: dict[int, UInt8[np.ndarray, "rows record_bytes"]] = {}
        self._starts: dict[int, UInt32[np.ndarray, "samples"]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return TargetStore, (self.path, self.expect)

    def __len__(self) -> int:
        return len(self._index)

    def _read_index(self) -> KeyIndex:
        size, samples = self.header.samples_per_shard, self.header.samples
        parts = []
        for shard in range(self.header.shards):
            parts.append(read_index(self.path, shard))
            planned = min(size, samples - shard * size)
            if len(parts[-1]) != planned:
                raise UserError(
                    f"{self.path} is not finished ({len(parts[-1])} of {planned} samples in "
                    f"{index_path(self.path, shard).name}): run `potstill capture` again, it writes only "
                    "the missing samples."
                )
        if plan_digest(parts) != self.header.plan:
            raise UserError(
                f"the index of {self.path} is damaged (it does not match {self.path / 'store.json'}): "
                f"delete its *.index files and run `potstill capture` again."
            )
        return KeyIndex(parts)

    def find(self, keys: Sequence[bytes]) -> Int[np.ndarray, "samples"]:
        """The places of the samples in the store.

        Raises:
            UserError: a sample was not captured.
        """
        places = self._index.find(keys)
        if missing := int((places < 0).sum()):
            what, why = "samples", "they were cut, masked or prompted otherwise; capture the training samples"
            if isinstance(self.codec, SpanCodec):
                what, why = "blocks of documents", "their text is another one; capture the training documents"
            raise UserError(
                f"{missing} of {len(keys)} {what} are not among the {len(self)} captured in {self.path}: {why} with "
                "`potstill capture`."
            )
        return places

    def counts(self, keys: Sequence[bytes]) -> Int[np.ndarray, "samples"]:
        """The number of supervised tokens of each sample."""
        return np.array([self._index.entry(place)["count"] for place in self.find(keys).tolist()], np.int64)

    def _rows(self, shard: int) -> int:
        return int(self._index.shards[shard]["count"].sum(dtype=np.int64))

    def _start(self, shard: int, row: int) -> int:
        """The place among a shard's records at which the records of its sample number `row` start."""
        if shard not in self._starts:
            counts = self._index.shards[shard]["count"]
            self._starts[shard] = np.cumsum(counts, dtype=np.uint32) - counts
        return int(self._starts[shard][row])

    def _check_sizes(self) -> None:
        for shard in range(self.header.shards):
            path, need = records_path(self.path, shard), self._rows(shard) * self.codec.layout.record_bytes
            have = path.stat().st_size if path.exists() else 0
            if have != need:
                raise UserError(
                    f"{path} is damaged: it has {have} bytes instead of {need}; delete it and run `potstill capture` "
                    f"again, which writes only this file."
                )

    def _shard(self, shard: int) -> UInt8[np.ndarray, "rows record_bytes"]:
        """The records of a shard, memory-mapped."""
        if shard not in self._maps:
            records = mapped(records_path(self.path, shard))
            self._maps[shard] = records.reshape(-1, self.codec.layout.record_bytes)
        return self._maps[shard]

    def _records(self, sample: int) -> UInt8[np.ndarray, "n record_bytes"]:
        """The records of one sample, after a check of their checksum."""
        shard, row = divmod(sample, self.header.samples_per_shard)
        start, entry = self._start(shard, row), self._index.entry(sample)
        records = self._shard(shard)[start : start + int(entry["count"])]
        if not self._verified[sample]:
            if checksum(records) != entry["checksum"]:
                path = records_path(self.path, shard)
                raise UserError(
                    f"{path} is damaged: the checksum of a sample is wrong; delete it and run `potstill capture` "
                    f"again, which writes only this file."
                )
            self._verified[sample] = True
        return records

    def records(self, keys: Sequence[bytes]) -> list[UInt8[np.ndarray, "n record_bytes"]]:
        """The undecoded records of each sample. Do not write to them.

        Raises:
            UserError: a sample was not captured, or its file is damaged.
        """
        return [self._records(sample) for sample in self.find(keys).tolist()]

    def packed(self, keys: Sequence[bytes]) -> UInt8[Tensor, "N record_bytes"]:
        """The undecoded records of the samples, one after another, as a collator puts them into a batch.

        Raises:
            UserError: as :meth:`records`.
        """
        parts = self.records(keys)
        if not parts:
            return torch.empty(0, self.codec.layout.record_bytes, dtype=torch.uint8)
        return torch.from_numpy(np.concatenate(parts))

    def decode(
        self, packed: UInt8[Tensor, "N record_bytes"], temperature: float = 1.0
    ) -> SparseTarget | HiddenTarget | SpanNumbers | TokenNumbers:
        """Decode records into targets, on the device of the records.

        Raises:
            UserError: the store was not captured at this temperature.
        """
        if not isinstance(self.codec, HiddenCodec):
            return self.codec.decode(packed, temperature)
        if packed.device not in self._heads:
            assert self.header.head is not None
            self._heads[packed.device] = read_head(self.path, self.header.head, packed.device)
        return self.codec.decode(packed, temperature, self._heads[packed.device])

    def read(
        self, keys: Sequence[bytes], temperature: float = 1.0, device: torch.device | str | None = None
    ) -> SparseTarget | HiddenTarget | SpanNumbers | TokenNumbers:
        """The targets of the samples, sample after sample: :meth:`packed` and then :meth:`decode`."""
        return self.decode(self.packed(keys).to(device), temperature)

    def verify(self) -> Iterator[int]:
        """Check the head and every record; yields the number of samples that passed so far.

        Raises:
            UserError: names the first damaged file.
        """
        if self.header.head is not None:
            read_head(self.path, self.header.head, torch.device("cpu"))
        for sample in range(len(self)):
            self._records(sample)
            yield sample + 1
