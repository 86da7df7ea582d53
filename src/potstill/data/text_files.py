"""Text files: the kinds that can be read, and the files that a `path:` names."""

from collections.abc import Sequence
from pathlib import Path

from potstill.data.table_files import READERS
from potstill.errors import UserError
from potstill.files.named_files import matching_files, named_path

PLAIN = (".txt", ".train", ".dev", ".test")
"""Endings of files that are one document each, as BabyLM's are (`cbt.train`)."""

KINDS = (*PLAIN, *READERS)
"""Endings of all text files that can be read."""


def path_files(path: str, key: str) -> list[Path]:
    """The files that a path names: the file itself, the readable files of a folder, or the matches of a pattern.

    A name that exists is a name, whatever characters it has. Otherwise a path with `*` is a pattern.

    Raises:
        UserError: there is no file, or a file is of an unknown kind; `key` is the recipe key that named it.
    """
    here = named_path(path)
    if here.is_dir():
        files = sorted(file for file in here.rglob("*") if file.suffix in KINDS and file.is_file())
    elif here.is_file():
        files = [here]
    else:
        root = Path(here.anchor or ".")
        files = matching_files(str(here.relative_to(here.anchor)), root) if "*" in path else []
    if not files:
        raise UserError(f"`{key}`: no text at {path!r} (seen from {Path.cwd()}); name a file, a folder or a pattern")
    check_kinds(files, key)
    return files


def check_kinds(files: Sequence[Path], key: str) -> None:
    """Refuse files of an unknown kind.

    Raises:
        UserError: names the first such file and `key`, the recipe key of the path.
    """
    for file in files:
        if file.suffix not in KINDS:
            raise UserError(f"`{key}`: {file} is of a kind that cannot be read; the kinds are {', '.join(KINDS)}")
