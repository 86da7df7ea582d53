"""Durable writes: a crash, a full disk or a second process leaves no half-written file."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from potstill.errors import UserError
from potstill.files.atomic import put, remove


@contextmanager
def explained_disk_full(path: Path) -> Iterator[None]:
    """Turn the error for a full disk into a message to the user.

    Raises:
        UserError: the disk or the quota is full, or the file is as large as allowed.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise UserError(
            f"the disk is full: {path} could not be written; make room and run the same command again, "
            f"it goes on where it stopped."
        ) from error


def write_all(file: int, data: np.ndarray, path: Path) -> None:
    """Append all bytes of a contiguous array to an open file.

    Raises:
        UserError: the disk is full.
    """
    view = data.reshape(-1).view(np.uint8).data
    with explained_disk_full(path):
        while len(view):
            view = view[os.write(file, view) :]


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; the caller holds :func:`locked`.

    Raises:
        UserError: the disk is full, or there is a folder in the place of the file.
    """
    temporary = path.with_name(path.name + ".tmp")
    if temporary.is_dir():
        remove(temporary)
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        write_all(file, np.frombuffer(data, np.uint8), path)
        os.fsync(file)
    finally:
        os.close(file)
    put(temporary, path)


@contextmanager
def locked(store: Path) -> Iterator[None]:
    """Lock a store against other processes that would create it, and delete the temporary files of a killed one."""
    folder = os.open(store, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        for stale in store.glob("*.tmp"):
            stale.unlink()
        yield
        os.fsync(folder)
    finally:
        os.close(folder)
