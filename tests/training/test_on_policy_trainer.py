"""Samples that the student writes: learned as samples of the corpus are, counted, and the same after a resume."""

import copy

import pytest
import torch
from peft import LoraConfig

from potstill import Loss
from potstill.data.labels import IGNORE_INDEX
from potstill.errors import UserError
from potstill.on_policy.rollouts import RolloutWriter, chosen_rows
from tiny import gpt2, llama
from toy_rollouts import logged, made, on_policy, still, written
from toy_training import Killed, assert_equal, captured, samples, sums_by_hand, weights

LEARNING = {"optim": "adamw_torch", "learning_rate": 1e-2, "max_grad_norm": 1.0, "lr_scheduler_type": "cosine"}


def test_a_share_of_zero_is_the_same_training(tmp_path):
    found = []
    for name, settings in {"none": None, "zero": on_policy(share=0), "later": on_policy(from_step=2)}.items():
        one = made(tmp_path / name, on_policy=settings)
        one.train()
        found.append(weights(one.model))
    assert_equal(found[1], found[0])
    assert_equal(found[2], found[0])


@pytest.mark.parametrize("batch", [{}, {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}])
def test_written_samples_teach_what_the_same_samples_in_a_corpus_teach(tmp_path, batch):
    divergences = (Loss("reverse_kl", weight=0.7, temperature=2.0), Loss("jsd", weight=0.3))
    both = {"losses": divergences, "max_steps": 1, **batch}
    # The temperature of the sampling is not that of the loss.
    one = made(tmp_path / "a", still(), on_policy=on_policy(share=1, sampling={"temperature": 0.7}), **both)
    one.train()
    rollouts = one.on_policy.rollouts
    assert len(rollouts) == 8
    as_corpus = [
        {"input_ids": r.prompt.student + r.ids, "labels": [IGNORE_INDEX] * len(r.prompt.student) + r.ids}
        for r in rollouts
    ]
    other = made(tmp_path / "b", still(), train_dataset=as_corpus, **both)
    other.train()
    for name, weight in weights(one.model).items():
        torch.testing.assert_close(weight, weights(other.model)[name], rtol=1e-5, atol=1e-6)
    assert logged(one, "loss")[0]["loss"] == pytest.approx(logged(other, "loss")[0]["loss"], rel=1e-5)
    assert logged(one, "on_policy/jsd")[0]["on_policy/jsd"] == pytest.approx(logged(other, "jsd")[0]["jsd"], rel=1e-5)


def test_the_sizes_of_micro_batches_change_nothing(tmp_path):
    found = []
    for size in (8, 2):
        batch = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 8 // size}
        one = made(tmp_path / str(size), still(), on_policy=on_policy(share=0.5), max_steps=2, **batch)
        one.train()
        found.append((weights(one.model), [rollout.ids for rollout in one.on_policy.rollouts]))
    assert sorted(found[0][1]) == sorted(found[1][1])
    assert_equal(found[0][0], found[1][0], tolerance=1e-5)


def test_terms_are_means_over_the_tokens_that_they_are_learned_from(tmp_path):
    one = made(tmp_path / "a", still(), on_policy=on_policy(share=0.5), max_steps=1)
    one.train()
    (entry,) = logged(one, "cross_entropy", "on_policy/reverse_kl", "on_policy/tokens", "loss", "reverse_kl")
    (replaced,) = chosen_rows([8], 4, one.on_policy.batches._number(0))
    corpus = [row for at, row in enumerate(samples(8)) if at not in replaced]
    sums, tokens = sums_by_hand(still(), None, corpus)
    assert entry["cross_entropy"] == pytest.approx(sums["cross_entropy"].item() / tokens, rel=1e-4)
    written_tokens = sum(len(rollout.ids) for rollout in one.on_policy.rollouts)
    assert entry["on_policy/tokens"] == written_tokens
    of_corpus = tokens * (entry["reverse_kl"] + 0.5 * entry["cross_entropy"])
    whole = (of_corpus + written_tokens * entry["on_policy/reverse_kl"]) / (tokens + written_tokens)
    assert entry["loss"] == pytest.approx(whole, rel=1e-4)


@pytest.mark.parametrize(
    "given",
    [{}, {"refresh_every": 4}, {"samples": 2, "share": 1}, {"from_step": 4, "unfinished": "drop"}],
    ids=["plain", "reused", "several", "later"],
)
def test_a_killed_training_continues_to_the_same_weights(tmp_path, given):
    saving = {"save_strategy": "steps", "save_steps": 3, "max_steps": 6, "train_sampling_strategy": "random"}
    both = {**LEARNING, **saving, "train_dataset": samples(10, seed=4), "per_device_train_batch_size": 4}
    settings = on_policy(**given)
    whole = made(tmp_path / "whole", on_policy=settings, **both)
    whole.train()
    with pytest.raises(RuntimeError, match="killed"):
        made(tmp_path / "cut", on_policy=settings, callbacks=[Killed()], **both).train()
    again = made(tmp_path / "cut", gpt2(seed=77, layers=2), on_policy=settings, **both)
    again.train(resume_from_checkpoint=str(tmp_path / "cut" / "checkpoint-3"))
    assert_equal(weights(again.model), weights(whole.model))
    assert written(tmp_path / "cut") == written(tmp_path / "whole")
    figures = ("step", "loss", "cross_entropy", "on_policy/reverse_kl", "on_policy/length", "on_policy/age")
    assert logged(again, *figures) == logged(whole, *figures)


def test_captured_targets_teach_the_corpus_and_the_teacher_what_is_written(tmp_path):
    rows = samples(8)
    store = captured(tmp_path / "store", llama(), rows)
    both = {
        "losses": (Loss("forward_kl", temperature=2.0), Loss("cross_entropy", weight=0.5)),
        "train_dataset": rows,
        "on_policy": on_policy(share=0.5),
    }
    live = made(tmp_path / "live", still(), **both)
    live.train()
    from_store = made(tmp_path / "captured", still(), **both, teacher=store, rollout_teacher=llama())
    from_store.train()
    for name, weight in weights(live.model).items():
        torch.testing.assert_close(weight, weights(from_store.model)[name], rtol=1e-3, atol=1e-5)
    with pytest.raises(
        UserError, match="no sample that the student writes; give the teacher itself as `rollout_teacher=`"
    ):
        made(tmp_path / "refused", **both, teacher=store)


def test_several_teachers_read_what_is_written(tmp_path):
    one = made(tmp_path / "a", teacher=[llama(), llama(seed=5)], on_policy=on_policy(share=1))
    one.train()
    assert all(entry["on_policy/reverse_kl"] > 0 for entry in logged(one, "on_policy/reverse_kl"))


def test_dropout_is_off_while_the_student_writes_and_on_afterwards(tmp_path, monkeypatch):
    modes = []
    write = RolloutWriter.write

    def watched(self, asked, step):
        before = [module.training for module in self._asked.model.modules()]
        found = write(self, asked, step)
        assert [module.training for module in self._asked.model.modules()] == before
        modes.append(any(before))
        return found

    monkeypatch.setattr(RolloutWriter, "write", watched)
    one = made(tmp_path / "a", on_policy=on_policy(share=1), max_steps=3)
    one.train()
    # Trainer sets the mode in its first step; from then on the student is in training.
    assert modes[1:] == [True, True]
    # The same prompts and weights give the same answers: no dropout took part.
    again = made(tmp_path / "b", on_policy=on_policy(share=1), max_steps=3)
    again.train()
    assert written(tmp_path / "a") == written(tmp_path / "b")


@pytest.mark.parametrize("unfinished", ["learn", "drop"])
def test_unfinished_answers_are_counted_either_way(tmp_path, unfinished):
    settings = on_policy(share=1, max_new_tokens=1, unfinished=unfinished)
    one = made(tmp_path / "a", on_policy=settings, max_steps=2)
    before = copy.deepcopy(weights(one.model))
    one.train()
    finished = [r.finished for r in one.on_policy.rollouts]
    assert not all(finished)
    for entry in logged(one, "on_policy/stopped", "on_policy/tokens"):
        learned = 8 if unfinished == "learn" else round(8 * entry["on_policy/stopped"])
        assert entry["on_policy/tokens"] == learned
    if unfinished == "drop" and not any(finished):
        assert_equal(weights(one.model), before)


def test_a_trainer_that_trains_again_begins_again(tmp_path):
    one = made(tmp_path, still(), on_policy=on_policy(share=1), max_steps=2, learning_rate=0.0)
    one.train()
    first = written(tmp_path)
    one.train()
    assert written(tmp_path) == first


def test_an_adapter_writes_and_learns(tmp_path):
    adapter = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights="gaussian")
    one = made(tmp_path, still(), peft_config=adapter, on_policy=on_policy(share=1), gradient_checkpointing=True)
    before = weights(one.model)
    one.train()
    changed = {name for name, weight in weights(one.model).items() if not torch.equal(weight, before[name])}
    assert changed
    assert all("lora" in name for name in changed)
