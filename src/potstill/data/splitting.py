"""Splitting: which documents are held out, decided by each document's own text and nothing else."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class DocumentSplit:
    """The distinct documents of a corpus, each side in the order of the documents' hashes."""

    train: list[str]
    held_out: list[str]
    repeated: int
    """How many documents were left out because they had occurred before."""


def split_documents(documents: Iterable[str], held_out: float) -> DocumentSplit:
    """DocumentSplit documents into training and held-out ones.

    A document is held out if its hash, read as a fraction, lies below `held_out`: so the same text is on the same side
    whatever else is in the corpus and in whatever order, and no document is on both.
    """
    by_hash: dict[bytes, str] = {}
    count = 0
    for document in documents:
        count += 1
        by_hash.setdefault(hash_of(document), document)
    train: list[tuple[bytes, str]] = []
    held: list[tuple[bytes, str]] = []
    for hashed in sorted(by_hash):
        # The order within a side comes from the rest of the hash: the first bytes decided the side.
        side = held if is_held_out(hashed, held_out) else train
        side.append((hashed[8:], by_hash[hashed]))
    return DocumentSplit([text for _, text in sorted(train)], [text for _, text in sorted(held)], count - len(by_hash))


def hash_of(document: str) -> bytes:
    """What a document is known again by, and split by: 16 bytes."""
    return hashlib.blake2b(document.encode(), digest_size=16).digest()


def is_held_out(hashed: bytes, share: float) -> bool:
    """Whether a document of this hash is held out where so large a share of all documents is."""
    return int.from_bytes(hashed[:8], "big") < share * 2**64
