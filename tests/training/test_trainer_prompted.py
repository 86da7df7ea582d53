"""Prompted teachers at the trainer: each model reads its own prompt, and both predict the same answer's tokens."""

import copy

import pytest
import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from potstill import Loss
from potstill.data.prompts.collator import AlignedCollator
from potstill.data.prompts.placebo import placebo_samples
from potstill.errors import UserError
from potstill.recipe.strategies import SHIPPED, Prompt, Strategy
from tiny import llama, padded, tokenizer
from toy_training import KL_AND_CE, assert_equal, captured, prompted, shuffled, trained, trainer, weights


@pytest.fixture
def teacher():
    return llama(max_position_embeddings=512)


def test_the_gradient_is_the_formula_s_own(tmp_path, teacher):
    rows, student = prompted()[:8], llama(seed=1, layers=2)
    before = weights(student)
    after = trained(tmp_path, teacher=copy.deepcopy(teacher), train_dataset=rows, max_steps=1)
    total, tokens = torch.tensor(0.0), 0
    for row in rows:
        ours = student(torch.tensor([row["input_ids"]])).logits[0, row["answer_start"] - 1 : -1]
        with torch.no_grad():
            theirs = teacher(torch.tensor([row["teacher_input_ids"]])).logits[0, row["teacher_answer_start"] - 1 : -1]
        answer = torch.tensor(row["input_ids"][row["answer_start"] :])
        kl = kl_div(log_softmax(ours / 2, -1), log_softmax(theirs / 2, -1), log_target=True, reduction="sum")
        total = total + 0.7 * 4 * kl + 0.3 * cross_entropy(ours, answer, reduction="sum")
        tokens += len(answer)
    (total / tokens).backward()
    gradients = {name: parameter.grad for name, parameter in student.named_parameters()}
    for name, weight in before.items():
        torch.testing.assert_close(after[name], weight - 0.5 * gradients[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("longest", [90, 30], ids=["whole", "cut"])
def test_captured_targets_equal_the_live_teacher(tmp_path, teacher, side, longest):
    # Captured in one order, batched and padded one way; read in another, over two epochs.
    rows = prompted(longest=longest)
    assert any(row["answer_cut"] for row in rows) == (longest == 30)
    store = captured(tmp_path / "store", copy.deepcopy(teacher), shuffled(rows, 1), collate=AlignedCollator(1))
    how = {"train_dataset": shuffled(rows, 2), "max_steps": 6, "per_device_train_batch_size": 4}
    how["data_collator"] = AlignedCollator(1, side)
    online = trained(tmp_path, teacher=teacher, **how)
    assert_equal(trained(tmp_path, teacher=store, **how), online, tolerance=1e-5)


def test_one_strategy_s_targets_are_refused_under_another(tmp_path, teacher):
    store = captured(tmp_path / "store", teacher, prompted(), collate=AlignedCollator(1))
    with pytest.raises(UserError, match="not among the 12 captured"):
        trained(tmp_path, teacher=store, train_dataset=prompted(SHIPPED["base"]), data_collator=AlignedCollator(1))


@pytest.mark.parametrize("kind", [list, Dataset.from_list])
def test_without_a_collator_the_samples_say_that_they_are_prompted(tmp_path, teacher, kind):
    rows = prompted()
    expected = trained(tmp_path, teacher=copy.deepcopy(teacher), train_dataset=rows, data_collator=AlignedCollator(1))
    found = trained(tmp_path, teacher=teacher, train_dataset=kind(rows), processing_class=tokenizer())
    assert_equal(found, expected)


def test_a_teacher_that_is_asked_the_same_is_any_teacher(tmp_path, teacher):
    same = Strategy(teacher=Prompt(user="{{ question }}"))
    rows = prompted(same)
    plain = [{name: row[name] for name in ("input_ids", "labels")} for row in rows]
    expected = trained(tmp_path, teacher=copy.deepcopy(teacher), train_dataset=plain, processing_class=tokenizer())
    assert_equal(trained(tmp_path, teacher=teacher, train_dataset=rows, processing_class=tokenizer()), expected)


def test_the_teachers_prompt_changes_the_student(tmp_path, teacher):
    rows = prompted()
    found = {
        name: trained(
            tmp_path,
            teacher=copy.deepcopy(teacher),
            train_dataset=each,
            data_collator=AlignedCollator(1, same_answer=own),
        )
        for name, each, own in (
            ("truth", rows, True),
            ("base", prompted(SHIPPED["base"]), True),
            ("another question", placebo_samples(rows, 512), False),
        )
    }
    one, *others = found.values()
    for other in others:
        assert any((one[name] - other[name]).abs().max() > 1e-3 for name in one)


def test_cross_entropy_does_not_know_what_the_teacher_was_asked(tmp_path):
    rows, losses = prompted(), [Loss("cross_entropy")]
    expected = trained(tmp_path, train_dataset=rows, losses=losses, processing_class=tokenizer())
    exchanged = placebo_samples(rows, 512)
    collate = AlignedCollator(1, same_answer=False)
    assert_equal(trained(tmp_path, train_dataset=exchanged, losses=losses, data_collator=collate), expected)


def test_a_teacher_of_a_padded_head_reads_shared_tokens_only(tmp_path, teacher):
    rows = prompted()
    how = {"processing_class": tokenizer(), "teacher_tokenizer": tokenizer(), "losses": KL_AND_CE}
    wide = padded(copy.deepcopy(teacher), 320)
    expected = trained(tmp_path, teacher=teacher, train_dataset=rows, **how)
    assert_equal(trained(tmp_path, teacher=wide, train_dataset=rows, **how), expected, tolerance=1e-5)
    foreign = [{**row, "teacher_input_ids": [310, *row["teacher_input_ids"][1:]]} for row in rows]
    with pytest.raises(UserError, match="a sample has the token 310, but student and teacher share only the 300"):
        trainer(tmp_path, teacher=wide, train_dataset=foreign, **how).train()
