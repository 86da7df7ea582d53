"""Splitting: the text of each document alone decides whether it is held out."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from potstill.data.stored_texts import StoredTexts, TaughtText, TextStore


@dataclass(frozen=True)
class DocumentSplit:
    """The distinct documents of a corpus. They lie in a temporary file, and each is read when it is asked for."""

    train: StoredTexts
    held_out: StoredTexts
    repeated: int
    """The number of documents left out because they repeat an earlier one."""


def split_documents(documents: Iterable[TaughtText], held_out: float, folder: Path | None = None) -> DocumentSplit:
    """Split documents into training and held-out ones; each side is in the order of the documents' hashes.

    A document is held out if its hash, read as a fraction, lies below `held_out`. So a text is always on the same side,
    whatever the other documents and their order, and no document is on both sides.

    Args:
        documents: the documents.
        held_out: the share that is held out.
        folder: the folder of the temporary file; see :class:`TextStore`.
    """
    store = _stored(documents, folder)
    places, hashes = store.distinct(), store.hashes()
    # The rest of the hash gives the order within a side, because the first bytes decided the side.
    places = places[np.argsort(hashes[places, 1], kind="stable")]
    held = hashes[places, 0] < np.uint64(math.ceil(held_out * 2**64))
    return DocumentSplit(store.texts(places[~held]), store.texts(places[held]), len(store) - len(places))


def split_from(
    documents: Iterable[TaughtText], held_out: Iterable[TaughtText], folder: Path | None = None
) -> DocumentSplit:
    """Training documents beside held-out ones of their own; both in the order in which they come.

    A training document that is held out too is left out. `held_out` is read first.
    """
    store = _stored(held_out, folder)
    first = len(store)
    for document in documents:
        store.add(*document)
    places = np.sort(store.distinct())
    train, held = places[places >= first], places[places < first]
    return DocumentSplit(store.texts(train), store.texts(held), len(store) - first - len(train))


def _stored(documents: Iterable[TaughtText], folder: Path | None) -> TextStore:
    store = TextStore(folder)
    for document in documents:
        store.add(*document)
    return store


def is_held_out(hashed: bytes, share: float) -> bool:
    """Whether a document with this hash is held out when `share` of all documents is."""
    return int.from_bytes(hashed[:8], "big") < share * 2**64
