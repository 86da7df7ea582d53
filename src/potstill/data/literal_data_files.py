"""Literal data files: makes `datasets` take a path that exists for a name, where it would see a pattern."""

import glob
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from potstill.files.named_files import literal_pattern, named_path


def local_name(dataset: str) -> str:
    """The absolute path of a data set that is a folder on this machine; another name stays as it is."""
    folder = named_path(dataset)
    return str(folder.absolute()) if folder.is_dir() else dataset


@contextmanager
def names_that_exist_are_names() -> Iterator[None]:
    """While this is open, `datasets` finds the folder `a[1]` and the file `part[1].jsonl` under their own names.

    `datasets` expands wildcards in all paths, those of folders and of the current directory included, and has no
    setting against it. Files are found when a data set is loaded, so only the call of ``load_dataset`` needs this.

    Raises:
        ValueError: from the call, if a path has `::` or the name of an environment variable, which cannot be escaped.
    """
    from datasets import data_files
    from datasets.utils.file_utils import is_local_path, is_relative_path

    resolve = data_files.resolve_pattern

    def literally(pattern: str, base_path: str, *more: Any, **named: Any) -> Sequence[str]:
        if is_relative_path(pattern):
            if is_local_path(base_path):
                pattern, base_path = literal_pattern(pattern, Path(base_path)), glob.escape(base_path)
        elif is_local_path(pattern):
            pattern = literal_pattern(pattern)
        if "://" not in pattern:
            _check([pattern, base_path])
        return _check(resolve(pattern, base_path, *more, **named))

    data_files.resolve_pattern = literally
    try:
        yield
    finally:
        data_files.resolve_pattern = resolve


def _check(paths: Sequence[str]) -> Sequence[str]:
    for path in paths:
        if "://" not in path and ("::" in path or os.path.expandvars(path) != path):
            raise ValueError(f"`datasets` reads another file for {path!r}; give a path without `::` and `$`")
    return paths
