"""Named files: a path of a recipe, where a name that exists is a name, whatever characters it has."""

import glob
import os
from pathlib import Path


def named_path(path: str) -> Path:
    """The path with `~` replaced by the home folder, unless there is something of that very name."""
    here = Path(path)
    if os.path.lexists(here):
        return here
    try:
        return here.expanduser()
    except RuntimeError:  # `~name`, and there is no such user
        return here


def named_folder(path: str) -> Path | None:
    """The folder that a path names; None if there is none."""
    folder = named_path(path)
    try:
        return folder if folder.is_dir() else None
    except OSError:  # a name that is too long
        return None


def is_named_file(path: str) -> bool:
    """Whether a path names a file."""
    try:
        return named_path(path).is_file()
    except OSError:  # a name that is too long
        return False


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
    except (ValueError, NotImplementedError, OSError):  # an empty, an absolute, a malformed or a too long pattern
        return []
