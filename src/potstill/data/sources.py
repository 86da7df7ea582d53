"""Sources: reads documents and rows one by one, from files and packages, and from data sets through `datasets`."""

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill.data.literal_data_files import local_name, names_that_exist_are_names
from potstill.data.row_teachers import RowTeachers, Teachers
from potstill.data.table_files import READERS, table_rows
from potstill.data.text_files import PLAIN, check_kinds, path_files
from potstill.errors import UserError
from potstill.files.installed_packages import package_files
from potstill.files.named_data import named_files
from potstill.recipe.conversations import HubConversations
from potstill.recipe.corpus import HubDataset, HubSource, NamedFiles, PackageFiles, PathFiles, Source

STREAM_SEED, STREAM_BUFFER = 0, 10_000
"""A stream's files are shuffled, and its documents through a buffer of this many, in the same way in every run."""

RAGGED = (".jsonl", ".json")
"""Endings of tables whose rows may have different columns."""

MOST_NAMED = 20
"""The greatest number of columns that a message names."""


@dataclass(frozen=True)
class Document:
    """A text, the name of its file or data set configuration, and its teachers, where rows have teachers."""

    text: str
    origin: str
    teachers: Teachers = ()


@dataclass(frozen=True)
class SourceRow:
    """A row of a table, its place (`train.jsonl:7`), and the name of its file or data set configuration."""

    columns: Mapping[str, Any]
    where: str
    origin: str


def documents(source: Source, key: str, taught: RowTeachers | None = None) -> Iterator[Document]:
    """The documents of one source, in its order; empty and missing texts are left out.

    Args:
        source: the source.
        key: the recipe key that named the source, for messages.
        taught: says which teachers a row has; None where rows have none of their own.

    Raises:
        UserError: the source is missing, cannot be read, or has no such field.
    """
    of = _nobody if taught is None else taught.of
    for file in files_of(source, key):
        if file.suffix in PLAIN:
            yield from (Document(text, file.name, of(source, {})) for text in _plain_text(file, key))
        else:
            found = _rows_of_file(file, key, None if taught is not None and taught.columns else source.field)
            yield from _column(found, source, f"{key}.field", of, ragged=file.suffix in RAGGED)
    if isinstance(source, HubDataset):
        yield from _column(_rows_of_dataset(source, key), source, f"{key}.field", of)


def rows(source: PackageFiles | PathFiles | NamedFiles | HubDataset, key: str) -> Iterator[SourceRow]:
    """The rows of one source, in its order; see :func:`documents`.

    Raises:
        UserError: the source is missing, cannot be read, or is plain text, which has no columns.
    """
    for file in files_of(source, key):
        if file.suffix in PLAIN:
            raise UserError(f"`{key}`: {file} is plain text, without columns; give {', '.join(READERS)}")
        yield from _rows_of_file(file, key)
    if isinstance(source, HubDataset):
        yield from _rows_of_dataset(source, key)


def files_of(source: PackageFiles | PathFiles | NamedFiles | HubDataset, key: str) -> Sequence[Path]:
    """The local files that a source names; empty for a data set of the hub.

    Raises:
        UserError: there is no such file, or a file is of an unknown kind.
    """
    if isinstance(source, PackageFiles):
        files = package_files(source.package, source.file, key, "file")
        check_kinds(files, f"{key}.file")
        return files
    if isinstance(source, NamedFiles):
        return named_files(source.data, source.split, f"{key}.data", source.files)
    return path_files(source.path, f"{key}.path") if isinstance(source, PathFiles) else []


def _plain_text(file: Path, key: str) -> Iterator[str]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"`{key}`: {file} is not UTF-8 (byte {error.start}); convert it first") from None
    if text.strip():
        yield text


def _rows_of_file(file: Path, key: str, column: str | None = None) -> Iterator[SourceRow]:
    with _reading_errors(f"`{key}`: {file} cannot be read as {file.suffix[1:]}"):
        for number, columns in table_rows(file, column):
            yield SourceRow(columns, f"{file.name}:{number}", file.name)


def _rows_of_dataset(source: HubDataset, key: str) -> Iterator[SourceRow]:
    with _reading_errors(f"`{key}.dataset`: data set {source.dataset!r} cannot be loaded"):
        which = {"split": source.split, "revision": source.revision}
        if isinstance(source, HubSource | HubConversations) and source.stream:
            whole = _load_dataset(local_name(source.dataset), source.config, **which, streaming=True)
            found = whole.shuffle(seed=STREAM_SEED, buffer_size=STREAM_BUFFER)
        else:
            found = _load_dataset(local_name(source.dataset), source.config, **which)
        yield from _numbered(found, source)


def _numbered(found: Iterable[Mapping[str, Any]], source: HubDataset) -> Iterator[SourceRow]:
    origin = source.config or source.dataset
    for number, columns in enumerate(found, 1):
        yield SourceRow(columns, f"{origin}:{number}", origin)


def _load_dataset(name: str, config: str | None, *, revision: str | None, **how: Any) -> Any:
    from datasets import load_dataset, load_dataset_builder
    from datasets.packaged_modules.csv.csv import CsvConfig

    with names_that_exist_are_names():
        builder = load_dataset_builder(name, config, revision=revision)
        # pandas takes the texts "NA", "nan" and "null" for cells without a value.
        literal = {"keep_default_na": False, "na_values": [""]} if isinstance(builder.config, CsvConfig) else {}
        return load_dataset(name, config, revision=revision, **literal, **how)


@contextmanager
def _reading_errors(what: str) -> Iterator[None]:
    """Turn the exceptions of the readers for bad input into one sentence that begins with `what`."""
    from datasets.exceptions import DatasetsError
    from pyarrow import ArrowException
    from zstandard import ZstdError

    try:
        yield
    except UserError:
        raise
    except (DatasetsError, ArrowException, OSError, ValueError, EOFError, zlib.error, ZstdError) as error:
        cause = next(
            (line for line in str(error.__cause__ or error).splitlines() if line.strip()), type(error).__name__
        )
        raise UserError(f"{what}: {cause.strip()}") from error


def _nobody(source: Source, columns: Mapping[str, Any]) -> Teachers:
    return ()


def _column(
    found: Iterable[SourceRow],
    source: Source,
    key: str,
    teachers: Callable[[Source, Mapping[str, Any]], Teachers],
    ragged: bool = False,
) -> Iterator[Document]:
    """The texts of one column of a file or data set.

    Args:
        found: the rows.
        source: their source, which names the column.
        key: the recipe key of the column, for messages.
        teachers: the teachers of a row.
        ragged: rows may lack the column, as in JSON; but not all rows.
    """
    field, there, others, first = source.field, False, dict[str, None](), ""
    for row in found:
        if field not in row.columns:
            first = first or row.where
            others |= dict.fromkeys(list(row.columns)[: MOST_NAMED - len(others)])
            if not ragged:
                break
            continue
        there, text = True, row.columns[field]
        if not isinstance(text, str | None):
            raise UserError(
                f"`{key}`: {field!r} holds {type(text).__name__}, not text, at {row.where}; name a field of texts"
            )
        if text is not None and text.strip():
            yield Document(text, row.origin, teachers(source, row.columns))
    if first and not there:
        named = ", ".join(map(repr, others)) or "none"
        raise UserError(f"`{key}`: there is no field {field!r}; the fields are {named} ({first})")
