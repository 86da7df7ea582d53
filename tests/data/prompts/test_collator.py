"""A batch of aligned samples: each model reads its own prompt, and both supervise the same tokens."""

import copy

import pytest
import torch

from potstill.data.collators import Collator
from potstill.data.labels import IGNORE_INDEX
from potstill.data.prompts.collator import AlignedCollator, teacher_batch
from potstill.errors import UserError
from potstill.losses.chunked import distillation_loss
from potstill.losses.loss import Loss
from potstill.models.forward import forward
from potstill.models.head_extraction import head_of
from potstill.teachers.live import LiveTeacher
from tiny import gpt2, llama, tokenizer
from toy_prompts import SIDES, TOKENIZERS, chatty, prompted


@SIDES
def test_a_batch_is_padded_on_its_side_and_each_model_s_part_to_its_own_longest(side):
    samples = [
        {"input_ids": [5, 7, 8], "labels": [IGNORE_INDEX, 7, 8], "teacher_input_ids": [3, 4, 7, 8]},
        {"input_ids": [6, 9], "labels": [IGNORE_INDEX, 9], "teacher_input_ids": [2, 9]},
    ]
    for one, starts in zip(samples, (2, 1), strict=True):
        one |= {"answer_start": 1, "teacher_answer_start": starts, "answer_cut": 0}
    batch = AlignedCollator(pad_token_id=1, side=side)(samples)
    left = side == "left"
    assert batch["input_ids"].tolist() == [[5, 7, 8], [1, 6, 9] if left else [6, 9, 1]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [0, 1, 1] if left else [1, 1, 0]]
    assert batch["teacher_input_ids"].tolist() == [[3, 4, 7, 8], [1, 1, 2, 9] if left else [2, 9, 1, 1]]
    assert batch["teacher_labels"].tolist()[0] == [IGNORE_INDEX, IGNORE_INDEX, 7, 8]
    assert ("position_ids" in batch) == left
    if left:
        assert batch["teacher_position_ids"].tolist() == [[0, 1, 2, 3], [0, 0, 0, 1]]


def test_a_batch_without_a_teachers_part_is_the_teachers_too():
    batch = Collator(1)([{"input_ids": [1, 2, 3]}])
    assert teacher_batch(batch) == batch


def test_a_control_reads_the_same_samples_without_the_teachers_part():
    samples = prompted(chatty())
    both, alone = AlignedCollator(1)(samples), Collator(1)(samples)
    assert all(torch.equal(alone[name], both[name]) for name in alone)


@SIDES
@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda one: one["teacher_input_ids"].__setitem__(-2, 299), "as supervised token"),
        (lambda one: one.update(teacher_answer_start=one["teacher_answer_start"] + 1), "as supervised token 0 for"),
        (lambda one: one["teacher_input_ids"].append(7), "supervised tokens for the student and"),
        (lambda one: one.update(labels=[IGNORE_INDEX] * len(one["labels"])), "has 0 supervised tokens for the student"),
        (
            lambda one: (
                one.update(teacher_input_ids=one["teacher_input_ids"][one["teacher_answer_start"] :])
                or one.update(teacher_answer_start=0)
            ),
            "supervised token",
        ),
    ],
    ids=["another token", "another place", "longer", "nothing", "no prompt"],
)
def test_answers_that_are_not_aligned_are_refused(side, spoil, sentence):
    samples = copy.deepcopy(prompted(tokenizer()))
    spoil(samples[3])
    with pytest.raises(UserError) as told:
        AlignedCollator(1, side)(samples)
    assert str(told.value).startswith("sample 3 of a batch has ")
    assert sentence in str(told.value)


MODELS = pytest.mark.parametrize("model", [llama(0), gpt2(0, n_positions=512)], ids=["llama", "gpt2"])


@MODELS
@SIDES
@TOKENIZERS
def test_the_teacher_says_what_it_says_of_each_answer_alone(model, side, tokens):
    samples = prompted(tokens, longest=50)
    batch = AlignedCollator(pad_token_id=1, side=side)(samples)
    target = LiveTeacher(model).target(teacher_batch(batch))
    alone = []
    for one in samples:
        with torch.no_grad():
            logits = model(torch.tensor([one["teacher_input_ids"]])).logits[0]
        alone.append(logits[one["teacher_answer_start"] - 1 : -1])
    found = target.hidden @ target.head.weight.T
    torch.testing.assert_close(found, torch.cat(alone), rtol=0, atol=1e-4)


def divergence(model, batch):
    """The mean KL between a model under the teacher's prompts and itself under the student's."""
    head = head_of(model)
    states, labels = forward(model, head, batch)
    target = LiveTeacher(copy.deepcopy(model)).target(teacher_batch(batch))
    loss, _ = distillation_loss(states, head, labels, target, [Loss("forward_kl")], denominator=len(labels))
    return loss.item()


@MODELS
@SIDES
def test_under_one_prompt_a_model_differs_from_itself_in_nothing_and_under_two_it_does(model, side):
    collate = AlignedCollator(pad_token_id=1, side=side)
    assert abs(divergence(model, collate(prompted(chatty(), "base")))) < 1e-6
    assert divergence(model, collate(prompted(chatty(), "ground-truth"))) > 1e-2


@SIDES
def test_the_student_s_loss_does_not_know_what_the_teacher_was_asked(side):
    model, collate = llama(0), AlignedCollator(pad_token_id=1, side=side)
    states = [forward(model, None, collate(prompted(chatty(), name)))[0] for name in ("base", "confidence")]
    assert torch.equal(*states)
