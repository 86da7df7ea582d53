"""Heads of other sizes at the trainer: the same training as without padding, and padding does not change."""

import copy

import pytest
import torch

from potstill import Loss
from potstill.data.labels import IGNORE_INDEX
from potstill.errors import UserError
from potstill.targets import make_codec
from tiny import VOCABULARY, gpt2, llama, padded, tokenizer
from toy_training import assert_equal, captured, samples, trained, trainer, weights

SETTINGS = {
    "top_k": {"k": 40, "bits": 32, "temperatures": (2.0,)},
    "sample": {"draws": 64, "temperature": 2.0},
    "hybrid": {"k": 16, "draws": 32, "bits": 16, "temperature": 2.0},
    "hidden": {"hidden_size": 32, "bits": 32},
}


def student(rows=VOCABULARY):
    plain = llama(seed=1, layers=2)
    return plain if rows == VOCABULARY else padded(plain, rows)


def assert_as_unpadded(found, expected, before):
    cut = {name: weight[:VOCABULARY] if len(weight) > VOCABULARY else weight for name, weight in found.items()}
    assert_equal(cut, expected, tolerance=2e-6)
    for name in ("lm_head.weight", "model.embed_tokens.weight"):
        assert torch.equal(found[name][VOCABULARY:], before[name][VOCABULARY:]), "padding has no gradient"


@pytest.mark.parametrize(("ours", "theirs"), [(320, 304), (304, 320), (VOCABULARY, 320), (320, VOCABULARY)])
def test_a_live_teacher_of_another_size_teaches_what_it_does_unpadded(tmp_path, ours, theirs):
    rows, tokens = samples(8), {"processing_class": tokenizer(), "teacher_tokenizer": tokenizer()}
    expected = trained(tmp_path, student(), teacher=llama(), train_dataset=rows)
    teacher = llama() if theirs == VOCABULARY else padded(llama(), theirs)
    found = trained(tmp_path, student(ours), teacher=teacher, train_dataset=rows, **tokens)
    assert_as_unpadded(found, expected, weights(student(ours)))


@pytest.mark.parametrize("mode", SETTINGS)
def test_a_store_teaches_a_student_of_another_size(tmp_path, mode):
    rows, codec = samples(8), make_codec(mode, vocabulary=VOCABULARY, **SETTINGS[mode])
    given = {"train_dataset": rows, "processing_class": tokenizer()}
    given["losses"] = [Loss("forward_kl", weight=0.7, temperature=2.0), Loss("cross_entropy", weight=0.3)]
    plain = captured(tmp_path / "plain", llama(), rows, codec=codec)
    wide = captured(tmp_path / "wide", padded(llama(), 304), rows, codec=codec)
    expected = trained(tmp_path, student(), teacher=plain, **given)
    assert_as_unpadded(trained(tmp_path, student(320), teacher=wide, **given), expected, weights(student(320)))


def test_hidden_states_captured_with_the_whole_head_are_cut(tmp_path):
    rows, codec = samples(8), make_codec("hidden", vocabulary=304, hidden_size=32, bits=32)
    store = captured(tmp_path / "store", padded(llama(), 304), rows, codec=codec)
    expected = trained(tmp_path, student(), teacher=llama(), train_dataset=rows)
    found = trained(tmp_path, student(320), teacher=store, train_dataset=rows, processing_class=tokenizer())
    assert_as_unpadded(found, expected, weights(student(320)))


@pytest.mark.parametrize("mix", ["probabilities", "logits"])
def test_an_ensemble_of_several_paddings(tmp_path, mix):
    rows, tokens = samples(8), {"processing_class": tokenizer(), "teacher_tokenizer": tokenizer()}
    plain, wide = [llama(), gpt2(2)], [padded(llama(), 304), padded(gpt2(2), 310)]
    expected = trained(tmp_path, student(), teacher=plain, train_dataset=rows, mix=mix)
    found = trained(tmp_path, student(320), teacher=wide, train_dataset=rows, mix=mix, **tokens)
    assert_as_unpadded(found, expected, weights(student(320)))


def test_the_loss_of_an_evaluation_is_that_of_the_shared_tokens(tmp_path):
    rows, tokens = samples(8), {"processing_class": tokenizer(), "teacher_tokenizer": tokenizer()}
    expected = trainer(tmp_path, student(), teacher=llama(), eval_dataset=rows).evaluate()["eval_loss"]
    one = trainer(tmp_path, student(320), teacher=padded(llama(), 304), eval_dataset=rows, **tokens)
    assert one.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-5)


def test_a_pad_that_only_the_student_has_is_no_token(tmp_path):
    # The usual way to a student of one more id: a pad token was added to its tokenizer.
    own = copy.deepcopy(tokenizer())
    own.add_special_tokens({"pad_token": "<another pad>"})
    assert own.pad_token_id == VOCABULARY
    rows, tokens = samples(8), {"processing_class": own, "teacher_tokenizer": tokenizer()}
    expected = trained(tmp_path, student(), teacher=llama(), train_dataset=rows)
    found = trained(tmp_path, student(VOCABULARY + 1), teacher=llama(), train_dataset=rows, **tokens)
    assert_as_unpadded(found, expected, weights(student(VOCABULARY + 1)))


def test_a_token_that_only_the_student_has_is_refused(tmp_path):
    own = copy.deepcopy(tokenizer())
    own.add_tokens(["<extra>"])
    prompt = {"input_ids": [5, VOCABULARY, 6, 7], "labels": [IGNORE_INDEX, IGNORE_INDEX, 6, 7]}
    tokens = {"processing_class": own, "teacher_tokenizer": tokenizer()}
    with pytest.raises(UserError, match="token 300, but student and teacher share only the 300 tokens"):
        trained(tmp_path, student(320), teacher=padded(llama(), 304), train_dataset=[prompt] * 8, **tokens)
