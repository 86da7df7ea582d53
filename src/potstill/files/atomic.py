"""Atomic files and folders, which are written whole or not at all; digests of their contents."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
    """A JSON file's content, or None if there is no such file.

    Raises:
        UserError: the file is damaged or cannot be read.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UserError(f"{file} cannot be read ({reason}); remove it and run the same command again") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is damaged ({error}); remove it and run the same command again") from error


def write_json(file: Path, value: Any) -> None:
    """Write a JSON file whole or not at all."""
    write_text(file, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(file: Path, text: str) -> None:
    """Write a text file whole or not at all, even if the machine stops."""
    write_bytes(file, text.encode())


def write_bytes(file: Path, content: bytes) -> None:
    """Write a file whole or not at all, even if the machine stops.

    Raises:
        UserError: there is a folder in its place.
    """
    partial = file.with_name(f".{file.name}.partial")
    if partial.is_dir():
        remove(partial)
    try:
        with partial.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        put(partial, file)
    except BaseException:
        # The first error is the cause; an error about a missing partial file would hide it.
        with suppress(OSError):
            partial.unlink()
        raise


def put(partial: Path, file: Path) -> None:
    """Rename a file that is whole now to the name that it has when it is finished.

    Raises:
        UserError: there is a folder of that name.
    """
    if file.is_dir():
        raise UserError(
            f"{file} is a folder, where a file is to be written; move it away and run the same command again"
        )
    partial.replace(file)


@contextmanager
def atomic_folder(folder: Path, *, owner: bool = True) -> Iterator[Path]:
    """Write a folder whole or not at all: the block writes to a temporary path, which is renamed when the block ends.

    The block gets a free path and makes a folder there. An earlier `folder` stays until the new one is whole. After an
    error the unfinished folder stays, and the next attempt removes it.

    Args:
        folder: the path of the finished folder; its parent exists.
        owner: False on a rank that only writes its part into the folder; the owner rank clears and renames it.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    if owner:
        remove(partial)
    yield partial
    if owner:
        remove(folder)
        partial.rename(folder)


def remove(path: Path) -> None:
    """Delete a file or a folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def check_room(folder: Path, need: int, otherwise: str) -> None:
    """Check that a disk has room, before any work is done.

    Args:
        folder: a folder on the disk.
        need: the bytes needed.
        otherwise: what the message suggests besides making room.

    Raises:
        UserError: the disk has fewer bytes left.
    """
    free = shutil.disk_usage(folder).free
    if need > free:
        left = f"{need / 1e9:.1f} GB more and the disk has {free / 1e9:.1f} GB left"
        raise UserError(f"{folder} needs {left}: make room, or {otherwise}")
