"""Files and folders that are written whole or not at all; digests that tell their contents apart."""

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


@contextmanager
def atomic_folder(folder: Path, *, owner: bool = True) -> Iterator[Path]:
    """Write a folder whole or not at all: the block writes under another name, and the folder appears when it ends.

    The block gets a path at which nothing lies, and makes a folder there. What lay at `folder` before stays until the
    new one is whole. After an error the unfinished folder stays beside it, and the next attempt removes it.

    Args:
        folder: where the whole folder will lie; its parent exists.
        owner: False on a rank that writes its part into the folder of another one, which clears and renames it.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    if owner:
        remove(partial)
    yield partial
    if owner:
        remove(folder)
        partial.rename(folder)


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
