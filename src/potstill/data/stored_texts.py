"""Stored texts: documents in a temporary file, so that a corpus of any size needs little memory.

Of each document, only a 16-byte hash and its place in the file stay in memory.
"""

import hashlib
import os
from array import array
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, NamedTuple, overload

import numpy as np
from jaxtyping import Int, UInt64

from potstill.data.row_teachers import Teachers


def hash_of(document: str) -> bytes:
    """The 16-byte hash by which a document is split and its repeats are found."""
    return _hash(document.encode())


def _hash(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


class TaughtText(NamedTuple):
    """A document, and its teachers where rows have teachers of their own."""

    text: str
    teachers: Teachers = ()


class TextStore:
    """Documents that were added one by one, repeats among them.

    Args:
        folder: a folder on the disk that keeps the file; default: the system's folder for temporary files.
    """

    def __init__(self, folder: Path | None = None) -> None:
        # Not closed here: the texts read from it as long as they live, and it goes with the last of them.
        self._file = TemporaryFile(dir=folder)  # noqa: SIM115
        self._hashes, self._stops, self._size = bytearray(), array("q"), 0
        # There are few sets of teachers, and many documents.
        self._sets, self._set_of = dict[Teachers, int](), array("H")

    def __len__(self) -> int:
        return len(self._stops)

    def add(self, text: str, teachers: Teachers = ()) -> None:
        """Add a document."""
        content = text.encode()
        self._hashes += _hash(content)
        self._size += self._file.write(content)
        self._stops.append(self._size)
        self._set_of.append(self._sets.setdefault(teachers, len(self._sets)))

    def hashes(self) -> UInt64[np.ndarray, "documents 2"]:
        """The hash of each document, as two numbers whose order is that of the bytes."""
        return np.frombuffer(bytes(self._hashes), ">u8").astype(np.uint64).reshape(-1, 2)

    def distinct(self) -> Int[np.ndarray, "distinct"]:
        """The places of the distinct documents, in the order of their hashes; of repeats, the first place."""
        hashes = self.hashes()
        order = np.lexsort((hashes[:, 1], hashes[:, 0]))
        new = np.ones(len(order), bool)
        new[1:] = (hashes[order[1:]] != hashes[order[:-1]]).any(1)
        return order[new]

    def texts(self, places: Int[np.ndarray, "texts"]) -> "StoredTexts":
        """The documents at these places, in this order."""
        self._file.flush()
        stops = np.frombuffer(bytes(self._stops), np.int64)
        starts = np.concatenate([[0], stops[:-1]])
        sets, set_of = list(self._sets), np.frombuffer(bytes(self._set_of), np.uint16)
        return StoredTexts(self._file, starts[places], stops[places], [sets[number] for number in set_of[places]])


class StoredTexts(Sequence[str]):
    """Documents of a :class:`TextStore`; each is read when it is asked for."""

    def __init__(self, file: IO[bytes], starts: np.ndarray, stops: np.ndarray, teachers: Sequence[Teachers]) -> None:
        self._file, self._starts, self._stops = file, starts, stops
        self.teachers = teachers
        """The teachers of each document."""

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> "StoredTexts": ...
    def __getitem__(self, index: int | slice) -> "str | StoredTexts":
        if isinstance(index, slice):
            return StoredTexts(self._file, self._starts[index], self._stops[index], self.teachers[index])
        start = int(self._starts[index])
        # Not mapped into memory, where its pages would count as this process's own.
        return os.pread(self._file.fileno(), int(self._stops[index]) - start, start).decode()
