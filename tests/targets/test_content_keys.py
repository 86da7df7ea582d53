import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from potstill.data.collators import Collator
from potstill.data.labels import IGNORE_INDEX
from potstill.targets.content_keys import batch_keys, contents, sample_key, uniforms
from toy_training import left_padded, samples

IDS = st.lists(st.integers(0, 2**20), min_size=1, max_size=8)


@given(IDS, IDS, st.data())
def test_a_key_depends_on_what_was_seen_taught_and_supervised(
    teacher: list[int], student: list[int], data: st.DataObject
) -> None:
    taught = data.draw(st.lists(st.booleans(), min_size=len(student), max_size=len(student)))
    same = [np.array(teacher), np.array(student), np.array(taught, dtype=bool)]
    key = sample_key(*same)
    assert len(key) == 16
    assert key == sample_key(same[0].astype(np.int32), same[1].astype(np.uint32), same[2])
    at = data.draw(st.integers(0, len(student) - 1))
    for part in range(3):
        other = [array.copy() for array in same]
        other[part][at % len(other[part])] ^= 1
        assert sample_key(*other) != key
    if teacher != student:
        assert sample_key(same[1], same[1], same[2]) != key


def test_tokens_do_not_move_between_teacher_and_student() -> None:
    taught = np.ones(2, dtype=bool)
    keys = {
        sample_key(np.array(teacher), np.array(student), taught)
        for teacher, student in [([1], [2, 3]), ([1, 2], [2, 3]), ([1, 2, 3], [2, 3]), ([2, 3], [2, 3])]
    }
    assert len(keys) == 4


def test_numbers_are_those_of_splitmix64() -> None:
    """The first outputs for seed 1234567, as in the reference implementation."""
    outputs = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    expected = [((output >> 32) + 0.5) / 2**32 for output in outputs]
    key = (1234567).to_bytes(8, "little") + b"whatever"
    assert uniforms(key, 3).tolist() == expected


def test_numbers_lie_evenly_between_zero_and_one() -> None:
    numbers = np.concatenate([uniforms(np.random.default_rng(seed).bytes(16), 50) for seed in range(400)])
    assert numbers.min() > 0
    assert numbers.max() < 1
    counts = np.histogram(numbers, 20, (0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 44, "chi-squared with 19 degrees of freedom: one in a thousand"


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
    assert keys[0] == keys[2], "no token predicts the first one, so its label does not count"


def test_contents_are_those_of_each_sample():
    rows = samples(20)
    found = contents(rows, Collator(0))
    assert found.keys.tolist() == [batch_keys(Collator(0)([row]))[0] for row in rows]
    assert found.counts.tolist() == [sum(label != IGNORE_INDEX for label in row["labels"][1:]) for row in rows]
    assert found.lengths.tolist() == [len(row["input_ids"]) for row in rows]


def test_padding_on_the_left_is_no_content_either():
    rows = samples(6)
    assert batch_keys(left_padded(rows)) == batch_keys(Collator(0)(rows))
    left, right = contents(rows, left_padded), contents(rows, Collator(0))
    assert left.keys.tolist() == right.keys.tolist()
    assert left.counts.tolist() == right.counts.tolist()
    assert left.lengths.tolist() == right.lengths.tolist()
