"""Samples of unequal length as one batch."""

import pytest
import torch

from potstill.data.collators import Collator, FittingCollator, SharedVocabularyCollator, pad_token_id
from potstill.data.labels import IGNORE_INDEX
from potstill.data.prompts.collator import AlignedCollator
from potstill.errors import UserError


def test_short_rows_are_padded_on_the_right_masked_and_not_learned():
    batch = Collator(pad_token_id=9)([{"input_ids": [1, 2, 3]}, {"input_ids": [4]}])
    assert batch["input_ids"].tolist() == [[1, 2, 3], [4, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[1, 2, 3], [4, IGNORE_INDEX, IGNORE_INDEX]]
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


def test_rows_may_have_a_least_length():
    for documents in ({}, {"documents": [3]}):
        batch = Collator(9, least_length=5)([{"input_ids": [1, 2, 3], **documents}])
        assert batch["input_ids"].tolist() == [[1, 2, 3, 9, 9]]
        assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0]]
        assert batch["labels"].tolist()[0][3:] == [IGNORE_INDEX, IGNORE_INDEX]
        assert Collator(9, least_length=2)([{"input_ids": [1, 2, 3], **documents}])["input_ids"].shape == (1, 3)


def test_a_sample_may_say_what_is_learned():
    batch = Collator(0)([{"input_ids": [1, 2, 3], "labels": [IGNORE_INDEX, 2, 3]}, {"input_ids": [4, 5, 6]}])
    assert batch["labels"].tolist() == [[IGNORE_INDEX, 2, 3], [4, 5, 6]]


def test_a_real_token_that_is_the_pad_token_is_still_learned():
    batch = Collator(pad_token_id=2)([{"input_ids": [1, 2]}, {"input_ids": [3]}])
    assert batch["labels"].tolist() == [[1, 2], [3, IGNORE_INDEX]]
    assert batch["attention_mask"].tolist() == [[1, 1], [1, 0]]


def test_tensors_are_samples_too_and_are_left_as_they_were():
    ids = torch.tensor([1, 2])
    Collator(0)([{"input_ids": ids}, {"input_ids": [1, 2, 3]}])
    assert ids.tolist() == [1, 2]


def test_documents_that_are_read_apart_begin_anew_and_so_do_pads():
    rows = [{"input_ids": [1, 2, 3, 4, 5], "documents": [2, 3]}, {"input_ids": [6, 7, 8], "documents": [1, 2]}]
    batch = Collator(pad_token_id=9)(rows)
    assert batch["position_ids"].tolist() == [[0, 1, 0, 1, 2], [0, 0, 1, 0, 1]]
    assert batch["labels"].tolist() == [[1, 2, IGNORE_INDEX, 4, 5], [6, IGNORE_INDEX, 8, IGNORE_INDEX, IGNORE_INDEX]]
    assert batch["attention_mask"].tolist() == [[1] * 5, [1, 1, 1, 0, 0]]
    assert rows[0] == {"input_ids": [1, 2, 3, 4, 5], "documents": [2, 3]}


def test_a_sample_that_names_no_documents_is_one_beside_those_that_do():
    batch = Collator(0)([{"input_ids": [1, 2]}, {"input_ids": [3, 4], "documents": [1, 1]}])
    assert batch["position_ids"].tolist() == [[0, 1], [0, 0]]
    assert "position_ids" not in Collator(0)([{"input_ids": [1, 2]}])


class Named:
    def __init__(self, pad):
        self.pad_token_id = pad


@pytest.mark.parametrize(("pad", "expected"), [(0, 0), (7, 7), (None, 0)])
def test_any_token_pads_where_a_tokenizer_has_none(pad, expected):
    assert pad_token_id(Named(pad)) == expected


def test_what_is_not_shared_is_refused_unless_it_is_padding():
    collate = SharedVocabularyCollator(Collator(pad_token_id=12), 10)
    batch = collate([{"input_ids": [1, 9, 3]}, {"input_ids": [4]}])
    assert batch["input_ids"].tolist() == [[1, 9, 3], [4, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert (
        SharedVocabularyCollator(Collator(pad_token_id=7), 10)([{"input_ids": [1]}, {"input_ids": [4, 5]}])[
            "input_ids"
        ][0, 1]
        == 7
    )
    with pytest.raises(UserError, match="token 10, but student and teacher share only the 10 tokens"):
        collate([{"input_ids": [1, 10], "labels": [1, IGNORE_INDEX]}])
    with pytest.raises(UserError, match="no `labels`"):
        SharedVocabularyCollator(lambda samples: {"input_ids": torch.zeros(1, 1)}, 10)([])
    with pytest.raises(UserError, match="token 11"):
        collate([{"input_ids": [1, 2], "labels": [1, 11]}])


def test_a_row_that_is_longer_than_a_model_has_positions_is_refused():
    rows = [{"input_ids": [1] * 5}, {"input_ids": [1] * 9}]
    assert FittingCollator(Collator(0), 9, None)(rows)["input_ids"].shape == (2, 9)
    with pytest.raises(UserError, match="a sample has 9 tokens, but the student has only 8 positions; cut it"):
        FittingCollator(Collator(0), 8, None)(rows)
    with pytest.raises(UserError, match="a sample has 9 tokens, but the teacher has only 8 positions"):
        FittingCollator(Collator(0), None, 8)(rows)
    packed = [{"input_ids": [1] * 9, "documents": [5, 4]}]
    assert FittingCollator(Collator(0), 5, 5)(packed)["input_ids"].shape == (1, 9)


def test_a_teacher_s_own_rows_have_a_limit_of_their_own():
    rows = [{"input_ids": [1, 2], "labels": [-100, 2], "teacher_input_ids": [1, 1, 1, 2], "teacher_answer_start": 3}]
    assert FittingCollator(AlignedCollator(0), 2, 4)(rows)["teacher_input_ids"].shape == (1, 4)
    with pytest.raises(UserError, match="a sample has 4 tokens, but the teacher has only 3 positions"):
        FittingCollator(AlignedCollator(0), 2, 3)(rows)
