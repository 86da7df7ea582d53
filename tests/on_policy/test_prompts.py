"""The prompt of a sample ends where its last answer begins; a text's beginning stands for it."""

import pytest
import torch

from potstill.data.collators import Collator
from potstill.data.labels import IGNORE_INDEX as NOT
from potstill.data.prompts.collator import AlignedCollator
from potstill.on_policy.prompts import SamplePrompt, prompts_of
from tiny import tokenizer
from toy_prompts import prompted


def of(*samples, beginning=3):
    return prompts_of(Collator(0)(samples), beginning)


@pytest.mark.parametrize(
    ("labels", "prompt"),
    [
        ([NOT, NOT, 7, 8, 9], [5, 6]),
        ([NOT, NOT, NOT, NOT, 9], [5, 6, 7, 8]),
        # Of a conversation, the last turn is written anew.
        ([NOT, 6, NOT, NOT, 9], [5, 6, 7, 8]),
        # What follows the last turn is no part of the prompt.
        ([NOT, 6, 7, NOT, NOT], [5]),
        # A text.
        ([5, 6, 7, 8, 9], [5, 6, 7]),
    ],
    ids=["question", "one token", "turns", "a tail", "text"],
)
def test_a_prompt_ends_where_the_last_answer_begins(labels, prompt):
    assert of({"input_ids": [5, 6, 7, 8, 9], "labels": labels}) == [SamplePrompt(prompt)]
    # Pads change nothing.
    longer = {"input_ids": [5] * 9, "labels": [NOT] * 8 + [5]}
    assert of({"input_ids": [5, 6, 7, 8, 9], "labels": labels}, longer)[0] == SamplePrompt(prompt)


def test_a_short_text_leaves_something_to_continue():
    assert of({"input_ids": [5, 6, 7]}, beginning=30) == [SamplePrompt([5, 6])]


def test_a_row_that_teaches_nothing_has_no_prompt():
    assert of({"input_ids": [5, 6, 7], "labels": [NOT] * 3}) == [None]
    assert of({"input_ids": [5]}) == [None]


def test_of_several_documents_the_first_that_teaches_something_counts():
    row = {"input_ids": [5, 6, 7, 8, 9, 4], "documents": [2, 4], "labels": [NOT, NOT, NOT, NOT, 9, 4]}
    assert of(row) == [SamplePrompt([7, 8])]
    assert of({"input_ids": [5, 6, 7, 8, 9, 4], "documents": [2, 4]}) == [SamplePrompt([5])]


def test_teachers_have_prompts_of_their_own():
    samples = prompted(tokenizer())
    found = prompts_of(AlignedCollator(1)(samples), beginning=3)
    for prompt, sample in zip(found, samples, strict=True):
        assert prompt.student == sample["input_ids"][: sample["answer_start"]]
        assert prompt.teacher == sample["teacher_input_ids"][: sample["teacher_answer_start"]]
        assert prompt.student != prompt.teacher


def test_pads_on_the_left_change_nothing():
    samples = prompted(tokenizer())
    assert prompts_of(AlignedCollator(1, side="left")(samples), 3) == prompts_of(AlignedCollator(1)(samples), 3)


def test_a_batch_without_pads_needs_no_mask():
    batch = {"input_ids": torch.tensor([[5, 6, 7]]), "labels": torch.tensor([[NOT, 6, 7]])}
    assert prompts_of(batch, 3) == [SamplePrompt([5])]
