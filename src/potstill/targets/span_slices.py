"""Span slices: what a store of spans says of a part of a document.

A store for students of every tokenizer cannot be found by a student's tokens. It is found by text. A teacher reads
whole documents, and a sample of the store is one block of a document: the bytes from ``k * block`` to
``(k + 1) * block``. Its records are the teacher's tokens that end in it. A student's sample says which bytes of which
documents its tokens are (``data/text_runs.py``), and takes the teacher's tokens that end among these bytes.

The key of a block hashes the document's text and the number of the block. How the teacher reads (its tokenizer, the
size of blocks, the tokens before them) is in the header, and is the same for a whole store.
"""

import hashlib
from collections.abc import Iterable, Sequence
from struct import Struct
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int, UInt8

from potstill.data.stored_texts import hash_of
from potstill.targets.codecs.spans import SpanCodec
from potstill.targets.content_keys import KEY_BYTES
from potstill.targets.store import TargetStore

_BLOCK = Struct("<I")


def block_key(document: bytes, block: int) -> bytes:
    """The 16-byte key of a block of a document, given the document's 16-byte hash (``stored_texts.hash_of``)."""
    return hashlib.blake2b(document + _BLOCK.pack(block), digest_size=KEY_BYTES, person=b"potstill spans").digest()


class SpanSlice(NamedTuple):
    """What a teacher says of some bytes of a document, for each of its n tokens that end there."""

    ends: Int[np.ndarray, "n"]
    """The bytes of the document up to each token's end."""
    lost: Bool[np.ndarray, "n"]
    records: UInt8[np.ndarray, "n record_bytes"]
    """The records of the tokens, whose steps are not those of the slice."""


class SpanSlices:
    """A store of spans, read by parts of documents.

    Args:
        store: the store.
    """

    def __init__(self, store: TargetStore) -> None:
        assert isinstance(store.codec, SpanCodec)
        self.store, self.codec = store, store.codec

    def read(self, parts: Sequence[tuple[bytes, int, int]]) -> list[SpanSlice]:
        """The slices of some parts of documents.

        Args:
            parts: a document's hash, and the first byte and the end of the part. A part is not empty. Its tokens end
                after its first byte, or, at a document's beginning, before.

        Raises:
            UserError: a document was not captured, or the store is damaged.
        """
        blocks = [
            (document, number)
            for document, begin, end in parts
            for number in range(begin // self.codec.block, (end - 1) // self.codec.block + 1)
        ]
        records, slices = iter(self.store.records([block_key(*block) for block in blocks])), list[SpanSlice]()
        for _, begin, end in parts:
            numbers = range(begin // self.codec.block, (end - 1) // self.codec.block + 1)
            slices.append(self._cut([(number, next(records)) for number in numbers], begin, end))
        return slices

    def check(self, documents: Iterable[str]) -> None:
        """Check that some documents were captured.

        Raises:
            UserError: one was not.
        """
        for document in documents:
            hashed, blocks = hash_of(document), -(-len(document.encode()) // self.codec.block)
            self.store.find([block_key(hashed, number) for number in range(blocks)])

    def _cut(
        self, blocks: Sequence[tuple[int, UInt8[np.ndarray, "n record_bytes"]]], begin: int, end: int
    ) -> SpanSlice:
        records = np.concatenate([own for _, own in blocks])
        numbers = self.codec.decode(torch.from_numpy(records))
        steps, ends, at = numbers.step.numpy(), np.empty(len(records), np.int64), 0
        for number, own in blocks:
            part = slice(at, at + len(own))
            ends[part] = number * self.codec.block + steps[part].cumsum()
            at = part.stop
        inside = (ends <= end) & ((ends > begin) | (begin == 0))
        return SpanSlice(ends[inside], numbers.lost.numpy()[inside], records[inside])
