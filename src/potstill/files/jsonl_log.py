"""JSONL log: an append-only file of JSON lines that long work writes and can resume from."""

import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

from potstill.console import say
from potstill.errors import UserError


class JsonlLog:
    """An append-only file of rows; each row is a JSON object on its own line.

    Opening a log reads the rows of an earlier attempt, up to the first line that is not as it was written: a stop may
    cut the last one, and a disk may damage any. The rest is dropped, and its work has to be done again. The digest of
    each line is in a second file, whose name begins with a dot.

    Args:
        file: the file, which need not exist; its folder must.
    """

    def __init__(self, file: Path) -> None:
        self.file, self._digests = file, file.with_name(f".{file.name}.sha256")
        lines = _lines(file)
        pairs = zip(lines, _lines(self._digests), strict=False)
        whole = [line for line, _ in takewhile(lambda pair: _sha256(pair[0]) == pair[1], pairs)]
        if len(whole) < len(lines):
            say(f"  {file} is not as it was written from line {len(whole) + 1} on, so the rest is made again")
            os.truncate(file, sum(map(len, whole)))
        if self._digests.exists():
            os.truncate(self._digests, sum(len(_sha256(line)) for line in whole))
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in whole]
        """All rows: those of earlier attempts and those appended since."""

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write rows at the end; they are on the disk when this returns."""
        added = [dict(row) for row in rows]
        lines = [(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode() for row in added]
        for file, written in ((self.file, lines), (self._digests, [_sha256(line) for line in lines])):
            with file.open("ab") as stream:
                stream.write(b"".join(written))
                stream.flush()
                os.fsync(stream.fileno())
        self.rows += added


def read_jsonl(file: Path) -> list[dict[str, Any]]:
    """The rows of a finished log, which is compressed if its name ends in `.gz`; the file stays unchanged.

    Raises:
        UserError: there is no such file, or a line is not a row; an incomplete last line is damage, too.
    """
    try:
        content = file.read_bytes()
        content = gzip.decompress(content) if file.suffix == ".gz" else content
    except FileNotFoundError as error:
        raise UserError(f"there is no file {file}; make it again") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{file} is damaged ({error}); remove it, and run the same command again") from error
    lines = content.removesuffix(b"\n").split(b"\n") if content else []
    return [_row(line, file, number) for number, line in enumerate(lines, 1)]


def _lines(file: Path) -> list[bytes]:
    """The lines of a file with their ends; none if there is no such file."""
    return file.read_bytes().splitlines(keepends=True) if file.exists() else []


def _sha256(line: bytes) -> bytes:
    return hashlib.sha256(line).hexdigest().encode() + b"\n"


def _row(line: bytes, file: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _damage(file, number, str(error)) from error
    if not isinstance(row, dict):
        raise _damage(file, number, "no JSON object")
    return row


def _damage(file: Path, number: int, reason: str) -> UserError:
    return UserError(
        f"{file}, line {number} is damaged ({reason}); remove that line or the file, and run the same command again"
    )
