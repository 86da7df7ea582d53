"""Whether the samples and the user's own collator fit each other is known before the training."""

import pytest
import torch
from torch.utils.data import IterableDataset
from transformers import DataCollatorForLanguageModeling, DataCollatorForSeq2Seq, DataCollatorWithFlattening

from potstill.data.collators import Collator
from potstill.data.prompts.collator import AlignedCollator
from potstill.errors import UserError
from potstill.training.samples import OneDocumentCollator, check_collator, first_samples, name_documents
from tiny import tokenizer

PLAIN = [{"input_ids": [5, 6, 7]}, {"input_ids": [8, 9]}]
MASKED = [{"input_ids": [5, 6, 7], "completion_mask": [0, 1, 1]}, {"input_ids": [8, 9], "completion_mask": [0, 0]}]
LABELLED = [{"input_ids": [5, 6, 7], "labels": [-100, -100, 7]}, {"input_ids": [8, 9], "labels": [-100, 9]}]
PACKED = [{"input_ids": [5, 6, 7], "seq_lengths": [1, 2]}, {"input_ids": [8, 9], "seq_lengths": [2]}]
PROMPTED = [{**one, "teacher_input_ids": [4, one["input_ids"][-1]], "teacher_answer_start": 1} for one in LABELLED]


def without_masks(samples):
    return Collator(0)([{"input_ids": sample["input_ids"]} for sample in samples])


def without_labels(samples):
    return {name: ids for name, ids in without_masks(samples).items() if name != "labels"}


class Stream(IterableDataset):
    def __iter__(self):
        raise AssertionError("a stream is not looked into")


def test_the_first_samples_of_what_is_known():
    assert first_samples([*PLAIN * 4, {"input_ids": []}], "train_dataset") == PLAIN * 4
    assert first_samples(PLAIN[:1], "train_dataset") == PLAIN[:1]
    assert first_samples(None, "train_dataset") == first_samples(Stream(), "train_dataset") == []


@pytest.mark.parametrize(
    ("dataset", "told"),
    [
        ([], "`train_dataset` has no samples"),
        ({"train": PLAIN, "test": PLAIN}, "`train_dataset` has the parts 'train', 'test'; give one"),
        (iter(PLAIN), "`train_dataset` is a list_iterator"),
        (5, "`train_dataset` is a int"),
    ],
)
def test_what_is_no_data_set_is_refused(dataset, told):
    with pytest.raises(UserError, match=told):
        first_samples(dataset, "train_dataset")


@pytest.mark.parametrize(
    ("collate", "samples", "told"),
    [
        (without_masks, MASKED, r"\(without_masks\) learns 3 tokens of the first samples, whose columns allow 2"),
        (without_masks, LABELLED, "learns 3 tokens .* allow 2"),
        (without_masks, PACKED, "joins the documents of a sample"),
        (without_masks, PROMPTED, "drops `teacher_input_ids`"),
        (without_masks, [{}], r"fails on the first samples \(KeyError\).*remove_unused_columns=False"),
        (without_labels, PLAIN, "gives no `input_ids` or no `labels`"),
        (DataCollatorForLanguageModeling(tokenizer(), mlm=False), MASKED, "fails on the first samples"),
        (DataCollatorForLanguageModeling(tokenizer(), mlm=False), LABELLED, "fails on the first samples"),
        (DataCollatorForSeq2Seq(tokenizer()), MASKED, "fails on the first samples"),
        (DataCollatorWithFlattening(), MASKED, "learns 3 tokens .* allow 2"),
    ],
)
def test_a_collator_that_ignores_columns_is_refused(collate, samples, told):
    with pytest.raises(UserError, match=told) as error:
        check_collator(collate, samples)
    assert str(error.value).startswith("`data_collator` (")


@pytest.mark.parametrize(
    ("collate", "samples"),
    [
        (DataCollatorForLanguageModeling(tokenizer(), mlm=False), PLAIN),
        (DataCollatorForSeq2Seq(tokenizer()), LABELLED),
        (DataCollatorWithFlattening(), LABELLED),
        (lambda samples: AlignedCollator(0)(samples), PROMPTED),
        (lambda samples: {}, [{"text": "the user's collator tokenizes"}]),
        (without_masks, []),
        (Collator(0), PROMPTED),
    ],
)
def test_a_collator_that_honours_them_is_taken(collate, samples):
    check_collator(collate, samples)


def test_a_data_set_names_documents_by_its_columns_or_in_its_batches():
    assert name_documents(Collator(0)(PACKED[1:]), PACKED[1:])
    assert name_documents(DataCollatorWithFlattening()(PLAIN), PLAIN)
    assert not name_documents(Collator(0)(PLAIN), PLAIN)


def test_several_documents_are_refused_where_models_cannot_keep_them_apart():
    collate = OneDocumentCollator(Collator(0), "cannot")
    assert torch.equal(collate(PACKED[1:])["input_ids"], torch.tensor([[8, 9]]))
    with pytest.raises(UserError, match="cannot"):
        collate(PACKED)
