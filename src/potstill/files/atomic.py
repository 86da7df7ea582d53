"""Files and digests: written whole or not at all, read back, told from one another."""

import hashlib
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from potstill.errors import UserError


def digest(value: Any) -> str:
    """The SHA-256 of a value that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def sha256(file: Path) -> str:
    """The SHA-256 of a file's content."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_json(file: Path) -> Any:
    """A JSON file's content, or None where there is no such file.

    Raises:
        UserError: the file is damaged.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise UserError(f"{file} is damaged ({error}); remove it, and what it described is made again") from error


def write_json(file: Path, value: Any) -> None:
    """Write a JSON file whole or not at all."""
    write_text(file, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(file: Path, text: str) -> None:
    """Write a text file whole or not at all, also if the machine stops."""
    partial = file.with_name(f".{file.name}.partial")
    try:
        with partial.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(file)
    except BaseException:
        # What went wrong is told by the first error, not by one over a file that was never begun.
        with suppress(OSError):
            partial.unlink()
        raise


def remove(path: Path) -> None:
    """Delete a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def check_room(folder: Path, need: int, otherwise: str) -> None:
    """Refuse what a disk has no room for before anything is spent on it.

    Args:
        folder: where it will lie.
        need: bytes.
        otherwise: what can be done besides making room, for the message.

    Raises:
        UserError: the disk has fewer bytes left.
    """
    free = shutil.disk_usage(folder).free
    if need > free:
        left = f"{need / 1e9:.1f} GB more and the disk has {free / 1e9:.1f} GB left"
        raise UserError(f"{folder} needs {left}: make room, or {otherwise}")
