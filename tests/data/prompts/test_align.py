"""One answer behind two prompts: its tokens are the same at both places."""

import pytest

from potstill.data.labels import IGNORE_INDEX
from potstill.data.prompts.align import AlignedSampleBuilder
from potstill.data.prompts.collator import AlignedCollator, teacher_batch
from potstill.errors import UserError
from potstill.recipe.strategies import SHIPPED, Prompt, Strategy
from tiny import tokenizer
from toy_prompts import END, ROOMY, SIDES, STRATEGIES, TOKENIZERS, chatty, prompted, rows, taught


@TOKENIZERS
@SIDES
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("longest", [ROOMY, 50])
def test_supervised_tokens_are_the_answers_to_both(tokens, side, strategy, longest):
    limits = {"longest": longest, "teacher_longest": ROOMY}
    samples = prompted(tokens, strategy, **limits)
    assert any(one["answer_cut"] for one in samples) == (longest < ROOMY)
    batch = AlignedCollator(pad_token_id=1, side=side)(samples)
    expected = []
    for row, one in zip(rows(), samples, strict=True):
        whole = [*tokens(row["answer"], add_special_tokens=False)["input_ids"], END]
        expected += whole[: len(whole) - one["answer_cut"]]
    assert taught(batch) == expected
    assert taught(teacher_batch(batch)) == expected


@TOKENIZERS
def test_prompts_differ_in_length_and_answers_in_place(tokens):
    samples = prompted(tokens)
    for one in samples:
        assert one["teacher_answer_start"] > one["answer_start"] > 0
        assert one["input_ids"][one["answer_start"] :] == one["teacher_input_ids"][one["teacher_answer_start"] :]
        assert one["labels"][: one["answer_start"]] == [IGNORE_INDEX] * one["answer_start"]
        assert one["labels"][one["answer_start"] :] == one["input_ids"][one["answer_start"] :]
    assert len({one["answer_start"] for one in samples}) > 3


def test_no_token_spans_prompt_and_answer():
    # As one piece, "water" has fewer tokens than "wat" and "er" together.
    tokens = chatty("{% for m in messages %}{{ m.content }}{% endfor %}")
    strategy = Strategy(teacher=Prompt(user="{{ question }}"), student=Prompt(user="{{ question }}"))
    one = AlignedSampleBuilder({"s": strategy}, tokens, ROOMY, ROOMY)(
        {"question": "stone and wat", "answer": "er"}, "row 0"
    )["s"]
    together = tokens("stone and water", add_special_tokens=False)["input_ids"]
    assert len(one["input_ids"]) - 1 > len(together)
    assert tokens.decode(one["input_ids"]) == "stone and water<|endoftext|>"
    assert tokens.decode(one["labels"][one["answer_start"] :]) == "er<|endoftext|>"


@TOKENIZERS
def test_cut_is_the_answers_end_in_both_alike(tokens):
    whole = prompted(tokens)
    for limits in ({"longest": 50}, {"teacher_longest": 240}):
        samples = prompted(tokens, **limits)
        assert any(one["answer_cut"] for one in samples)
        for one, before in zip(samples, whole, strict=True):
            cut = one["answer_cut"]
            assert one["input_ids"] == before["input_ids"][: len(before["input_ids"]) - cut]
            assert one["teacher_input_ids"] == before["teacher_input_ids"][: len(before["teacher_input_ids"]) - cut]
            assert len(one["input_ids"]) <= limits.get("longest", ROOMY)
            assert len(one["teacher_input_ids"]) <= limits.get("teacher_longest", ROOMY)
            assert (one["input_ids"][-1] == END) == (cut == 0)


def test_an_answer_that_just_fits_is_whole_and_one_token_more_cuts_its_end_token_alone():
    (one,) = prompted(tokenizer(), count=1)
    (fits,) = prompted(tokenizer(), count=1, longest=len(one["input_ids"]))
    assert fits == one
    (cut,) = prompted(tokenizer(), count=1, longest=len(one["input_ids"]) - 1)
    assert cut["answer_cut"] == 1
    assert cut["input_ids"] == one["input_ids"][:-1]


def test_all_strategies_teach_the_same_tokens():
    # The longest prompt decides for all strategies; alone, a short prompt would keep more of the answer.
    limits = {"longest": ROOMY, "teacher_longest": 240}
    together = AlignedSampleBuilder(STRATEGIES, tokenizer(), **limits)
    for index, row in enumerate(rows()):
        answers = [one["input_ids"][one["answer_start"] :] for one in together(row, f"row {index}").values()]
        assert answers == [answers[0]] * len(STRATEGIES)
    assert together(rows()[2], "row 2")["base"]["answer_cut"] > 0
    assert (
        AlignedSampleBuilder({"base": SHIPPED["base"]}, tokenizer(), **limits)(rows()[2], "row 2")["base"]["answer_cut"]
        == 0
    )


@pytest.mark.parametrize(("longest", "teacher_longest", "side"), [(20, ROOMY, "student"), (ROOMY, 30, "teacher")])
def test_a_prompt_that_leaves_no_room_is_refused(longest, teacher_longest, side):
    row = {**rows()[0], "question": "why " * 40}
    with pytest.raises(UserError) as told:
        AlignedSampleBuilder({"base": SHIPPED["base"]}, tokenizer(), longest, teacher_longest)(row, "a.jsonl, line 3")
    sentence = str(told.value)
    assert sentence.startswith(f"a.jsonl, line 3: `strategies.base.{side}` makes a prompt of ")
    assert f"leaves no room for the answer in the {side}'s {min(longest, teacher_longest)}" in sentence


def test_room_for_one_token_is_room():
    (one,) = prompted(tokenizer(), count=1)
    (least,) = prompted(tokenizer(), count=1, longest=one["answer_start"] + 1)
    assert len(least["input_ids"]) - least["answer_start"] == 1
    with pytest.raises(UserError, match="leaves no room"):
        prompted(tokenizer(), count=1, longest=one["answer_start"])


@pytest.mark.parametrize("row", [{"question": "a", "answer": " \n"}, {"question": "a"}], ids=["blank", "missing"])
def test_a_row_without_an_answer_is_refused(row):
    with pytest.raises(UserError) as told:
        AlignedSampleBuilder({"s": Strategy(teacher=Prompt(user="{{ question }}"))}, tokenizer(), ROOMY, ROOMY)(
            row, "line 1"
        )
    assert str(told.value) == "line 1: has no text in `answer`, so there is nothing to learn; leave the row out"


def test_a_template_that_does_not_fit_its_row_is_named_with_its_strategy():
    row = {"question": "a", "answer": "b"}
    with pytest.raises(UserError) as told:
        AlignedSampleBuilder({"s": Strategy(teacher=Prompt(user="{{ qestion }}"))}, tokenizer(), ROOMY, ROOMY)(
            row, "line 1"
        )
    assert str(told.value).startswith("line 1: `strategies.s.teacher.user` uses the field `qestion`, ")
