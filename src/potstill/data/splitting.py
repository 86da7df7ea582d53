"""Splitting: the text of each document alone decides whether it is held out."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class DocumentSplit:
    """The distinct documents of a corpus; each side is in the order of the documents' hashes."""

    train: list[str]
    held_out: list[str]
    repeated: int
    """The number of documents left out because they repeat an earlier one."""


def split_documents(documents: Iterable[str], held_out: float) -> DocumentSplit:
    """Split documents into training and held-out ones.

    A document is held out if its hash, read as a fraction, lies below `held_out`. So a text is always on the same side,
    whatever the other documents and their order, and no document is on both sides.
    """
    by_hash: dict[bytes, str] = {}
    count = 0
    for document in documents:
        count += 1
        by_hash.setdefault(hash_of(document), document)
    train: list[tuple[bytes, str]] = []
    held: list[tuple[bytes, str]] = []
    for hashed in sorted(by_hash):
        # The rest of the hash gives the order within a side, because the first bytes decided the side.
        side = held if is_held_out(hashed, held_out) else train
        side.append((hashed[8:], by_hash[hashed]))
    return DocumentSplit([text for _, text in sorted(train)], [text for _, text in sorted(held)], count - len(by_hash))


def hash_of(document: str) -> bytes:
    """The 16-byte hash by which a document is split and its repeats are found."""
    return hashlib.blake2b(document.encode(), digest_size=16).digest()


def is_held_out(hashed: bytes, share: float) -> bool:
    """Whether a document with this hash is held out when `share` of all documents is."""
    return int.from_bytes(hashed[:8], "big") < share * 2**64
