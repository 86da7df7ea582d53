"""Word vectors: read from the usual formats for the words that occur, and averaged over a text's words.

A file of three million words is streamed; only the vectors of wanted words are kept.
"""

import gzip
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from potstill.errors import UserError
from potstill.files.installed_packages import package_files
from potstill.files.named_files import named_path
from potstill.metrics.bootstrap import Array
from potstill.recipe.continuations import Vectors
from potstill.recipe.corpus import PackageFiles

WORD = re.compile(r"\w+(?:['’-]\w+)*")


@dataclass(frozen=True)
class WordVectors:
    """The vectors of some words, all of one dimension D."""

    vectors: dict[str, Array]
    dimension: int

    def average(self, texts: Sequence[str]) -> Array:
        """The mean of the vectors of each text's words, [U, D]; zeros if no word has a vector.

        A word without a vector is tried in lower case, then by its parts ("city's", "well-known"), and otherwise left
        out.
        """
        rows = [self._of(text) for text in texts]
        return np.stack([np.mean(row, axis=0) if row else np.zeros(self.dimension) for row in rows])

    def coverage(self, texts: Iterable[str]) -> float:
        """The share of the texts' words that have a vector."""
        words = [word for text in texts for word in WORD.findall(text)]
        return sum(bool(self._found(word)) for word in words) / len(words) if words else 0.0

    def _of(self, text: str) -> list[Array]:
        return [vector for word in WORD.findall(text) for vector in self._found(word)]

    def _found(self, word: str) -> list[Array]:
        for ways in forms(word):
            found = [self.vectors[way] for way in ways if way in self.vectors]
            if found:
                return found
        return []


def forms(word: str) -> list[list[str]]:
    """The forms in which a word is tried: as it is written, in lower case, by its parts."""
    lower = word.lower()
    return [[word], [lower], re.findall(r"\w+", lower)]


def words_of(texts: Iterable[str]) -> set[str]:
    """Every form of every word of some texts."""
    return {way for text in texts for word in WORD.findall(text) for ways in forms(word) for way in ways}


def vectors_file(given: Vectors, key: str) -> Path:
    """A recipe's file of word vectors. Raises UserError if it is in a package that is not installed."""
    if not isinstance(given, PackageFiles):
        return named_path(given.path)
    try:
        return package_files(given.package, given.file, key, "file")[0]
    except UserError as error:
        raise UserError(f"{error}; or name a file of word vectors, or set `{key}` to `null`") from None


def read_vectors(file: Path, words: set[str], key: str) -> WordVectors:
    """The vectors of some words.

    Args:
        file: the text format of GloVe or word2vec, or word2vec's binary format (`.bin`), also compressed (`.gz`). Or
            `.npy` with a row for each word, and beside it one `.parquet` whose first column has the words.
        words: the wanted words.
        key: the recipe key that named the file.

    Raises:
        UserError: there is no such file, or it has none of these formats; names the line.
    """
    found: dict[str, Array] = {}
    dimension = check_vectors(file, key)
    for word, vector in _all(file, key, words):
        if word not in found:
            found[word] = np.asarray(vector, dtype=np.float64)
    return WordVectors(found, dimension)


def check_vectors(file: Path, key: str) -> int:
    """The vectors' dimension, read from the beginning of the file.

    Raises:
        UserError: there is no such file, or its beginning has none of the formats.
    """
    if not file.is_file():
        raise UserError(
            f"`{key}`: there is no file {str(file)!r} (seen from {Path.cwd()}); name a file of word vectors"
        )
    if file.suffix == ".npy":
        return int(_array(file, key)[0].shape[1])
    with _opened(file) as stream:
        _, dimension = _beginning(stream, file, key)
    return dimension


def _all(file: Path, key: str, words: set[str]) -> Iterator[tuple[str, Any]]:
    if file.suffix == ".npy":
        array, names = _array(file, key)
        yield from ((name, array[row]) for row, name in enumerate(names) if name in words)
        return
    with _opened(file) as stream:
        count, dimension = _beginning(stream, file, key)
        if file.name.removesuffix(".gz").endswith(".bin"):
            assert count is not None
            yield from _binary(stream, count, dimension, file, key, words)
        else:
            yield from _text(stream, dimension, file, key, words)


def _array(file: Path, key: str) -> tuple[NDArray[Any], list[str]]:
    import pyarrow.parquet

    tables = sorted(file.parent.glob("*.parquet"))
    if len(tables) != 1:
        raise UserError(
            f"`{key}`: the words of {file} must be in one .parquet file beside it, and there are {len(tables)}"
        )
    array, names = np.load(file, mmap_mode="r"), pyarrow.parquet.read_table(tables[0]).column(0).to_pylist()
    if array.ndim != 2 or len(array) != len(names):
        raise UserError(
            f"`{key}`: {file} is {array.shape}, and {tables[0].name} has {len(names):,} words; they must match"
        )
    return array, names


def _opened(file: Path) -> IO[bytes]:
    return gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb")  # type: ignore[return-value]


def _beginning(stream: IO[bytes], file: Path, key: str) -> tuple[int | None, int]:
    """The number of words, if the format has it, and the dimension. Leaves the stream at the first word."""
    line = stream.readline(2**20)
    header = line.split()
    if len(header) == 2 and all(part.isdigit() for part in header):
        return int(header[0]), int(header[1])
    if file.name.removesuffix(".gz").endswith(".bin"):
        raise UserError(
            f"`{key}`: {file} is not a binary word2vec file, which begins with two numbers; name another file"
        )
    dimension = sum(_is_number(part) for part in header[1:])
    if dimension < 2:
        raise UserError(f"`{key}`: line 1 of {file} is not a word with its vector; name a GloVe or word2vec file")
    stream.seek(0)
    return None, dimension


def _text(
    stream: IO[bytes], dimension: int, file: Path, key: str, words: set[str]
) -> Iterator[tuple[str, list[float]]]:
    for number, line in enumerate(stream, 1):
        # Split from the right: in some files, words contain spaces.
        parts = line.decode("utf-8", "replace").rstrip().rsplit(" ", dimension)
        if len(parts) != dimension + 1:
            raise UserError(
                f"`{key}`: vector {number} of {file} does not have {dimension} numbers; the file is damaged"
            )
        if parts[0] in words:
            try:
                yield parts[0], [float(part) for part in parts[1:]]
            except ValueError:
                raise UserError(
                    f"`{key}`: vector {number} of {file} is not made of numbers; the file is damaged"
                ) from None


def _binary(
    stream: IO[bytes], count: int, dimension: int, file: Path, key: str, words: set[str]
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    for number in range(1, count + 1):
        name = bytearray()
        while (letter := stream.read(1)) not in (b" ", b""):
            name += letter
        vector = stream.read(4 * dimension)
        if len(vector) < 4 * dimension:
            raise UserError(f"`{key}`: {file} ends within vector {number} of {count:,}; the file is cut short")
        word = name.decode("utf-8", "replace").lstrip("\n")
        if word in words:
            yield word, np.frombuffer(vector, dtype="<f4")


def _is_number(part: bytes) -> bool:
    try:
        float(part)
    except ValueError:
        return False
    return True
