"""What DistilTrainer refuses about its models when it is made."""

import pytest
import torch
from torch import nn
from transformers import (
    LlamaForSequenceClassification,
    LlamaModel,
    T5Config,
    T5ForConditionalGeneration,
)

from potstill import Loss
from potstill.errors import UserError
from tiny import VOCABULARY, bert, llama, padded, tokenizer
from toy_training import trainer, weights

CROSS_ENTROPY = [Loss("cross_entropy")]


def t5():
    return T5ForConditionalGeneration(
        T5Config(vocab_size=VOCABULARY, d_model=32, d_ff=64, num_layers=1, num_heads=4, d_kv=8)
    )


def more_tokens(tmp_path):
    tokenizer().save_pretrained(tmp_path / "tokenizer")
    more = type(tokenizer()).from_pretrained(tmp_path / "tokenizer")
    more.add_tokens(["<one>"])
    return more


OTHERS = {
    "looks ahead": bert,
    "is an encoder-decoder": t5,
    "gives no logits": lambda: LlamaModel(llama().config),
    "gives logits of shape": lambda: LlamaForSequenceClassification(llama().config),
}


@pytest.mark.parametrize(("reason", "model"), OTHERS.items())
def test_a_student_and_a_teacher_must_be_causal_language_models(tmp_path, reason, model):
    with pytest.raises(UserError, match=rf"^`model` is not a causal language model: .*{reason}"):
        trainer(tmp_path, model(), losses=CROSS_ENTROPY)
    with pytest.raises(UserError, match=rf"^`teacher` is not a causal language model: .*{reason}"):
        trainer(tmp_path, teacher=[llama(), model()])


def test_a_token_without_an_embedding_is_refused(tmp_path):
    more = more_tokens(tmp_path)
    with pytest.raises(UserError, match=r"^`model`: its tokenizer has ids up to 300, but the model has only 300"):
        trainer(tmp_path, processing_class=more, losses=CROSS_ENTROPY)
    student = padded(llama(1, layers=2), VOCABULARY + 20)
    with pytest.raises(UserError, match=r"^`teacher`: its tokenizer has ids up to 300, but the model has only 300"):
        trainer(tmp_path, student, teacher=llama(), processing_class=more, teacher_tokenizer=more)


def test_a_student_that_could_not_be_saved_is_mended_or_refused(tmp_path):
    student = llama(1, layers=2)
    student.generation_config.temperature = 0.7
    one = trainer(tmp_path, student, losses=CROSS_ENTROPY, max_steps=1, save_strategy="steps", save_steps=1)
    one.train()
    assert (tmp_path / "checkpoint-1" / "model.safetensors").is_file()
    student.generation_config.max_new_tokens = 0
    with pytest.raises(UserError, match=r"^`model` could not be saved: "):
        trainer(tmp_path, student, losses=CROSS_ENTROPY)


def test_damaged_weights_are_refused(tmp_path):
    model = llama()
    nn.init.constant_(model.lm_head.weight, float("nan"))
    with pytest.raises(UserError, match=r"^`teacher` is not a causal language model: .*not numbers"):
        trainer(tmp_path, teacher=model)


def test_the_checks_change_no_weight(tmp_path):
    student = llama(1, layers=2)
    before = weights(student)
    trainer(tmp_path, student, teacher=llama())
    assert all(torch.equal(weight, before[name]) for name, weight in weights(student).items())
