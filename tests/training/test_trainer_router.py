"""A mixture of experts learns its router loss beside ours, as it does in transformers' Trainer."""

import pytest
import torch
from transformers import Trainer

from potstill import Loss
from potstill.data.collators import Collator
from tiny import llama, mixture
from toy_training import arguments, assert_equal, samples, trainer, weights

CROSS_ENTROPY = [Loss("cross_entropy")]


def test_a_step_is_that_of_transformers_own_trainer(tmp_path):
    rows = samples()
    plain = Trainer(mixture(), arguments(tmp_path, max_steps=1), Collator(0), train_dataset=rows)
    plain.train()
    ours = trainer(tmp_path, mixture(), losses=CROSS_ENTROPY, train_dataset=rows, max_steps=1)
    ours.train()
    assert_equal(weights(ours.model), weights(plain.model), tolerance=1e-5)
    without = trainer(
        tmp_path, mixture(output_router_logits=False), losses=CROSS_ENTROPY, train_dataset=rows, max_steps=1
    )
    without.train()
    with pytest.raises(AssertionError):
        assert_equal(weights(ours.model), weights(without.model), tolerance=1e-4)


def test_it_is_logged_by_its_own_name_before_its_coefficient(tmp_path):
    rows, model = samples(), mixture()
    with torch.no_grad():
        batch = Collator(0)(rows)
        expected = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).aux_loss.item()
    one = trainer(tmp_path, model, losses=CROSS_ENTROPY, train_dataset=rows, max_steps=1)
    one.train()
    log = one.state.log_history[0]
    assert log["router_loss"] == pytest.approx(expected, rel=1e-5)
    assert log["loss"] == pytest.approx(log["cross_entropy"] + 0.5 * log["router_loss"], rel=1e-5)


def test_over_micro_batches_it_is_their_mean_by_supervised_tokens(tmp_path):
    rows, logged, counts = samples(8), [], []
    for part in (rows[:4], rows[4:]):
        one = trainer(tmp_path, mixture(), losses=CROSS_ENTROPY, train_dataset=part, max_steps=1)
        one.train()
        logged.append(one.state.log_history[0]["router_loss"])
        counts.append(sum(label != -100 for row in part for label in row["labels"][1:]))
    both = trainer(
        tmp_path,
        mixture(),
        losses=CROSS_ENTROPY,
        train_dataset=rows,
        max_steps=1,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
    )
    both.train()
    expected = sum(one * count for one, count in zip(logged, counts, strict=True)) / sum(counts)
    assert both.state.log_history[0]["router_loss"] == pytest.approx(expected, rel=1e-4)


def test_evaluation_is_cross_entropy_alone_and_a_teachers_router_is_not_learned(tmp_path):
    rows = samples()
    one = trainer(tmp_path, mixture(), losses=CROSS_ENTROPY, train_dataset=rows, eval_dataset=rows)
    plain = trainer(tmp_path, mixture(output_router_logits=False), losses=CROSS_ENTROPY, eval_dataset=rows)
    assert one.evaluate()["eval_loss"] == pytest.approx(plain.evaluate()["eval_loss"], rel=1e-5)
    taught = trainer(tmp_path, llama(1, layers=2), teacher=mixture(), train_dataset=rows, max_steps=1)
    taught.train()
    assert "router_loss" not in taught.state.log_history[0]
