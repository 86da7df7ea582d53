"""The evaluation loss is the mean over supervised tokens, whatever the batches."""

import numpy as np
import pytest
import torch

from potstill.data.labels import IGNORE_INDEX
from potstill.errors import UserError
from tiny import llama
from toy_training import samples, sums_by_hand, trainer


def by_hand(rows):
    """The mean cross-entropy over the supervised tokens of rows that are each read alone."""
    sums, tokens = sums_by_hand(llama(seed=1, layers=2), None, rows)
    return sums["cross_entropy"].item() / tokens


def mute(count):
    """Samples that teach nothing."""
    return [{"input_ids": [5, 6, 7, 8], "labels": [IGNORE_INDEX] * 4} for _ in range(count)]


@pytest.fixture
def rows():
    return samples(11, seed=6)


@pytest.mark.parametrize("size", [1, 2, 5, 64])
def test_the_size_of_batches_changes_nothing(tmp_path, rows, size):
    one = trainer(tmp_path, teacher=llama(), eval_dataset=rows, per_device_eval_batch_size=size)
    assert one.evaluate()["eval_loss"] == pytest.approx(by_hand(rows), rel=1e-6)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_samples_and_batches_that_teach_nothing_change_nothing(tmp_path, rows, size):
    one = trainer(tmp_path, teacher=llama(), per_device_eval_batch_size=size)
    found = one.evaluate([*mute(4), *rows, *mute(1), *rows[:1], *mute(6)])["eval_loss"]
    assert found == pytest.approx(by_hand([*rows, *rows[:1]]), rel=1e-6)


def test_each_of_several_sets_has_its_own_loss(tmp_path, rows):
    sets = {"long": rows, "short": rows[:2]}
    one = trainer(tmp_path, teacher=llama(), eval_dataset=sets, per_device_eval_batch_size=3)
    found = one.evaluate()
    for name, some in sets.items():
        assert found[f"eval_{name}_loss"] == pytest.approx(by_hand(some), rel=1e-6)


def test_a_set_that_teaches_nothing_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"`eval_loss` have no token to learn.*`eval_dataset`"):
        trainer(tmp_path, teacher=llama()).evaluate(mute(3))


def test_prompts_alone_can_be_predicted(tmp_path):
    found = trainer(tmp_path, teacher=llama()).predict(mute(3))
    assert found.predictions.shape[:2] == (3, 4)
    assert "test_loss" not in found.metrics


def test_a_prediction_has_the_same_loss_and_every_logit(tmp_path, rows):
    found = trainer(tmp_path, teacher=llama(), per_device_eval_batch_size=4).predict(rows)
    assert found.metrics["test_loss"] == pytest.approx(by_hand(rows), rel=1e-6)
    with torch.no_grad():
        expected = llama(seed=1, layers=2)(torch.tensor([rows[0]["input_ids"]])).logits[0]
    torch.testing.assert_close(torch.from_numpy(found.predictions[0, : len(expected)]), expected)


def test_metrics_of_the_user_s_own_still_work(tmp_path, rows):
    seen = []

    def accuracy(prediction):
        seen.append(prediction)
        taught = prediction.label_ids[:, 1:] != IGNORE_INDEX
        guessed = prediction.predictions[:, :-1].argmax(-1)
        return {"accuracy": np.mean((guessed == prediction.label_ids[:, 1:])[taught])}

    given = {"compute_metrics": accuracy, "include_for_metrics": ["loss", "inputs"], "per_device_eval_batch_size": 4}
    found = trainer(tmp_path, teacher=llama(), eval_dataset=rows, **given).evaluate()
    assert found["eval_loss"] == pytest.approx(by_hand(rows), rel=1e-6)
    assert 0 <= found["eval_accuracy"] <= 1
    assert len(seen[0].losses) == len(seen[0].inputs) == len(rows)


def test_without_metrics_no_logits_are_kept(tmp_path, rows, monkeypatch):
    one = trainer(tmp_path, teacher=llama(), eval_dataset=rows)
    step, kept = one.prediction_step, []
    monkeypatch.setattr(one, "prediction_step", lambda *given, **named: kept.append(step(*given, **named)) or kept[-1])
    one.evaluate()
    assert {(logits, labels) for _, logits, labels in kept} == {(None, None)}


def test_the_best_weights_are_chosen_by_the_mean_over_tokens(tmp_path, rows):
    often = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1, "max_steps": 4}
    best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss", "greater_is_better": False}
    one = trainer(tmp_path, teacher=llama(), eval_dataset=rows, per_device_eval_batch_size=1, **often, **best)
    one.train()
    sums, tokens = sums_by_hand(one.model, None, rows)
    assert one.state.best_metric == pytest.approx(sums["cross_entropy"].item() / tokens, rel=1e-6)
    losses = [entry["eval_loss"] for entry in one.state.log_history if "eval_loss" in entry]
    assert one.state.best_metric == min(losses)
