"""The correctness contract of the trainer: the weights after training do not depend on the size of micro-batches."""

import copy

import pytest
import torch
from transformers import TrainerCallback

from potstill import Loss
from potstill.data.labels import IGNORE_INDEX
from potstill.errors import UserError
from potstill.losses import cpu_buffers, row_blocks
from potstill.losses.logit_chunks import CastWeights, chunks
from tiny import VOCABULARY, gpt2, llama, tokenizer
from toy_training import (
    KL_AND_CE,
    assert_equal,
    captured,
    naive_step,
    samples,
    shuffled,
    sums_by_hand,
    trained,
    trainer,
    weights,
)


def test_a_step_is_the_formula_s_own(tmp_path):
    # Padding, prompts, T² and the one division by all supervised tokens: each would show in these weights.
    rows, teacher = samples(), llama()
    expected = naive_step(llama(seed=1, layers=2), copy.deepcopy(teacher), rows)
    assert_equal(trained(tmp_path, teacher=teacher, train_dataset=rows, max_steps=1), expected, tolerance=2e-6)


@pytest.mark.parametrize(("batch", "accumulation"), [(2, 4), (1, 8), (4, 2), (3, 3)])
def test_accumulation_is_one_large_batch(tmp_path, batch, accumulation):
    # Samples have between 1 and 20 supervised tokens, so means of means would be far off; 9 rows make 3 × 3 ragged.
    rows, size = samples(18, seed=3), batch * accumulation
    whole = trained(tmp_path, teacher=llama(), train_dataset=rows, per_device_train_batch_size=size)
    cut = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
    assert_equal(trained(tmp_path, teacher=llama(), train_dataset=rows, **cut), whole, tolerance=2e-6)


def test_the_last_step_of_an_epoch_may_have_fewer_micro_batches(tmp_path):
    rows = samples(11, seed=4)
    whole = trained(tmp_path, teacher=llama(), train_dataset=rows)
    cut = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    assert_equal(trained(tmp_path, teacher=llama(), train_dataset=rows, **cut), whole, tolerance=2e-6)


def test_a_micro_batch_without_supervised_tokens_changes_nothing(tmp_path):
    rows = samples(6)
    silent = [{"input_ids": row["input_ids"], "labels": [IGNORE_INDEX] * len(row["input_ids"])} for row in rows[:2]]
    expected = trained(tmp_path, teacher=llama(), train_dataset=rows, max_steps=1, per_device_train_batch_size=6)
    cut = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "max_steps": 1}
    found = trained(tmp_path, teacher=llama(), train_dataset=[*rows[:2], *silent, *rows[2:]], **cut)
    assert_equal(found, expected, tolerance=2e-6)


def test_the_order_of_samples_within_a_step_changes_nothing(tmp_path):
    rows = samples(8)
    expected = trained(tmp_path, teacher=llama(), train_dataset=rows, max_steps=1)
    for seed in range(3):
        cut = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "max_steps": 1}
        found = trained(tmp_path, teacher=llama(), train_dataset=shuffled(rows, seed), **cut)
        assert_equal(found, expected, tolerance=2e-6)


def test_padding_changes_nothing(tmp_path):
    rows = samples(8)

    def widely(batch):
        pads = {"input_ids": 7, "attention_mask": 0, "labels": IGNORE_INDEX}
        ours = trainer(tmp_path, teacher=llama()).data_collator(batch)
        return {name: torch.nn.functional.pad(ids, (0, 9), value=pads[name]) for name, ids in ours.items()}

    expected = trained(tmp_path, teacher=llama(), train_dataset=rows)
    assert_equal(trained(tmp_path, teacher=llama(), train_dataset=rows, data_collator=widely), expected, tolerance=2e-6)


def test_samples_may_be_padded_already(tmp_path):
    rows = [{"input_ids": row["input_ids"]} for row in samples(8)]
    padded = [
        {"input_ids": ids + [7] * (30 - len(ids)), "attention_mask": [1] * len(ids) + [0] * (30 - len(ids))}
        for ids in (row["input_ids"] for row in rows)
    ]
    expected = trained(tmp_path, teacher=llama(), train_dataset=rows)
    assert_equal(trained(tmp_path, teacher=llama(), train_dataset=padded), expected, tolerance=2e-6)


def test_prompt_tokens_never_enter_the_loss(tmp_path):
    # Whatever the teacher says about them: here it is made to say something else at every prompt position.
    rows = [{"input_ids": list(range(5, 15)), "labels": [IGNORE_INDEX] * 6 + list(range(11, 15))} for _ in range(4)]
    teacher = llama()
    expected = trained(tmp_path, teacher=copy.deepcopy(teacher), train_dataset=rows, per_device_train_batch_size=4)
    norm = teacher.model.norm
    plain = norm.forward

    def confused(hidden):
        # Positions 5 to 8 predict the labels at 6 to 9, and are left alone.
        out = plain(hidden).clone()
        out[:, :5] += 3.0
        out[:, 9:] -= 3.0
        return out

    norm.forward = confused
    found = trained(tmp_path, teacher=teacher, train_dataset=rows, per_device_train_batch_size=4)
    assert_equal(found, expected)


@pytest.mark.parametrize("temperature", [0.5, 4.0])
def test_temperature_squared_is_in_the_gradient(tmp_path, temperature):
    rows, student, teacher = samples(), llama(seed=1, layers=2), llama()
    sums, tokens = sums_by_hand(student, teacher, rows, temperature)
    (sums["forward_kl"] / tokens).backward()
    before = weights(student)
    after = trained(
        tmp_path, teacher=teacher, train_dataset=rows, losses=[Loss("forward_kl")], temperature=temperature, max_steps=1
    )
    for name, weight in student.named_parameters():
        torch.testing.assert_close((before[name] - after[name]) / 0.5, weight.grad, rtol=1e-4, atol=3e-6)


@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl", "jsd", "skew_kl", "skew_reverse_kl", "adaptive_kl"])
def test_a_student_that_is_its_teacher_learns_nothing(tmp_path, kind):
    student = llama()
    one = trainer(tmp_path, student, teacher=copy.deepcopy(student), losses=[Loss(kind, temperature=2.0)])
    before = weights(student)
    one.train()
    assert one.state.log_history[0]["loss"] == pytest.approx(0, abs=1e-6)
    assert_equal(weights(one.model), before, tolerance=1e-6)


def test_a_teacher_is_left_as_it_was(tmp_path):
    teacher = llama().train()
    before = weights(teacher)
    one = trainer(tmp_path, teacher=teacher, save_strategy="steps", save_steps=1)
    one.train()
    assert_equal(weights(teacher), before)
    assert all(weight.grad is None and not weight.requires_grad for weight in teacher.parameters())
    assert not teacher.training, "a teacher with dropout would teach noise"
    saved = sum(file.stat().st_size for file in (tmp_path / "checkpoint-2").glob("*.safetensors"))
    assert saved < 4 * one.model.num_parameters() + 20_000, "the checkpoint holds the student alone"


def test_a_teacher_s_dropout_is_off(tmp_path):
    rows, teacher = samples(), gpt2().train()
    assert teacher.config.resid_pdrop > 0
    expected = naive_step(llama(seed=1, layers=2), copy.deepcopy(teacher).eval(), rows)
    assert_equal(trained(tmp_path, teacher=teacher, train_dataset=rows, max_steps=1), expected, tolerance=2e-6)


def test_a_student_cannot_be_its_own_live_teacher(tmp_path):
    student = llama()
    with pytest.raises(UserError, match="the student itself"):
        trainer(tmp_path, student, teacher=student)
    assert all(weight.requires_grad for weight in student.parameters())


def test_the_temperature_argument_is_every_divergence_s(tmp_path):
    plain = [Loss("forward_kl", weight=0.7), Loss("cross_entropy", weight=0.3)]
    expected = trained(tmp_path, teacher=llama(), losses=KL_AND_CE)
    assert_equal(trained(tmp_path, teacher=llama(), losses=plain, temperature=2.0), expected)


def test_no_teacher_is_needed_for_cross_entropy(tmp_path):
    rows, student = samples(), llama(seed=1, layers=2)
    sums, tokens = sums_by_hand(student, None, rows)
    (sums["cross_entropy"] / tokens).backward()
    before = weights(student)
    after = trained(tmp_path, losses=[Loss("cross_entropy")], train_dataset=rows, max_steps=1)
    for name, weight in student.named_parameters():
        torch.testing.assert_close((before[name] - after[name]) / 0.5, weight.grad, rtol=1e-4, atol=3e-6)


@pytest.mark.parametrize("steps_between_logs", [1, 2])
def test_each_loss_is_logged_apart_before_its_weight(tmp_path, steps_between_logs):
    rows, teacher = samples(16, seed=5), llama()
    cut = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "learning_rate": 0.0}
    one = trainer(tmp_path, teacher=teacher, train_dataset=rows, logging_steps=steps_between_logs, **cut)
    one.train()
    by_step = []
    for step_rows in (rows[:8], rows[8:]):
        sums, tokens = sums_by_hand(llama(seed=1, layers=2), teacher, step_rows, temperature=2.0)
        by_step.append({name: value.item() / tokens for name, value in sums.items()})
    logged = [entry for entry in one.state.log_history if "loss" in entry]
    assert len(logged) == 2 // steps_between_logs
    for number, entry in enumerate(logged):
        mine = by_step[number * steps_between_logs : (number + 1) * steps_between_logs]
        means = {name: sum(step[name] for step in mine) / len(mine) for name in mine[0]}
        assert entry["cross_entropy"] == pytest.approx(means["cross_entropy"], rel=1e-5)
        assert entry["forward_kl"] == pytest.approx(means["forward_kl"], rel=1e-5)
        assert entry["loss"] == pytest.approx(0.7 * means["forward_kl"] + 0.3 * means["cross_entropy"], rel=1e-5)


def test_a_loss_that_is_no_number_stops_before_a_weight_is_changed(tmp_path):
    student = llama(seed=1, layers=2)
    one = trainer(tmp_path, student, teacher=llama(), max_steps=4, save_strategy="steps", save_steps=1)
    step = one.training_step

    def poisoned(*args, **kwargs):
        if one.state.global_step == 2:
            with torch.no_grad():
                student.model.norm.weight[3] = torch.nan
        return step(*args, **kwargs)

    one.training_step = poisoned
    with pytest.raises(UserError, match="at step 3"):
        one.train()
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-1", "checkpoint-2"]


class _Ruin(TrainerCallback):
    """An infinite gradient: the loss of the step is finite, and the weights after it are not."""

    def on_optimizer_step(self, args, state, control, model, **kwargs):
        if state.global_step == 1:
            with torch.no_grad():
                next(model.parameters())[0, 0] = torch.inf


def test_weights_that_are_no_numbers_are_never_saved(tmp_path):
    one = trainer(tmp_path, teacher=llama(), save_strategy="steps", save_steps=1, callbacks=[_Ruin()])
    with pytest.raises(UserError, match="after step 2"):
        one.train()
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-1"]


def test_weights_that_are_no_numbers_are_not_saved_at_the_end_either(tmp_path):
    one = trainer(tmp_path, teacher=llama(), callbacks=[_Ruin()])
    one.train()
    with pytest.raises(UserError, match="after step 2"):
        one.save_model(str(tmp_path / "student"))
    assert not (tmp_path / "student").exists()


def test_evaluation_is_cross_entropy_alone_and_asks_no_teacher(tmp_path, monkeypatch):
    rows = samples(8, seed=6)
    sums, tokens = sums_by_hand(llama(seed=1, layers=2), None, rows)
    one = trainer(tmp_path, teacher=llama(), eval_dataset=rows, per_device_eval_batch_size=8)
    monkeypatch.setattr(one.teachers[0], "read", None)
    assert one.evaluate()["eval_loss"] == pytest.approx(sums["cross_entropy"].item() / tokens, rel=1e-5)


def test_samples_without_captured_targets_can_be_evaluated(tmp_path):
    seen, unseen = samples(8), samples(5, seed=9)
    store = captured(tmp_path / "store", llama(), seen)
    one = trainer(tmp_path, teacher=store, train_dataset=seen, eval_dataset=unseen, processing_class=tokenizer())
    assert one.evaluate()["eval_loss"] > 0
    one.train()


def test_evaluation_during_training_changes_nothing(tmp_path):
    plain = trainer(tmp_path, teacher=llama(), max_steps=4, train_dataset=samples(32))
    plain.train()
    also = trainer(
        tmp_path,
        teacher=llama(),
        max_steps=4,
        train_dataset=samples(32),
        eval_dataset=samples(5, seed=9),
        eval_strategy="steps",
        eval_steps=1,
    )
    also.train()
    assert_equal(weights(also.model), weights(plain.model))
    ours, theirs = (
        [entry["forward_kl"] for entry in one.state.log_history if "loss" in entry] for one in (plain, also)
    )
    assert ours == theirs
    assert sum("eval_loss" in entry for entry in also.state.log_history) == 4


def test_without_a_collator_samples_are_padded_with_the_tokenizer_s_pad(tmp_path):
    one = trainer(tmp_path, teacher=llama(), processing_class=tokenizer())
    batch = one.data_collator([{"input_ids": [5, 6, 7]}, {"input_ids": [8]}])
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 1, 1]]
    assert batch["labels"].tolist() == [[5, 6, 7], [8, IGNORE_INDEX, IGNORE_INDEX]]


def test_losses_that_need_a_teacher_are_refused_without_one(tmp_path):
    with pytest.raises(UserError, match="forward_kl needs a teacher"):
        trainer(tmp_path)
    with pytest.raises(UserError, match="`losses` is empty"):
        trainer(tmp_path, losses=[])


def test_a_teacher_of_another_vocabulary_is_refused(tmp_path):
    with pytest.raises(UserError, match=f"256.*{VOCABULARY}"):
        trained(tmp_path, teacher=llama(vocab_size=256))


@pytest.mark.parametrize(
    "given",
    [{"label_smoothing_factor": 0.1}, {"compute_loss_func": lambda *args, **kwargs: None}],
    ids=["smoothing", "func"],
)
def test_another_loss_beside_ours_is_refused(tmp_path, given):
    with pytest.raises(UserError, match="losses"):
        trainer(tmp_path, teacher=llama(), **given)


@pytest.mark.parametrize("shares", [[1.0], [1.0, 0.0], [2.0, -1.0]])
def test_every_teacher_has_a_share_above_zero(tmp_path, shares):
    with pytest.raises(UserError, match="teacher_weights"):
        trainer(tmp_path, teacher=[llama(), llama(seed=2)], teacher_weights=shares)


def test_no_memory_is_kept_when_training_ends(tmp_path):
    trained(tmp_path, teacher=llama())
    assert not cpu_buffers._kept


def test_a_smaller_memory_budget_changes_only_the_rounding(tmp_path, monkeypatch):
    expected = trained(tmp_path, teacher=llama())
    sizes = []

    def spied(tokens, memory_budget, *more):
        sizes.append(memory_budget)
        return chunks(tokens, memory_budget, *more)

    monkeypatch.setattr(row_blocks, "chunks", spied)
    assert_equal(trained(tmp_path, teacher=llama(), memory_budget=20_000), expected, tolerance=1e-6)
    assert set(sizes) == {20_000}
    with pytest.raises(UserError, match="`memory_budget` must be a number of bytes above 0, not 0"):
        trainer(tmp_path, teacher=llama(), memory_budget=0)


def test_a_cast_head_is_kept_within_a_step_alone_and_changes_no_bit(tmp_path, monkeypatch):
    given = {"teacher": llama(), "bf16": True, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    kept = trainer(tmp_path, **given)
    kept.train()
    assert kept._casts is not None
    assert not kept._casts._kept
    monkeypatch.setattr(CastWeights, "of", lambda self, weight, dtype: weight.to(dtype))
    assert_equal(weights(kept.model), trained(tmp_path, **given))


def test_a_head_is_cast_once_for_all_micro_batches_of_a_step(tmp_path, monkeypatch):
    asked = []
    plain = CastWeights.of

    def spied(self, weight, dtype):
        # Kept here, so that no later tensor gets the same identity.
        asked.append(plain(self, weight, dtype))
        return asked[-1]

    monkeypatch.setattr(CastWeights, "of", spied)
    cut = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "max_steps": 2}
    trained(tmp_path, teacher=llama(), bf16=True, **cut)
    assert {one.dtype for one in asked} == {torch.bfloat16}
    assert len(asked) == 2 * 4 * 2, "student and teacher, in each micro-batch of each step"
    assert len({id(one) for one in asked}) == 2 * 2, "student and teacher, in each step"


@pytest.mark.parametrize("pinned", [True, False])
def test_pinned_batches_are_copied_while_the_host_goes_on(tmp_path, pinned):
    # transformers pins nothing where a CPU is asked for.
    one = trainer(tmp_path, teacher=llama(), use_cpu=False, dataloader_pin_memory=pinned)
    assert one.accelerator.dataloader_config.non_blocking is pinned
    assert one.get_train_dataloader().pin_memory is pinned


def test_workers_of_the_loader_change_no_bit(tmp_path):
    given = {"teacher": llama(), "train_dataset": samples(24), "max_steps": 3}
    assert_equal(trained(tmp_path, dataloader_num_workers=2, **given), trained(tmp_path, **given))
