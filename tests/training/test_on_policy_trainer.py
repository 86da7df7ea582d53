"""Samples that the student writes: learned as samples of the corpus are, counted, and the same after a resume."""

import copy
import gzip
import json
from dataclasses import replace

import pytest
import torch
from transformers import TrainerCallback

from potstill import Loss, OnPolicy
from potstill.data.collators import Collator
from potstill.data.labels import IGNORE_INDEX
from potstill.errors import UserError
from potstill.on_policy.guard import Guard
from potstill.on_policy.prompts import SamplePrompt
from potstill.on_policy.rollouts import RolloutWriter, chosen_rows
from potstill.training.mixed_batches import MixedBatches
from tiny import gpt2, llama, tokenizer
from toy_prompts import prompted
from toy_training import assert_equal, captured, samples, sums_by_hand, trainer, weights

KL = (Loss("reverse_kl"), Loss("cross_entropy", weight=0.5))
LEARNING = {"optim": "adamw_torch", "learning_rate": 1e-2, "max_grad_norm": 1.0, "lr_scheduler_type": "cosine"}


def on_policy(**given):
    return OnPolicy(**{"max_new_tokens": 6, "preflight": "off", **given})


def made(folder, student=None, **given):
    both = {"teacher": llama(), "losses": KL, "train_dataset": samples(8), "processing_class": tokenizer()}
    return trainer(folder, student or gpt2(seed=1, layers=2), **{**both, **given})


def still():
    """A student without dropout."""
    return llama(seed=1, layers=2)


def logged(one, *names):
    return [{name: entry.get(name) for name in names} for entry in one.state.log_history if "loss" in entry]


def written(folder):
    return [json.loads(line) for line in gzip.decompress((folder / "rollouts.jsonl.gz").read_bytes()).splitlines()]


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


class _Killed(TrainerCallback):
    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        if state.global_step == 4:
            raise RuntimeError("killed")


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
        made(tmp_path / "cut", on_policy=settings, callbacks=[_Killed()], **both).train()
    again = made(tmp_path / "cut", gpt2(seed=77, layers=2), on_policy=settings, **both)
    again.train(resume_from_checkpoint=str(tmp_path / "cut" / "checkpoint-3"))
    assert_equal(weights(again.model), weights(whole.model))
    assert written(tmp_path / "cut") == written(tmp_path / "whole")
    figures = ("step", "loss", "cross_entropy", "on_policy/reverse_kl", "on_policy/length", "on_policy/age")
    assert logged(again, *figures) == logged(whole, *figures)


def test_reused_samples_are_older(tmp_path):
    one = made(tmp_path / "a", on_policy=on_policy(share=0.5, refresh_every=3), max_steps=7)
    one.train()
    assert [entry["on_policy/age"] for entry in logged(one, "on_policy/age")] == [0, 1, 2, 0, 1, 2, 0]
    rows = written(tmp_path / "a")
    assert {(row["step"], row["written_at"]) for row in rows} == {
        (1, 1),
        (2, 1),
        (3, 1),
        (4, 4),
        (5, 4),
        (6, 4),
        (7, 7),
    }


def test_teachers_read_their_own_prompts(tmp_path):
    asked = prompted(tokenizer(), count=6)
    both = {
        "train_dataset": asked,
        "teacher": llama(max_position_embeddings=640),
        "max_steps": 1,
        "losses": (Loss("forward_kl"),),
    }
    student = gpt2(seed=1, layers=2, n_positions=640)
    one = made(tmp_path / "a", student, on_policy=on_policy(share=1), **both)
    one.train()
    rows = one.on_policy.rollouts
    assert sorted(r.prompt.teacher for r in rows) == sorted(
        each["teacher_input_ids"][: each["teacher_answer_start"]] for each in asked
    )
    by_prompt = {tuple(each["input_ids"][: each["answer_start"]]): each for each in asked}
    for r in rows:
        row = by_prompt[tuple(r.prompt.student)]
        assert r.prompt.teacher == row["teacher_input_ids"][: row["teacher_answer_start"]]


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
        before = [module.training for module in self._model.modules()]
        found = write(self, asked, step)
        assert [module.training for module in self._model.modules()] == before
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


def test_the_last_written_token_is_learned_and_nothing_after_it(tmp_path):
    batches: MixedBatches = made(tmp_path, on_policy=on_policy(share=1)).on_policy.batches
    (prompt,) = batches.first_prompts(Collator(1)(samples(1)))
    rollouts = list(batches.write({("a", 0): prompt}, 0).values())
    batch = batches.batch_of(rollouts)
    (one,) = rollouts
    assert batch["labels"][0, -len(one.ids) :].tolist() == one.ids == batch["input_ids"][0, -len(one.ids) :].tolist()
    assert (batch["labels"][0, : -len(one.ids)] == IGNORE_INDEX).all()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"on_policy": on_policy(max_new_tokens=128)},
            "`on_policy.max_new_tokens` is 128, and the student has only 128",
        ),
        (
            {"on_policy": on_policy(), "losses": (Loss("cross_entropy"),), "teacher": None},
            "written samples have no loss",
        ),
        ({"on_policy": on_policy(), "processing_class": None}, "needs the tokenizer"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, given, message):
    with pytest.raises(UserError, match=message):
        made(tmp_path, **given)


def test_prompts_that_leave_no_room_are_refused(tmp_path):
    long = [{"input_ids": [5] * 120, "labels": [IGNORE_INDEX] * 118 + [5, 5]}] * 8
    with pytest.raises(UserError, match=r"`on_policy.max_new_tokens` is 20, and with prompts of 118 tokens"):
        made(tmp_path, on_policy=on_policy(max_new_tokens=20), train_dataset=long).train()


def test_the_policy_gradient_is_an_estimate_of_reverse_kl(tmp_path):
    """On many answers, both gradients point the same way. (What it is exactly, the tests of the loss prove.)"""
    many = {"samples": 64, "max_new_tokens": 2}
    rows = [{"input_ids": [5, 6, 7], "labels": [IGNORE_INDEX, IGNORE_INDEX, 7]}] * 512
    found = []
    for name in ("reverse_kl", "policy_gradient"):
        one = made(
            tmp_path / name,
            still(),
            train_dataset=rows,
            per_device_train_batch_size=512,
            on_policy=on_policy(share=1, losses=[{"kind": name}], **many),
            max_steps=1,
        )
        before = weights(one.model)
        one.train()
        after = weights(one.model)
        found.append(torch.cat([(after[key] - before[key]).flatten() for key in before]))
    assert torch.cosine_similarity(*found, dim=0) > 0.5


def test_reused_samples_remember_how_likely_they_were(tmp_path):
    settings = on_policy(share=1, refresh_every=2, losses=[{"kind": "policy_gradient"}])
    one = made(tmp_path / "a", still(), on_policy=settings, max_steps=4)
    one.train()
    ratio = logged(one, "on_policy/clipped", "on_policy/reverse_kl_estimate")
    # New samples are those of the student as it is, so none is clipped.
    assert ratio[0]["on_policy/clipped"] == ratio[2]["on_policy/clipped"] == 0
    assert all(
        kept.log_probs is not None and len(kept.log_probs) == len(kept.ids) for kept in one.on_policy.batches.kept
    )


def test_written_samples_may_have_losses_of_their_own(tmp_path):
    settings = on_policy(share=0.5, losses=[{"kind": "jsd", "beta": 0.9}, {"kind": "policy_gradient", "weight": 0.1}])
    one = made(tmp_path, losses=(Loss("cross_entropy"),), on_policy=settings)
    one.train()
    names = {name for entry in one.state.log_history for name in entry}
    assert {"cross_entropy", "on_policy/jsd", "on_policy/policy_gradient"} <= names
    assert "on_policy/cross_entropy" not in names


def test_a_teacher_that_is_strange_is_refused_before_anything_is_learned(tmp_path, capsys):
    one = made(tmp_path / "a", train_dataset=samples(40), on_policy=on_policy(preflight="refuse"))
    before = weights(one.model)
    with pytest.raises(UserError, match=r"`on_policy.from_step`.*`--force distil`"):
        one.train()
    assert_equal(weights(one.model), before)
    found = json.loads((tmp_path / "a" / "preflight.json").read_text())
    assert found["verdict"] != "go"
    assert found["sentence"] in capsys.readouterr().out
    going_on = made(tmp_path / "b", train_dataset=samples(40), on_policy=on_policy(preflight="warn"))
    going_on.train()
    unmeasured = made(tmp_path / "c", train_dataset=samples(40), on_policy=on_policy(preflight="off"))
    unmeasured.train()
    # Measuring changes nothing.
    assert_equal(weights(going_on.model), weights(unmeasured.model))


def test_a_student_that_its_teacher_is_ahead_of_may_learn(tmp_path):
    teacher = llama()
    student = copy.deepcopy(teacher)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in student.parameters():
            weight += 0.01 * torch.randn_like(weight)
    asked = {(str(at), 0): SamplePrompt([5 + at, 6, 7]) for at in range(80)}
    answers = RolloutWriter(teacher, tokenizer(), on_policy(max_new_tokens=24), 0, None).write(asked, 0)
    rows = [one.sample() for one in answers.values()]
    settings = on_policy(preflight="warn", max_new_tokens=24, losses=[{"kind": "reverse_kl"}])
    one = made(tmp_path, student, teacher=teacher, train_dataset=rows, on_policy=settings, max_steps=1)
    one.train()
    found = json.loads((tmp_path / "preflight.json").read_text())
    assert found["kl"]["high"] < 0.19
    assert found["advantage"]["low"] > 0
    assert found["prompts"] == 64
    assert found["overlap"]["value"] > 0.5


class _Remember(TrainerCallback):
    def __init__(self, one):
        self.one, self.weights = one, {}

    def on_step_end(self, args, state, control, **kwargs):
        self.weights[state.global_step] = weights(self.one.model)


def test_a_training_whose_answers_collapse_ends_with_the_weights_from_before(tmp_path, monkeypatch):
    write = RolloutWriter.write

    def shrinking(self, asked, step):
        found = write(self, asked, step)
        return {key: replace(one, ids=one.ids[: 1 if step >= 12 else None]) for key, one in found.items()}

    monkeypatch.setattr(RolloutWriter, "write", shrinking)
    answer = [7, 8, 9, 10, 11, 0]
    rows = [{"input_ids": [5, 6 + at, *answer], "labels": [IGNORE_INDEX] * 2 + answer} for at in range(16)]
    settings = on_policy(share=1, max_new_tokens=12)
    saving = {"save_total_limit": 1, "save_strategy": "steps", "save_steps": 5}
    one = made(tmp_path, still(), train_dataset=rows, on_policy=settings, max_steps=60, learning_rate=1e-4, **saving)
    one.on_policy.guard = Guard(patience=8)
    remember = _Remember(one)
    one.add_callback(remember)
    one.train()
    assert one.state.global_step < 50
    assert "length of the written answers" in one.rollout_watch.ended
    assert one.state.best_global_step == one.state.global_step - 7
    assert_equal(weights(one.model), remember.weights[one.state.best_global_step])
