"""Dataset writer: writes a `datasets` folder row by row; the folder appears only when it is whole."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
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
    types = features.arrow_schema
    rows: list[dict[str, Any]] = []

    def write_rows() -> None:
        # Made here: `datasets` looks at each number of each row first, which takes ten times as long.
        columns = [pa.array([row[field.name] for row in rows], field.type) for field in types]
        writer.write_table(pa.Table.from_arrays(columns, schema=types))
        rows.clear()

    def write(row: dict[str, Any]) -> None:
        rows.append(row)
        if len(rows) == AT_ONCE:
            write_rows()

    try:
        with ArrowWriter(path=str(file), features=features, writer_batch_size=AT_ONCE) as writer:
            yield write
            if rows:
                write_rows()
            writer.finalize()
        # The folder of no rows, with these rows. `Dataset.save_to_disk` would map them all into memory, and copy them.
        with atomic_folder(folder) as partial:
            Dataset.from_dict({name: [] for name in features}, features).save_to_disk(partial, num_shards=1)
            (empty,) = partial.glob("*.arrow")
            file.replace(empty)
            _name_by_content(partial)
    finally:
        remove(file)


def save_dataset(rows: Dataset, folder: Path) -> None:
    """Save a data set, so that the same rows give the same bytes.

    `datasets` names the data by a fingerprint that differs each time, and other inputs make a step run again.
    """
    rows.save_to_disk(folder)
    _name_by_content(folder)


def _name_by_content(folder: Path) -> None:
    state = read_json(folder / "state.json")
    fingerprint = digest([sha256(file) for file in sorted(folder.glob("*.arrow"))])[: len(state["_fingerprint"])]
    write_json(folder / "state.json", state | {"_fingerprint": fingerprint})
