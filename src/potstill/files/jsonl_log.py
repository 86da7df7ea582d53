"""JSONL log: an append-only file of JSON lines that long work writes and can resume from."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from potstill.errors import UserError


class JsonlLog:
    """An append-only file of rows; each row is a JSON object on its own line.

    Opening a log reads the rows of an earlier attempt. If that attempt was stopped in the middle of a row, the
    incomplete last line is dropped, and its work has to be done again.

    Args:
        file: the file, which need not exist; its folder must.

    Raises:
        UserError: a line before the last is not a row, so the file was not merely cut short.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        content = file.read_bytes() if file.exists() else b""
        self.rows, whole = _parsed(content, file)
        """All rows: those of earlier attempts and those appended since."""
        if len(whole) < len(content):
            os.truncate(file, len(whole))
        # The last row may be whole except for its line end.
        self._begin = b"\n" if whole and not whole.endswith(b"\n") else b""

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write rows at the end; they are on the disk when this returns."""
        added = [dict(row) for row in rows]
        lines = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in added)
        with self.file.open("ab") as stream:
            stream.write(self._begin + lines.encode())
            stream.flush()
            os.fsync(stream.fileno())
        self._begin = b""
        self.rows += added


def read_jsonl(file: Path) -> list[dict[str, Any]]:
    """The rows of a finished log; the file stays unchanged.

    Raises:
        UserError: there is no such file, or a line is not a row; an incomplete last line is damage, too.
    """
    try:
        content = file.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"there is no file {file}; make it again") from error
    rows, whole = _parsed(content, file)
    if len(whole) < len(content):
        raise _damage(file, content.count(b"\n") + 1, "it is cut short")
    return rows


def _parsed(content: bytes, file: Path) -> tuple[list[dict[str, Any]], bytes]:
    """The rows, and the content without an incomplete last row."""
    *lines, last = content.split(b"\n")
    rows = [_row(line, file, number) for number, line in enumerate(lines, 1)]
    try:
        # No prefix of a JSON object is itself a JSON object, so a last line that parses is whole.
        return [*rows, _row(last, file, len(rows) + 1)], content
    except UserError:
        return rows, content[: len(content) - len(last)]


def _row(line: bytes, file: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise _damage(file, number, str(error)) from error
    if not isinstance(row, dict):
        raise _damage(file, number, "no JSON object")
    return row


def _damage(file: Path, number: int, reason: str) -> UserError:
    return UserError(
        f"{file}, line {number} is damaged ({reason}); remove that line or the file, and run the same command again"
    )
