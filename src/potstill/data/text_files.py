"""Which files hold text that can be read, and which of them a `path:` names."""

from collections.abc import Sequence
from pathlib import Path

from potstill.errors import UserError

PLAIN = (".txt", ".train", ".dev", ".test")
"""Files of which each is one document, as BabyLM's are (`cbt.train`), by their ending."""

KINDS = (*PLAIN, ".jsonl", ".csv", ".parquet")
"""Text files that can be read, by their ending."""


def path_files(path: str, key: str) -> list[Path]:
    """The files that a path names: the file itself, the readable files of a folder, or the matches of a pattern.

    Raises:
        UserError: there are none, or one is of a kind that is not read; `key` is the recipe key that named it.
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
    """Refuse files of a kind that is not read.

    Raises:
        UserError: naming the first of them, and `key`, the recipe key that named it.
    """
    for file in files:
        if file.suffix not in KINDS:
            raise UserError(f"`{key}`: {file} is none of the kinds that can be read: {', '.join(KINDS)}")
