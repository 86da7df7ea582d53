"""Text files: the kinds that can be read, and the files that a `path:` names."""

from collections.abc import Sequence
from pathlib import Path

from potstill.errors import UserError

PLAIN = (".txt", ".train", ".dev", ".test")
"""Endings of files that are one document each, as BabyLM's are (`cbt.train`)."""

KINDS = (*PLAIN, ".jsonl", ".csv", ".parquet")
"""Endings of all text files that can be read."""


def path_files(path: str, key: str) -> list[Path]:
    """The files that a path names: the file itself, the readable files of a folder, or the matches of a pattern.

    Raises:
        UserError: there is no file, or a file is of an unknown kind; `key` is the recipe key that named it.
    """
    here = Path(path).expanduser()
    if here.is_dir():
        files = sorted(file for file in here.rglob("*") if file.suffix in KINDS and file.is_file())
    elif "*" in path:
        root = Path(here.anchor or ".")
        files = sorted(file for file in root.glob(str(here.relative_to(here.anchor))) if file.is_file())
    else:
        files = [here] if here.is_file() else []
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
