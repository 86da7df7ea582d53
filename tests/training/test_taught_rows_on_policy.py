"""Samples that the student writes have the teachers of the row whose prompt they answer."""

import copy

import pytest

from potstill import Loss
from potstill.data.labels import IGNORE_INDEX
from tiny import llama, tokenizer
from toy_rollouts import on_policy, still
from toy_training import assert_equal, captured, samples, trainer, weights

OF = (["maths"], [], ["chat"], ["maths", "chat"])


def rows(count=8):
    return [{**row, "teachers": OF[number % 4]} for number, row in enumerate(samples(count, seed=8))]


def teachers():
    return {"maths": llama(), "chat": llama(seed=2, layers=3)}


def made(folder, **given):
    both = {"losses": (Loss("reverse_kl"), Loss("cross_entropy", weight=0.5)), "train_dataset": rows()}
    one = trainer(folder, still(), **{**both, "teacher": teachers(), "processing_class": tokenizer(), **given})
    one.train()
    return one


def as_corpus(rollouts):
    """Written samples as samples of a corpus, whose labels are those of the written tokens alone."""
    found = []
    for one in rollouts:
        labels = [IGNORE_INDEX] * len(one.prompt.student) + one.ids
        found.append({"input_ids": one.prompt.student + one.ids, "labels": labels, "teachers": one.prompt.taught_by})
    return found


@pytest.mark.parametrize("batch", [{}, {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}])
def test_rows_with_a_teacher_are_written_and_taught_by_it(tmp_path, batch):
    divergences = (Loss("reverse_kl", weight=0.7, temperature=2.0), Loss("jsd", weight=0.3))
    taught = [row for row in rows(12) if row["teachers"]][:8]
    both = {"losses": divergences, "max_steps": 1, **batch}
    one = made(tmp_path / "a", on_policy=on_policy(share=1), train_dataset=taught, **both)
    rollouts = one.on_policy.rollouts
    by_prompt = {tuple(r.prompt.student): r.prompt.taught_by for r in rollouts}
    for row in taught:
        start = sum(label == IGNORE_INDEX for label in row["labels"])
        assert by_prompt.get(tuple(row["input_ids"][:start]), row["teachers"]) == row["teachers"]
    other = made(tmp_path / "b", train_dataset=as_corpus(rollouts), **both)
    assert_equal(weights(one.model), weights(other.model), tolerance=2e-6)
    logged = [each.state.log_history[0] for each in (one, other)]
    assert logged[0]["on_policy/jsd/maths"] == pytest.approx(logged[1]["jsd/maths"], rel=1e-4)


def test_rows_without_a_teacher_stay_as_they_are(tmp_path):
    one = made(tmp_path, on_policy=on_policy(share=1), max_steps=1)
    assert len(one.on_policy.rollouts) == sum(bool(row["teachers"]) for row in rows())
    assert all(rollout.prompt.taught_by for rollout in one.on_policy.rollouts)
    assert one.state.log_history[0]["tokens_without_teacher"] > 0


@pytest.mark.parametrize("losses", [None, [{"kind": "policy_gradient"}, {"kind": "forward_kl"}]])
def test_the_sizes_of_micro_batches_change_nothing(tmp_path, losses):
    found = []
    for size in (8, 2):
        batch = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 8 // size}
        settings = on_policy(share=0.5, losses=losses)
        found.append(weights(made(tmp_path / str(size), on_policy=settings, **batch).model))
    assert_equal(*found, tolerance=2e-5)


def test_captured_targets_and_the_teachers_themselves_for_what_is_written(tmp_path):
    losses = (Loss("forward_kl", temperature=2.0), Loss("cross_entropy", weight=0.5))
    both = {"losses": losses, "on_policy": on_policy(share=0.5, preflight="warn"), "max_steps": 2}
    live = made(tmp_path / "live", **both)
    stores = {
        name: captured(tmp_path / name, model, [row for row in rows() if name in row["teachers"]])
        for name, model in teachers().items()
    }
    beside = dict(reversed(copy.deepcopy(teachers()).items()))
    kept = made(tmp_path / "kept", teacher=stores, rollout_teacher=beside, **both)
    assert_equal(weights(kept.model), weights(live.model), tolerance=2e-5)
