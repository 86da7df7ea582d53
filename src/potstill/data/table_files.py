"""Tables: reads the rows of .jsonl, .json, .csv and .parquet files one by one, as they stand in the file.

No type is guessed: a text of a .csv file is never a number, a date or a missing value.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from json import JSONDecodeError, JSONDecoder
from pathlib import Path
from typing import Any, TextIO

TableRow = tuple[int, Mapping[str, Any]]
"""A row's line in a file of JSON lines, or else its number, from 1; and its columns."""

CHUNK = 2**20
"""The number of characters of an array that are read at a time."""

BATCH = 5000
"""The number of rows of a .csv or .parquet file that are read at a time."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
SPACE = re.compile(r"[ \t\r\n]*")
SURROGATE = re.compile("[\ud800-\udfff]")


def table_rows(file: Path, column: str | None = None) -> Iterator[TableRow]:
    """The rows of a table.

    Args:
        file: its ending is one of `READERS`.
        column: the only column that is wanted, and checked; the others may be absent from the rows. None: all.

    Raises:
        ValueError: what is wrong with the file, and where. OSError, pyarrow.ArrowException: it is damaged.
    """
    yield from READERS[file.suffix](file, column)


def _json_rows(file: Path, column: str | None) -> Iterator[TableRow]:
    """JSON lines, or one array of objects; what the file begins with decides, not its name."""
    found = _array_rows(file) if _begins_with_bracket(file) else _line_rows(file)
    for place, number, columns in found:
        if not isinstance(columns, dict):
            raise ValueError(f"{place} is not a JSON object, but {type(columns).__name__}")
        if _has_surrogate(columns if column is None else columns.get(column)):
            raise ValueError(f"{place} is not text: it holds half of a character (\\ud800 to \\udfff)")
        yield number, columns


def _begins_with_bracket(file: Path) -> bool:
    with file.open("rb") as stream:
        read = stream.read(2**16).removeprefix(BYTE_ORDER_MARK)
        while read and not read.strip():
            read = stream.read(2**16)
    return read.lstrip().startswith(b"[")


def _line_rows(file: Path) -> Iterator[tuple[str, int, Any]]:
    with file.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            place = f"line {number}"
            if text := _utf8(line, place).strip():
                yield place, number, _only_value(text, place)


def _only_value(text: str, place: str) -> Any:
    value, end = _value(text, 0, place)
    if end < len(text):
        raise ValueError(f"{place} is not one JSON object: more follows it (character {end + 1})")
    return value


def _utf8(line: bytes, place: str) -> str:
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise _not_utf8(error, place) from None
    return text.removeprefix("\ufeff") if place == "line 1" else text


def _array_rows(file: Path) -> Iterator[tuple[str, int, Any]]:
    with file.open(encoding="utf-8-sig") as stream:
        array, number = _ArrayText(stream), 0
        following = array.take()
        if array.next() == "]":
            following = array.take()
        while following != "]":
            number += 1
            place = f"row {number} of the array"
            yield place, number, array.value(place)
            following = array.take()
            if following not in ("]", ","):
                raise ValueError(f"the array lacks a comma or its end after row {number}")
        if array.next():
            raise ValueError(f"more follows the array, after row {number}")


class _ArrayText:
    """The text of a file, read in chunks; only the value that is being read stays in memory."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._text, self._at = stream, "", 0

    def next(self) -> str:
        """The next character that is no space; empty at the end of the file."""
        while True:
            space = SPACE.match(self._text, self._at)
            assert space is not None
            self._at = space.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def take(self) -> str:
        found = self.next()
        self._at += len(found)
        return found

    def value(self, place: str) -> Any:
        """The next JSON value."""
        self.next()
        while True:
            try:
                value, end = _value(self._text, self._at, place)
            except ValueError:
                if not self._more():
                    raise
                continue
            # A number that ends with the chunk may go on in the next one.
            if end < len(self._text) or not self._more():
                self._at = end
                return value

    def _more(self) -> bool:
        """Read on: at least as much as is there, so that a long value is not parsed again for each chunk."""
        try:
            read = self._stream.read(max(CHUNK, len(self._text) - self._at))
        except UnicodeDecodeError as error:
            raise _not_utf8(error) from None
        self._text, self._at = self._text[self._at :] + read, 0
        return bool(read)


def _not_utf8(error: UnicodeDecodeError, place: str = "it") -> ValueError:
    return ValueError(f"{place} is not UTF-8 (byte {error.object[error.start]:#04x}); convert it first")


def _long_int(digits: str) -> int | str:
    try:
        return int(digits)
    except ValueError:  # Python refuses numbers of more than 4,300 digits
        return digits


_DECODER, _DECODER_OF_LONG_INTS = JSONDecoder(), JSONDecoder(parse_int=_long_int)


def _value(text: str, start: int, place: str) -> tuple[Any, int]:
    """A JSON value and where it ends."""
    try:
        return _DECODER.raw_decode(text, start)
    except JSONDecodeError as error:
        raise ValueError(f"{place} is not JSON ({error.msg}, character {error.pos - start + 1})") from None
    except RecursionError:
        raise ValueError(f"{place} is nested too deep") from None
    except ValueError:
        return _DECODER_OF_LONG_INTS.raw_decode(text, start)


def _has_surrogate(value: Any) -> bool:
    if isinstance(value, str):
        return not value.isascii() and SURROGATE.search(value) is not None
    if isinstance(value, dict):
        return any(map(_has_surrogate, value)) or any(map(_has_surrogate, value.values()))
    return isinstance(value, list) and any(map(_has_surrogate, value))


def _csv_rows(file: Path, column: str | None) -> Iterator[TableRow]:
    import pandas  # type: ignore[import-untyped]

    # Without a type and without a filter for missing values, every cell is the text that stands in the file.
    as_text = {"dtype": object, "na_filter": False, "encoding": "utf-8", "chunksize": BATCH}
    # An empty file cannot be mapped. An absolute path is never taken for an address.
    mapped = file.stat().st_size > 0
    with pandas.read_csv(str(file.absolute()), memory_map=mapped, **as_text) as chunks:
        number = 0
        for chunk in chunks:
            if not isinstance(chunk.index, pandas.RangeIndex):  # pandas takes the first column for names of rows
                raise ValueError("the first row has more cells than the header")
            names: list[str] = [column] if column in chunk.columns else list(chunk.columns)  # type: ignore[list-item]
            for cells in zip(*(chunk[name].tolist() for name in names), strict=True):
                number += 1
                yield number, dict(zip(names, cells, strict=True))


def _parquet_rows(file: Path, column: str | None) -> Iterator[TableRow]:
    from pyarrow.parquet import ParquetFile

    with file.open("rb") as stream, ParquetFile(stream) as table:
        wanted = [column] if column in table.schema_arrow.names else None
        batches = table.iter_batches(batch_size=BATCH, columns=wanted)
        yield from enumerate((columns for batch in batches for columns in batch.to_pylist()), 1)


READERS: Mapping[str, Callable[[Path, str | None], Iterator[TableRow]]] = {
    ".jsonl": _json_rows,
    ".json": _json_rows,
    ".csv": _csv_rows,
    ".parquet": _parquet_rows,
}
