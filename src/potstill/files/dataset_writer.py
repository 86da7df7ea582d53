"""Dataset writer: writes a `datasets` folder row by row; the folder appears only when it is whole."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datasets import Dataset, Features
from datasets.arrow_writer import ArrowWriter

from potstill.files.atomic import atomic_folder, digest, read_json, remove, sha256, write_json

AT_ONCE = 1000
"""The number of rows held in memory before they are written."""


@contextmanager
def dataset_writer(folder: Path, features: Features) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Gives a function that writes one row. The `datasets` folder appears when the block ends without an error.

    Args:
        folder: the path of the data set; an earlier one is replaced.
        features: the columns.
    """
    file = folder.with_name(f".{folder.name}.arrow")
    remove(file)
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with ArrowWriter(path=str(file), features=features, writer_batch_size=AT_ONCE) as writer:
            yield writer.write
            writer.finalize()
        # The Arrow file is memory-mapped and copied in pieces, so any size fits in memory. One shard, because
        # `datasets` writes no shard for a data set without rows and cannot read that back.
        with atomic_folder(folder) as partial:
            save_dataset(Dataset.from_file(str(file)), partial, num_shards=1)
    finally:
        remove(file)


def save_dataset(rows: Dataset, folder: Path, num_shards: int | None = None) -> None:
    """Save a data set, so that the same rows give the same bytes.

    `datasets` names the data by a fingerprint that differs each time, and other inputs make a step run again.
    """
    rows.save_to_disk(folder, num_shards=num_shards)
    state = read_json(folder / "state.json")
    fingerprint = digest([sha256(file) for file in sorted(folder.glob("*.arrow"))])[: len(state["_fingerprint"])]
    write_json(folder / "state.json", state | {"_fingerprint": fingerprint})
