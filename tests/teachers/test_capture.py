import pytest

from potstill.data.collators import Collator
from potstill.data.labels import IGNORE_INDEX
from potstill.errors import UserError
from potstill.targets import make_codec
from potstill.targets.collator import WithTargets, field
from potstill.targets.content_keys import batch_keys, contents
from tiny import VOCABULARY, llama
from toy_training import captured, left_padded, samples


def test_a_key_is_the_content_and_not_the_padding():
    rows = samples(5)
    together = batch_keys(Collator(7)(rows))
    alone = [batch_keys(Collator(0)([row]))[0] for row in rows]
    assert together == alone
    assert len(set(together)) == 5


def test_a_key_knows_what_is_taught():
    row = {"input_ids": [5, 6, 7, 8], "labels": [5, 6, 7, 8]}
    masked = {"input_ids": [5, 6, 7, 8], "labels": [IGNORE_INDEX, IGNORE_INDEX, 7, 8]}
    first_only = {"input_ids": [5, 6, 7, 8], "labels": [IGNORE_INDEX, 6, 7, 8]}
    keys = batch_keys(Collator(0)([row, masked, first_only]))
    assert keys[0] != keys[1]
    assert keys[0] == keys[2], "nothing predicts the first token, whatever its label says"


def test_contents_are_those_of_each_sample():
    rows = samples(20)
    keys, counts = contents(rows, Collator(0))
    assert keys == [batch_keys(Collator(0)([row]))[0] for row in rows]
    assert counts == [sum(label != IGNORE_INDEX for label in row["labels"][1:]) for row in rows]


def test_a_batch_has_the_records_of_each_store(tmp_path):
    rows = samples(8)
    small = make_codec("top_k", vocabulary=VOCABULARY, k=4)
    stores = {0: captured(tmp_path / "one", llama(0), rows), 2: captured(tmp_path / "two", llama(1), rows, codec=small)}
    collate = WithTargets(Collator(0), stores)
    batch = collate([rows[6], rows[1]])
    taught = sum(label != IGNORE_INDEX for row in (rows[6], rows[1]) for label in row["labels"][1:])
    for index, store in stores.items():
        assert batch[field(index)].shape == (taught, store.codec.layout.record_bytes)
    assert field(1) not in batch
    with pytest.raises(UserError, match="not among the 8 captured"):
        collate([{"input_ids": [9, 9, 9]}])


def test_padding_on_the_left_is_no_content_either():
    rows = samples(6)
    assert batch_keys(left_padded(rows)) == batch_keys(Collator(0)(rows))
    assert contents(rows, left_padded) == contents(rows, Collator(0))
