"""Documents: the text of a source, document by document, read through `datasets` wherever it lies."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill.packages import package_files
from potstill.recipe.corpus import HubSource, PackageSource, Source
from potstill.text.files import PLAIN, check_kinds, path_files
from potstill.words import UserError

BUILDERS = {".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}


@dataclass(frozen=True)
class Document:
    """A text, and the name of the file, or of the data set's configuration, that it came from."""

    text: str
    origin: str


def documents(source: Source, key: str) -> Iterator[Document]:
    """The documents of one source, in its order; empty and missing ones are left out.

    Args:
        source: where they are.
        key: the recipe key that named the source, for messages.

    Raises:
        UserError: the source is missing, cannot be read, or has no such field.
    """
    if isinstance(source, HubSource):
        with _told(f"`{key}.dataset`: data set {source.dataset!r} cannot be loaded"):
            rows = _load_dataset(source.dataset, source.config, split=source.split, revision=source.revision)
        origin = source.config or source.dataset
        yield from (Document(text, origin) for text in _column(rows, source.field, f"{key}.field"))
        return
    if isinstance(source, PackageSource):
        files = package_files(source.package, source.file, key, "file")
        check_kinds(files, f"{key}.file")
    else:
        files = path_files(source.path, f"{key}.path")
    for file in files:
        texts = _plain_text(file, key) if file.suffix in PLAIN else _rows(file, source.field, key)
        yield from (Document(text, file.name) for text in texts)


def _plain_text(file: Path, key: str) -> Iterator[str]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"`{key}`: {file} is not UTF-8 (byte {error.start}); convert it first") from None
    if text.strip():
        yield text


def _rows(file: Path, field: str, key: str) -> Iterator[str]:
    if file.stat().st_size == 0 and file.suffix == ".jsonl":
        return  # no rows, which is no error; `datasets` fails over it
    with _told(f"`{key}`: {file} cannot be read as {file.suffix[1:]}"):
        # Streaming reads the file itself and leaves no second copy of the corpus in a cache.
        rows = _load_dataset(BUILDERS[file.suffix], data_files=str(file), split="train", streaming=True)
        yield from _column(rows, field, f"{key}.field")


def _load_dataset(*which: Any, **how: Any) -> Any:
    from datasets import load_dataset

    return load_dataset(*which, **how)


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Turn what `datasets` raises over bad input into one sentence that begins with `what`."""
    from datasets.exceptions import DatasetsError

    try:
        yield
    except UserError:
        raise
    except (DatasetsError, OSError, ValueError) as error:
        cause = next(
            (line for line in str(error.__cause__ or error).splitlines() if line.strip()), type(error).__name__
        )
        raise UserError(f"{what}: {cause.strip()}") from error


def _column(rows: Any, field: str, key: str) -> Iterator[str]:
    for row in rows:
        if field not in row:
            raise UserError(f"`{key}`: there is no field {field!r}; the fields are {', '.join(map(repr, row))}")
        text = row[field]
        if not isinstance(text, str | None):
            raise UserError(f"`{key}`: {field!r} holds {type(text).__name__}, not text, in at least one row")
        if text is not None and text.strip():
            yield text
