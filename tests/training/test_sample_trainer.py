"""One training, whatever its samples come in: lists, tables, streams, texts, masks or a collator of the user's own."""

import copy

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch.utils.data import IterableDataset
from transformers import DataCollatorForSeq2Seq, DataCollatorWithFlattening, MambaConfig, MambaForCausalLM

from potstill import Loss
from potstill.data.labels import IGNORE_INDEX
from potstill.data.text_samples import TextReader
from potstill.errors import UserError
from tiny import VOCABULARY, documents, gpt2, llama, tokenizer
from toy_training import assert_equal, captured, packed_rows, prompted, samples, trained, trainer


class OnlyOnce(IterableDataset):
    """A stream that gives each sample once, and that is read to its end."""

    def __init__(self, rows):
        self._samples = iter(rows)

    def __iter__(self):
        return self._samples


class Again(IterableDataset):
    def __init__(self, rows):
        self._rows = rows

    def __iter__(self):
        return iter(self._rows)


STREAMS = {"once": OnlyOnce, "again": Again, "datasets": lambda rows: Dataset.from_list(rows).to_iterable_dataset()}
KINDS = {"list": list, "table": Dataset.from_list, **STREAMS}


def masked(rows, name="completion_mask"):
    """The samples with a mask in place of labels."""
    return [
        {"input_ids": row["input_ids"], name: [int(label != IGNORE_INDEX) for label in row["labels"]]} for row in rows
    ]


def texts(count=8):
    return [{"text": text[:60]} for text in documents(count)]


def one_epoch(folder, rows, student=None, **given):
    return trained(folder, student, train_dataset=rows, **{"max_steps": 2, "per_device_train_batch_size": 4, **given})


@pytest.fixture(scope="module")
def masked_training(tmp_path_factory):
    """The weights after a training on labels that leave prompts out."""
    return one_epoch(tmp_path_factory.mktemp("masked"), samples(8), teacher=llama())


@pytest.mark.parametrize("unused", [True, False], ids=["unused removed", "all kept"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mask", ["completion_mask", "assistant_masks"])
def test_prompts_are_not_learned(tmp_path, masked_training, mask, kind, unused):
    rows = KINDS[kind](masked(samples(8), mask))
    found = one_epoch(tmp_path, rows, teacher=llama(), remove_unused_columns=unused)
    assert_equal(found, masked_training)


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("case", ["plain", "prompted", "documents", "packed", "text"])
def test_a_stream_is_the_same_training_as_a_list(tmp_path, kind, case):
    packed, _ = packed_rows([row["input_ids"] for row in samples(16, seed=11)])
    rows = {
        "plain": samples(8),
        "prompted": prompted()[:8],
        "documents": packed[:8],
        "packed": [{"input_ids": row["input_ids"], "seq_lengths": row["documents"]} for row in packed[:8]],
        "text": texts(),
    }[case]
    given = {"teacher": llama(max_position_embeddings=512), "processing_class": tokenizer()}
    expected = one_epoch(tmp_path, rows, **copy.deepcopy(given))
    assert_equal(one_epoch(tmp_path, STREAMS[kind](rows), **given), expected)


@pytest.mark.parametrize("kind", STREAMS)
def test_a_stream_finds_its_captured_targets(tmp_path, kind):
    rows = masked(samples(8))
    store = captured(tmp_path / "store", llama(), rows)
    expected = one_epoch(tmp_path, rows, teacher=store)
    assert_equal(one_epoch(tmp_path, STREAMS[kind](rows), teacher=store), expected)


@pytest.mark.parametrize("name", ["documents", "seq_lengths", "position_ids"])
def test_packed_documents_are_kept_apart(tmp_path, name):
    packed, alone = packed_rows([row["input_ids"] for row in samples(12, seed=11)])
    columns = {
        "documents": lambda sizes: sizes,
        "seq_lengths": lambda sizes: sizes,
        "position_ids": lambda sizes: [place for size in sizes for place in range(size)],
    }
    rows = [{"input_ids": row["input_ids"], name: columns[name](row["documents"])} for row in packed]
    whole = {"max_steps": 1, "per_device_train_batch_size": 64}
    expected = one_epoch(tmp_path, alone, teacher=llama(), **whole)
    found = one_epoch(tmp_path, Dataset.from_list(rows), teacher=llama(), **whole)
    assert_equal(found, expected, tolerance=2e-6)


@pytest.mark.parametrize("collate", [DataCollatorWithFlattening(), DataCollatorForSeq2Seq(tokenizer())])
def test_collators_of_transformers_that_honour_labels_are_the_same_training(tmp_path, masked_training, collate):
    found = one_epoch(tmp_path, samples(8), teacher=llama(), data_collator=collate)
    assert_equal(found, masked_training, tolerance=2e-6)


def recurrent():
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "state_size": 4, "num_hidden_layers": 1, "initializer_range": 0.2}
    return MambaForCausalLM(MambaConfig(vocab_size=VOCABULARY, **shape))


@pytest.mark.parametrize("kind", KINDS)
def test_documents_are_refused_where_a_model_reads_across_them(tmp_path, kind):
    packed, alone = packed_rows([row["input_ids"] for row in samples(12, seed=11)])
    with pytest.raises(UserError, match=r"the student \(mamba\) reads across documents"):
        one_epoch(tmp_path, KINDS[kind](packed), recurrent(), teacher=llama())
    one_epoch(tmp_path, KINDS[kind](alone), recurrent(), teacher=llama())


def test_documents_that_only_a_collator_makes_are_refused_too(tmp_path):
    with pytest.raises(UserError, match=r"the teacher \(mamba\) reads across documents"):
        one_epoch(tmp_path, samples(8), teacher=recurrent(), data_collator=DataCollatorWithFlattening())


@pytest.mark.parametrize("kind", KINDS)
def test_texts_are_tokenized(tmp_path, kind):
    read = TextReader(tokenizer(), max_length=12)
    expected = one_epoch(tmp_path, [read(sample) for sample in texts()], teacher=llama())
    given = {"processing_class": tokenizer(), "max_length": 12}
    assert_equal(one_epoch(tmp_path, KINDS[kind](texts()), teacher=llama(), **given), expected)


def test_texts_are_evaluated_too(tmp_path):
    read = TextReader(tokenizer())
    one = trainer(tmp_path, teacher=llama(), train_dataset=texts(), processing_class=tokenizer())
    expected = one.evaluate([read(sample) for sample in texts(4)])["eval_loss"]
    assert one.evaluate(Dataset.from_list(texts(4)))["eval_loss"] == expected
    assert one.evaluate(Again(texts(4)))["eval_loss"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("evaluated", [False, True])
@pytest.mark.parametrize(
    ("sample", "told"),
    [
        ({"input_ids": []}, "no token to learn"),
        ({"input_ids": [5, 6], "loss_mask": [0, 1]}, "`loss_mask`"),
        ({"input_ids": [5, 6], "weights": np.array([0.5, 1.0])}, "`weights`"),
        ({"input_ids": [5, VOCABULARY]}, f"token {VOCABULARY}, but the student has only the {VOCABULARY} tokens"),
        ({"input_ids": [5, 6], "completion_mask": [1]}, "1 numbers"),
        ({"messages": [{"role": "user", "content": "a"}]}, "has conversations; give the tokenizer"),
        ({"text": "a"}, "`processing_class`"),
        ({"input_ids": [5, 6], "assistant_masks": [0, 0]}, "no token to learn"),
        ({"input_ids": [5]}, "no token to learn"),
    ],
)
def test_what_cannot_be_read_is_refused_before_the_training(tmp_path, sample, told, evaluated):
    given = {"eval_dataset": [sample]} if evaluated else {"train_dataset": [sample]}
    with pytest.raises(UserError, match=told):
        trainer(tmp_path, teacher=llama(), **given).evaluate()


@pytest.mark.parametrize("kind", KINDS)
def test_a_column_that_means_something_is_not_dropped_unread(tmp_path, kind):
    rows = [{**row, "loss_mask": [1] * len(row["input_ids"])} for row in samples(8)]
    with pytest.raises(UserError, match="`loss_mask`"):
        one_epoch(tmp_path, KINDS[kind](rows), teacher=llama())


def test_samples_without_tokens_change_nothing(tmp_path):
    rows, empty = samples(8), {"input_ids": [], "labels": []}
    size = {"max_steps": 1, "per_device_train_batch_size": 16}
    expected = one_epoch(tmp_path, rows, teacher=llama(), **size)
    found = one_epoch(tmp_path, Dataset.from_list([empty, *rows, empty]), teacher=llama(), **size)
    assert_equal(found, expected, tolerance=2e-6)


def test_prompts_in_some_samples_of_a_batch_alone_are_refused(tmp_path):
    rows = [*prompted()[:3], *samples(1)]
    with pytest.raises(UserError, match="some samples have `teacher_input_ids`"):
        one_epoch(tmp_path, rows, teacher=llama(max_position_embeddings=512))


def test_prompted_samples_may_leave_out_what_follows_from_the_rest(tmp_path):
    rows, teacher = prompted()[:8], llama(max_position_embeddings=512)
    short = [{name: value for name, value in row.items() if name != "labels"} for row in rows]
    expected = one_epoch(tmp_path, rows, teacher=copy.deepcopy(teacher))
    assert_equal(one_epoch(tmp_path, short, teacher=teacher), expected)
    without = [{name: value for name, value in row.items() if name != "teacher_answer_start"} for row in rows]
    with pytest.raises(UserError, match="no `teacher_answer_start`"):
        trainer(tmp_path, teacher=llama(), losses=[Loss("forward_kl")], train_dataset=without)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_that_is_longer_than_a_model_reads_is_refused(tmp_path, kind):
    rows = [{"input_ids": [1] * 129}] * 4
    long = llama(max_position_embeddings=256)
    for who, student, teacher in (("student", gpt2(), long), ("teacher", long, gpt2())):
        with pytest.raises(UserError, match=f"a sample has 129 tokens, but the {who} has only 128 positions; cut it"):
            trainer(tmp_path, student, teacher=teacher, train_dataset=KINDS[kind](rows), max_steps=1).train()
