"""Rows: a data set on the disk that is written row by row, and is there only when it is whole."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datasets import Dataset, Features
from datasets.arrow_writer import ArrowWriter

from potstill.files.atomic import atomic_folder, remove

AT_ONCE = 1000
"""Rows that are in memory before they are written."""


@contextmanager
def dataset_writer(folder: Path, features: Features) -> Iterator[Callable[[dict[str, Any]], None]]:
    """What writes one row; the `datasets` folder has all of them when the block ends without an error.

    Args:
        folder: where the data set goes; what is there already is replaced.
        features: its columns.
    """
    file = folder.with_name(f".{folder.name}.arrow")
    remove(file)
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with ArrowWriter(path=str(file), features=features, writer_batch_size=AT_ONCE) as writer:
            yield writer.write
            writer.finalize()
        # From the file, which is mapped and not read: copied in pieces, whatever its size. In one shard, because
        # `datasets` would write none for no rows, and not read that back.
        with atomic_folder(folder) as partial:
            Dataset.from_file(str(file)).save_to_disk(partial, num_shards=1)
    finally:
        remove(file)
