"""Column names: what a message says of a sample's columns. It imports nothing heavy: some verbs only look at a run."""

from collections.abc import Mapping
from typing import Any


def column_names(sample: Mapping[str, Any]) -> str:
    """The names of a sample's columns that are there, for messages."""
    found = [f"`{name}`" for name in sample if sample[name] is not None]
    return f"only {', '.join(found)}" if found else "no column that is not null"
