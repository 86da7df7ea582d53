"""Samples whose teacher speaks about another question."""

import pytest

from potstill.data.prompts.collator import AlignedCollator, teacher_batch
from potstill.data.prompts.placebo import placebo_samples
from potstill.errors import UserError
from tiny import tokenizer
from toy_prompts import ROOMY, SIDES, prompted, taught


@SIDES
def test_of_another_question_the_teacher_says_as_much_and_nothing_of_this_one(side):
    samples = prompted(tokenizer())
    exchanged = placebo_samples(samples, ROOMY)
    answers = {one["id"]: one["input_ids"][one["answer_start"] :] for one in samples}
    prompts = {one["id"]: one["teacher_input_ids"][: one["teacher_answer_start"]] for one in samples}
    partners = []
    for own, one in zip(samples, exchanged, strict=True):
        assert {name: one[name] for name in ("id", "input_ids", "labels")} == {
            name: own[name] for name in ("id", "input_ids", "labels")
        }
        start = one["teacher_answer_start"]
        partner = next(name for name, prompt in prompts.items() if prompt == one["teacher_input_ids"][:start])
        said = one["teacher_input_ids"][start:]
        assert partner != own["id"]
        assert len(said) == len(answers[own["id"]])
        assert said == (answers[partner] * 9)[: len(said)]
        partners.append(partner)
    assert len(set(partners)) == len(samples), "each question is used once"
    assert exchanged == placebo_samples(samples, ROOMY) != placebo_samples(samples, ROOMY, seed=1)
    with pytest.raises(UserError, match="are not aligned"):
        AlignedCollator(1, side)(exchanged)
    batch = AlignedCollator(1, side, same_answer=False)(exchanged)
    assert len(taught(batch)) == len(taught(teacher_batch(batch)))


def test_an_exchange_that_fits_nowhere_is_refused():
    samples = prompted(tokenizer(), count=2)
    longest = max(len(one["teacher_input_ids"]) for one in samples)
    with pytest.raises(UserError, match="row 0: no other question leaves the teacher room for an answer of"):
        placebo_samples(samples[:1], longest)
    with pytest.raises(UserError, match=r"raise `corpus.teacher_length`"):
        placebo_samples(samples, longest - 1)
    spoiled = [{**samples[0], "teacher_input_ids": samples[0]["teacher_input_ids"][:-1]}, samples[1]]
    with pytest.raises(UserError, match="supervised tokens for the student and"):
        AlignedCollator(1, same_answer=False)(spoiled)
