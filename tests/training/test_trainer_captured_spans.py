"""A training from captured spans: that of the live teacher, and the same one after a stop."""

import pytest
from datasets import Dataset

from potstill import Loss
from potstill.errors import UserError
from tiny import documents, llama, tokenizer
from tokenizer_zoo import trained as other_tokenizer
from toy_training import (
    assert_equal,
    captured_spans,
    rows_of_texts,
    teacher_of_other_tokens,
    trained,
    trainer,
    weights,
)

LOSSES = [Loss("alm", 0.7), Loss("cross_entropy", 0.3)]
TEXTS = documents(10, seed=5)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return captured_spans(tmp_path_factory.mktemp("store"), TEXTS)


def given(**more):
    own = {"losses": LOSSES, "train_dataset": rows_of_texts(TEXTS), "processing_class": tokenizer(), "max_steps": 3}
    return {"student": llama(seed=1, layers=2, max_position_embeddings=512), **own, **more}


def test_it_learns_what_it_learns_of_the_live_teacher(tmp_path, store):
    found = trained(tmp_path, **given(teacher=store))
    live = trained(tmp_path, **given(teacher=teacher_of_other_tokens(), teacher_tokenizer=other_tokenizer()))
    assert_equal(found, live, tolerance=2e-5)


def test_a_folder_is_a_teacher_and_a_table_has_samples(tmp_path, store):
    rows = Dataset.from_list(rows_of_texts(TEXTS))
    found = trained(tmp_path, **given(teacher=str(store.path), train_dataset=rows))
    assert_equal(found, trained(tmp_path, **given(teacher=store)))


def test_texts_are_found_whatever_their_length(tmp_path, store):
    texts = [{"text": text} for text in TEXTS]
    one = trainer(tmp_path, **given(teacher=store, train_dataset=texts, max_length=40, eval_dataset=texts[:3]))
    one.train()
    assert all(entry["alm"] > 0 for entry in one.state.log_history if "alm" in entry)
    assert one.evaluate()["eval_loss"] > 0


def test_a_text_that_was_not_captured_is_refused(tmp_path, store):
    other = [{"text": "Another text, which no teacher has read."}]
    with pytest.raises(UserError, match="1 of 1 blocks of documents are not among the 10 captured"):
        trainer(tmp_path, **given(teacher=store, train_dataset=other))


def test_tokens_without_their_text_are_refused(tmp_path, store):
    rows = [{"input_ids": row["input_ids"]} for row in rows_of_texts(TEXTS)]
    with pytest.raises(UserError, match="a sample has tokens and no `text_runs`"):
        trainer(tmp_path, **given(teacher=store, train_dataset=rows))


@pytest.mark.parametrize("losses", [[Loss("forward_kl")], [Loss("cross_entropy")]])
def test_spans_are_no_distributions(tmp_path, store, losses):
    with pytest.raises(UserError, match=r"keeps spans, two numbers a token for the loss alm, and no distributions"):
        trainer(tmp_path, **given(teacher=store, losses=losses))


def test_a_resumed_training_ends_in_the_same_weights(tmp_path, store):
    saving = {"save_strategy": "steps", "save_steps": 2, "max_steps": 5, "per_device_train_batch_size": 4}
    learning = {"optim": "adamw_torch", "learning_rate": 1e-2, "train_sampling_strategy": "random"}
    both = {"teacher": store, **saving, **learning}
    whole = trainer(tmp_path, **given(**both))
    whole.train()
    again = trainer(tmp_path, **given(**both, student=llama(seed=9, layers=2, max_position_embeddings=512)))
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert_equal(weights(again.model), weights(whole.model))
