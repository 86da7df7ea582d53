"""Local files: those of a recipe's sources that are on this machine. Nothing is downloaded."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from potstill.data.sources import files_of
from potstill.errors import UserError
from potstill.files.named_data import named_data
from potstill.recipe.corpus import HubDataset, NamedFiles

MOST_BYTES = 64_000_000
"""Files that are larger together are not read whole by a plan."""


def local_files(sources: Sequence[Any], key: str) -> list[Path]:
    """The files of all sources.

    Args:
        sources: those of text, of questions or of conversations. A source that is made by a program has no files.
        key: the recipe key of the list of sources, for messages.

    Raises:
        UserError: a source is not on this machine; or as `files_of`.
    """
    return [file for index, source in enumerate(sources) for file in _of_source(source, f"{key}.{index}")]


def _of_source(source: Any, key: str) -> list[Path]:
    if isinstance(source, NamedFiles):
        found = named_data(source.data).on_this_machine(source.split, source.files)
        if found is None:
            raise UserError(
                f"`{key}.data`: {source.data} is not on this machine; `potstill data` says how it gets here"
            )
        return [file for file, _ in found]
    if isinstance(source, HubDataset):
        # `datasets` would write a copy of it into its cache.
        raise UserError(f"`{key}.dataset`: {source.dataset} is read through `datasets`, of which a plan reads nothing")
    return [] if hasattr(source, "generator") else list(files_of(source, key))


def check_size(files: Sequence[Path], key: str) -> None:
    """Refuse files of questions or conversations that a plan does not read.

    Raises:
        UserError: they have more than MOST_BYTES together.
    """
    if bytes_in(files) > MOST_BYTES:
        raise UserError(f"`{key}` have more than {MOST_BYTES // 10**6} MB, which a plan does not read")


def bytes_in(files: Sequence[Path]) -> int:
    """The sizes of all files."""
    return sum(file.stat().st_size for file in files)
