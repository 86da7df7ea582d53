"""Read minimal pairs: BLiMP's files or data set, its supplement, and other pairs in that format.

Each row is a pair. It has `sentence_good`, `sentence_bad` and, in BLiMP but not in its supplement, `UID`, the name of
the subtask. Other fields are ignored. lm-eval's ``blimp`` tasks use the same fields.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill.data.literal_data_files import local_name, names_that_exist_are_names
from potstill.data.sources import rows
from potstill.errors import UserError, first_line
from potstill.files.named_files import named_path
from potstill.recipe.corpus import NamedFiles


@dataclass(frozen=True)
class Subtask:
    """One grammatical contrast: P pairs of an acceptable and an unacceptable sentence."""

    name: str
    good: tuple[str, ...]
    bad: tuple[str, ...]

    def first(self, pairs: int | None) -> "Subtask":
        """The subtask with its first `pairs` pairs; with all of them if it is None."""
        return Subtask(self.name, self.good[:pairs], self.bad[:pairs])


PairRow = tuple[str, str, Any]
"""The place of a row (for messages), the subtask of a row without a `UID`, and the row."""


def pairs_from_files(path: str, key: str) -> list[Subtask]:
    """The subtasks in a `.jsonl` file, or in all `.jsonl` files of a folder, in the order of the files' names.

    A row without a `UID` belongs to the subtask of its file's name.

    Args:
        path: the file or folder.
        key: the recipe key that named it, for messages.

    Raises:
        UserError: there is no such file, or a row is not a pair; names the file and the line.
    """
    return _subtasks((row for file in pair_files(path, key) for row in _lines(file, key)), key, path)


def pair_files(path: str, key: str) -> list[Path]:
    """The file that a path names, or the `.jsonl` files of a folder, without its sub-folders.

    Raises:
        UserError: there is no such file.
    """
    here = named_path(path)
    files = sorted(here.glob("*.jsonl")) if here.is_dir() else [here] if here.is_file() else []
    if not files:
        raise UserError(f"`{key}`: no .jsonl at {path!r} (seen from {Path.cwd()}); name a file or a folder of pairs")
    return files


def pairs_from_dataset(dataset: str, key: str, *, split: str = "train", revision: str | None = None) -> list[Subtask]:
    """The subtasks of all configurations of a Hugging Face data set; ``nyu-mll/blimp`` has a configuration for each.

    A row without a `UID` belongs to the subtask of its configuration's name.

    Args:
        dataset: its name on the hub, or a local folder with the same layout.
        key: the recipe key that named it, for messages.
        split: the split; BLiMP's only one is `train`.
        revision: of the data set.

    Raises:
        UserError: it cannot be loaded, or a row is not a pair; names the configuration and the row.
    """
    from datasets import get_dataset_config_names, load_dataset
    from datasets.exceptions import DatasetsError

    home = local_name(dataset)

    def rows_of_all() -> Iterator[PairRow]:
        with names_that_exist_are_names():
            names = get_dataset_config_names(home, revision=revision)
        for name in names:
            with names_that_exist_are_names():
                found = load_dataset(home, name, split=split, revision=revision, streaming=True)
            for number, row in enumerate(found):
                yield f"{dataset}, {name}, row {number}", name, row

    try:
        return _subtasks(rows_of_all(), key, dataset)
    except UserError:
        raise
    except (DatasetsError, OSError, ValueError) as error:
        raise UserError(f"`{key}`: data set {dataset!r} cannot be loaded: {first_line(error)}") from error


def pairs_from_named_data(data: NamedFiles, key: str) -> list[Subtask]:
    """The subtasks of public data that has a name.

    Raises:
        UserError: it is not here and cannot be fetched, or a row is not a pair.
    """
    found = ((row.where, row.origin, dict(row.columns)) for row in rows(data, key))
    return _subtasks(found, f"{key}.data", data.data)


def _lines(file: Path, key: str) -> Iterator[PairRow]:
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"`{key}`: {file} is not UTF-8 (byte {error.start}); convert it first") from None
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield f"{file}, line {number}", file.stem, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UserError(f"`{key}`: {file}, line {number} is not JSON ({error}); mend or remove it") from None


def _subtasks(rows: Iterable[PairRow], key: str, what: str) -> list[Subtask]:
    sentences: dict[str, list[tuple[str, str]]] = {}
    home: dict[str, str] = {}
    for where, unnamed, row in rows:
        good, bad = (_sentence(row, field, where, key) for field in ("sentence_good", "sentence_bad"))
        name = str(row.get("UID") or unnamed)
        # A copy of a file in the same folder would count its pairs twice.
        if home.setdefault(name, unnamed) != unnamed:
            raise UserError(
                f"`{key}`: {where} belongs to {name!r}, which {home[name]!r} has already; remove one of them"
            )
        sentences.setdefault(name, []).append((good, bad))
    if not sentences:
        raise UserError(f"`{key}`: {what!r} holds no pairs; a row needs `sentence_good` and `sentence_bad`")
    return [Subtask(name, *zip(*pairs, strict=True)) for name, pairs in sentences.items()]


def _sentence(row: Any, field: str, where: str, key: str) -> str:
    text = row.get(field) if isinstance(row, dict) else None
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"`{key}`: {where} has no text in `{field}`; mend or remove it")
    return text
