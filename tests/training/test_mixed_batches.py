"""Which samples of a step are written, from which prompts, and how old they are."""

from collections import Counter

import pytest
from datasets import Dataset

from potstill import Loss
from potstill.data.collators import Collator
from potstill.data.labels import IGNORE_INDEX
from potstill.errors import UserError
from potstill.training.mixed_batches import MixedBatches
from tiny import gpt2, llama, tokenizer
from toy_prompts import prompted
from toy_rollouts import logged, made, on_policy, still, written
from toy_training import assert_equal, samples, weights


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


def test_the_last_written_token_is_learned_and_nothing_after_it(tmp_path):
    batches: MixedBatches = made(tmp_path, on_policy=on_policy(share=1)).on_policy.batches
    (prompt,) = batches.first_prompts(Collator(1)(samples(1)), samples(1))
    rollouts = list(batches.write({("a", 0): prompt}, 0).values())
    batch = batches.batch_of(rollouts)
    (one,) = rollouts
    assert batch["labels"][0, -len(one.ids) :].tolist() == one.ids == batch["input_ids"][0, -len(one.ids) :].tolist()
    assert (batch["labels"][0, : -len(one.ids)] == IGNORE_INDEX).all()


def test_prompts_that_leave_no_room_are_refused(tmp_path):
    long = [{"input_ids": [5] * 120, "labels": [IGNORE_INDEX] * 118 + [5, 5]}] * 8
    with pytest.raises(UserError, match=r"`on_policy.max_new_tokens` is 20, and with prompts of 118 tokens"):
        made(tmp_path, on_policy=on_policy(max_new_tokens=20), train_dataset=long).train()


def test_streamed_samples_have_prompts_too(tmp_path):
    rows = Dataset.from_list(samples(16))
    found = []
    for name, dataset in {"table": rows, "stream": rows.to_iterable_dataset()}.items():
        one = made(tmp_path / name, still(), train_dataset=dataset, on_policy=on_policy(preflight="warn"))
        one.train()
        assert (tmp_path / name / "preflight.json").exists()
        found.append(weights(one.model))
    assert_equal(found[0], found[1])


def test_each_prompt_of_several_answers_is_answered_so_many_times(tmp_path):
    rows = [{"input_ids": [5 + at, 6, 7, 8], "labels": [IGNORE_INDEX, IGNORE_INDEX, 7, 8]} for at in range(8)]
    one = made(tmp_path, still(), train_dataset=rows, on_policy=on_policy(share=1, samples=3), max_steps=1)
    one.train()
    counts = Counter(rollout.prompt.student[0] for rollout in one.on_policy.rollouts)
    assert sorted(counts.values()) == [2, 3, 3]
