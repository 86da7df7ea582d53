"""Named files: a path of a recipe, where a name that exists is a name, whatever characters it has."""

import errno
import glob
import os
from pathlib import Path

from potstill.errors import UserError

SHOWN = 60
"""The characters that a message shows of a name that is too long."""


def named_path(path: str) -> Path:
    """The path with `~` replaced by the home folder, unless there is something of that very name.

    Raises:
        UserError: the name is longer than names of files may be, so every question about the file would fail.
    """
    here = Path(path)
    try:
        here.lstat()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise UserError(f"{path[:SHOWN]!r}… is too long for the name of a file; give another") from error
    except ValueError:  # a null character; there is no such file
        return here
    else:
        return here
    try:
        return here.expanduser()
    except RuntimeError:  # `~name`, and there is no such user
        return here


def named_folder(path: str) -> Path | None:
    """The folder that a path names; None if there is none."""
    try:
        folder = named_path(path)
    except UserError:  # a name that is too long
        return None
    return folder if folder.is_dir() else None


def literal_pattern(path: str, folder: Path = Path()) -> str:
    """A pattern in which the beginning of the path that exists stands for itself; only the rest has wildcards.

    Args:
        path: a name or a pattern with shell wildcards.
        folder: where a relative path starts.
    """
    parts, here, named = Path(path).parts, folder, 0
    while named < len(parts) and os.path.lexists(here / parts[named]):
        here /= parts[named]
        named += 1
    return str(Path(*map(glob.escape, parts[:named]), *parts[named:])) if named else path


def matching_files(path: str, folder: Path = Path()) -> list[Path]:
    """The files that a relative path names in a folder, sorted; see :func:`literal_pattern`."""
    try:
        return sorted(file for file in folder.glob(literal_pattern(path, folder)) if file.is_file())
    # An empty, an absolute or a malformed pattern; a part that is too long; too many parts.
    except (ValueError, NotImplementedError, OSError, RecursionError):
        return []
