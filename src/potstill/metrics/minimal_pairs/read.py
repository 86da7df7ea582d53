"""Where minimal pairs are read from: BLiMP's files or data set, its supplement's, and any others of that format.

One row a pair: `sentence_good`, `sentence_bad` and, in BLiMP but not in its supplement, `UID`, the subtask's name;
other fields are not read. These are the fields of lm-eval's ``blimp`` tasks, too.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill.errors import UserError, first_line


@dataclass(frozen=True)
class Subtask:
    """One contrast: P pairs, the acceptable sentence of each and the other one."""

    name: str
    good: tuple[str, ...]
    bad: tuple[str, ...]

    def first(self, pairs: int | None) -> "Subtask":
        """At most so many of its pairs, the first ones; all of them where it is None."""
        return Subtask(self.name, self.good[:pairs], self.bad[:pairs])


PairRow = tuple[str, str, Any]
"""Where a row stands (for messages), its subtask where it does not say one itself, and the row."""


def pairs_from_files(path: str, key: str) -> list[Subtask]:
    """The subtasks in a `.jsonl` file, or in those right in a folder, in the order of their names.

    A row without a `UID` belongs to the subtask that its file is called after.

    Args:
        path: the file or folder.
        key: the recipe key that named it, for messages.

    Raises:
        UserError: there is no such file, or a row is not a pair; names the file and the line.
    """
    return _subtasks((row for file in pair_files(path, key) for row in _lines(file, key)), key, path)


def pair_files(path: str, key: str) -> list[Path]:
    """The file that a path names, or the `.jsonl` files right in a folder.

    Raises:
        UserError: there are none.
    """
    here = Path(path).expanduser()
    files = sorted(here.glob("*.jsonl")) if here.is_dir() else [here] if here.is_file() else []
    if not files:
        raise UserError(f"`{key}`: no .jsonl at {path!r} (seen from {Path.cwd()}); name a file or a folder of pairs")
    return files


def pairs_from_dataset(dataset: str, key: str, *, split: str = "train", revision: str | None = None) -> list[Subtask]:
    """The subtasks of a Hugging Face data set, all its configurations, as ``nyu-mll/blimp`` has one for each.

    A row without a `UID` belongs to the subtask that its configuration is called after.

    Args:
        dataset: its name on the hub, or a local folder of that layout.
        key: the recipe key that named it, for messages.
        split: which split; BLiMP calls its only one `train`.
        revision: of the data set.

    Raises:
        UserError: it cannot be loaded, or a row is not a pair; names the configuration and the row.
    """
    from datasets import get_dataset_config_names, load_dataset
    from datasets.exceptions import DatasetsError

    def rows() -> Iterator[PairRow]:
        for name in get_dataset_config_names(dataset, revision=revision):
            found = load_dataset(dataset, name, split=split, revision=revision, streaming=True)
            for number, row in enumerate(found):
                yield f"{dataset}, {name}, row {number}", name, row

    try:
        return _subtasks(rows(), key, dataset)
    except UserError:
        raise
    except (DatasetsError, OSError, ValueError) as error:
        raise UserError(f"`{key}`: data set {dataset!r} cannot be loaded: {first_line(error)}") from error


def _lines(file: Path, key: str) -> Iterator[PairRow]:
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"`{key}`: {file} is not UTF-8 (byte {error.start}); convert it first") from None
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield f"{file}, line {number}", file.stem, json.loads(line)
            except ValueError as error:
                raise UserError(f"`{key}`: {file}, line {number} is not JSON ({error}); mend or remove it") from None


def _subtasks(rows: Iterable[PairRow], key: str, what: str) -> list[Subtask]:
    sentences: dict[str, list[tuple[str, str]]] = {}
    home: dict[str, str] = {}
    for where, unnamed, row in rows:
        good, bad = (_sentence(row, field, where, key) for field in ("sentence_good", "sentence_bad"))
        name = str(row.get("UID") or unnamed)
        # A copy of a file within its own folder would count twice.
        if home.setdefault(name, unnamed) != unnamed:
            raise UserError(f"`{key}`: {where} is of {name!r}, which {home[name]!r} holds already; remove one of them")
        sentences.setdefault(name, []).append((good, bad))
    if not sentences:
        raise UserError(f"`{key}`: {what!r} holds no pairs; a row needs `sentence_good` and `sentence_bad`")
    return [Subtask(name, *zip(*pairs, strict=True)) for name, pairs in sentences.items()]


def _sentence(row: Any, field: str, where: str, key: str) -> str:
    text = row.get(field) if isinstance(row, dict) else None
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"`{key}`: {where} has no text in `{field}`; mend or remove it")
    return text
