"""A batch with the captured records of its samples."""

import pytest

from potstill.data.collators import Collator
from potstill.data.labels import IGNORE_INDEX
from potstill.errors import UserError
from potstill.targets import make_codec
from potstill.targets.collator import TargetCollator, records_column
from tiny import VOCABULARY, llama
from toy_training import captured, samples


def test_a_batch_has_the_records_of_each_store(tmp_path):
    rows = samples(8)
    small = make_codec("top_k", vocabulary=VOCABULARY, k=4)
    stores = {0: captured(tmp_path / "one", llama(0), rows), 2: captured(tmp_path / "two", llama(1), rows, codec=small)}
    collate = TargetCollator(Collator(0), stores)
    batch = collate([rows[6], rows[1]])
    taught = sum(label != IGNORE_INDEX for row in (rows[6], rows[1]) for label in row["labels"][1:])
    for index, store in stores.items():
        assert batch[records_column(index)].shape == (taught, store.codec.layout.record_bytes)
    assert records_column(1) not in batch
    with pytest.raises(UserError, match="not among the 8 captured"):
        collate([{"input_ids": [9, 9, 9]}])
