"""Samples of a list and of a data set are the same samples."""

import numpy as np
import pytest
import torch
from datasets import Dataset

from potstill.data.collators import Collator
from potstill.data.sample_rows import rows_at

ROWS = [{"input_ids": [5, 6, 7], "documents": [1, 2]}, {"input_ids": [8, 9], "documents": [2]}, {"input_ids": [4, 1]}]


@pytest.mark.parametrize("rows", [ROWS[:1] * 4, ROWS[:2] * 2, [{"input_ids": row["input_ids"]} for row in ROWS]])
@pytest.mark.parametrize("places", [range(1, 3), [2, 0]])
def test_a_data_set_gives_the_rows_of_a_list(rows, places):
    found = rows_at(Dataset.from_list(rows), places)
    assert all(isinstance(values, np.ndarray) for row in found for values in row.values())
    expected = rows_at(rows, places)
    assert [{name: values.tolist() for name, values in row.items()} for row in found] == expected
    mine, theirs = Collator(0)(found), Collator(0)(expected)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
