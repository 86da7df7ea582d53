"""Describe: the contents of a store for people, whether it is finished or still being written."""

from pathlib import Path
from typing import Any

from potstill.targets.codecs.registry import estimate
from potstill.targets.header import read_header
from potstill.targets.shard import ENTRY, index_path


def samples_written(store: Path) -> int:
    """The number of committed samples of a store; its header must exist."""
    header = read_header(store)
    paths = [index_path(store, shard) for shard in range(header.shards)]
    return sum(path.stat().st_size // ENTRY.itemsize for path in paths if path.exists())


def describe(store: Path | str) -> dict[str, Any]:
    """The header, the number of samples written, and the bytes on disk. Nothing is verified.

    Raises:
        UserError: there is no store, it has another version, or its header is damaged.
    """
    store = Path(store)
    header = read_header(store)
    return header.describe() | {
        "shards": header.shards,
        "samples_written": samples_written(store),
        "bytes_per_token": estimate(header.codec, header.tokens, header.samples).bytes_per_token,
        "bytes_on_disk": sum(path.stat().st_size for path in store.iterdir() if path.is_file()),
    }
