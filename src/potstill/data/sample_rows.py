"""Sample rows: reads samples of a collection; those of a `datasets` data set without a Python number for each token."""

from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset


def rows_at(samples: Any, places: Sequence[int] | range) -> list[Mapping[str, Any]]:
    """The samples at some places of an indexable collection; the columns of a data set are arrays."""
    if not isinstance(samples, Dataset):
        return [samples[place] for place in places]
    columns = samples.with_format("numpy")[places if isinstance(places, range) else list(places)]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
