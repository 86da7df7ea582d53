"""One answer behind two prompts: its tokens are the same, wherever they stand, and so is what is said about them."""

import copy

import pytest
from transformers import AddedToken

from asked import CHAT, END, FEW_SHOT, ROOMY, SIDES, STRATEGIES, TOKENIZERS, chatty, prompted, rows, taught
from potstill.data.labels import IGNORE_INDEX
from potstill.data.prompts.align import Prompter
from potstill.data.prompts.collator import PromptedCollator, teacher_batch
from potstill.data.prompts.render import end_token_id, prompt_ids, template_fingerprint
from potstill.errors import UserError
from potstill.recipe.strategies import SHIPPED, Prompt, Strategy
from tiny import tokenizer


@TOKENIZERS
@SIDES
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("longest", [ROOMY, 50])
def test_supervised_tokens_are_the_answers_to_both(tokens, side, strategy, longest):
    limits = {"longest": longest, "teacher_longest": ROOMY}
    samples = prompted(tokens, strategy, **limits)
    assert any(one["answer_cut"] for one in samples) == (longest < ROOMY)
    batch = PromptedCollator(pad_token_id=1, side=side)(samples)
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


def test_plain_text_is_paragraphs_after_the_start_token():
    row = {"question": "Why?", "topic": "salt"}
    ids = prompt_ids(tokenizer(), FEW_SHOT.teacher, row, "row 0", "strategies.few-shot.teacher")
    assert tokenizer().decode(ids) == (
        "<|endoftext|>You know salt.\n\nQ: What sails?\nA:\n\nboats\n\nQ: In winter?\nA:\n\nnobody\n\nQ: Why?\nA:\n\n"
    )


def test_a_chat_template_is_used_and_ends_where_the_answer_begins():
    row = {"question": "Why?", "topic": "salt"}
    ids = prompt_ids(chatty(), FEW_SHOT.teacher, row, "row 0", "strategies.few-shot.teacher")
    assert chatty().decode(ids) == (
        "[system]You know salt.<|endoftext|>\n[user]Q: What sails?\nA:<|endoftext|>\n[assistant]boats<|endoftext|>\n"
        "[user]Q: In winter?\nA:<|endoftext|>\n[assistant]nobody<|endoftext|>\n[user]Q: Why?\nA:<|endoftext|>\n"
        "[assistant]"
    )


def test_an_answer_ends_as_the_chat_template_ends_a_turn():
    made = chatty(CHAT.replace("<|endoftext|>", "<|turn|>"))
    made.add_special_tokens({"extra_special_tokens": ["<|turn|>"]})
    assert end_token_id(made) == made.convert_tokens_to_ids("<|turn|>") != made.eos_token_id
    assert end_token_id(tokenizer()) == tokenizer().eos_token_id
    # What is no special token ends nothing.
    made = chatty(CHAT.replace("<|endoftext|>", "<turn>"))
    made.add_tokens([AddedToken("<turn>", special=False)])
    assert end_token_id(made) == made.eos_token_id


def test_without_any_end_token_nothing_is_taught():
    made = copy.deepcopy(tokenizer())
    made.eos_token = None
    with pytest.raises(UserError, match="never learn to stop"):
        end_token_id(made)


def test_no_token_spans_prompt_and_answer():
    # Read in one piece, "water" would be fewer tokens than "wat" and "er" are.
    tokens = chatty("{% for m in messages %}{{ m.content }}{% endfor %}")
    strategy = Strategy(teacher=Prompt(user="{{ question }}"), student=Prompt(user="{{ question }}"))
    one = Prompter({"s": strategy}, tokens, ROOMY, ROOMY)({"question": "stone and wat", "answer": "er"}, "row 0")["s"]
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
    # The longest of the prompts decides for all of them; alone, the short ones would keep more.
    limits = {"longest": ROOMY, "teacher_longest": 240}
    together = Prompter(STRATEGIES, tokenizer(), **limits)
    for index, row in enumerate(rows()):
        answers = [one["input_ids"][one["answer_start"] :] for one in together(row, f"row {index}").values()]
        assert answers == [answers[0]] * len(STRATEGIES)
    assert together(rows()[2], "row 2")["base"]["answer_cut"] > 0
    assert Prompter({"base": SHIPPED["base"]}, tokenizer(), **limits)(rows()[2], "row 2")["base"]["answer_cut"] == 0


@pytest.mark.parametrize(("longest", "teacher_longest", "side"), [(20, ROOMY, "student"), (ROOMY, 30, "teacher")])
def test_a_prompt_that_leaves_no_room_is_refused(longest, teacher_longest, side):
    row = {**rows()[0], "question": "why " * 40}
    with pytest.raises(UserError) as told:
        Prompter({"base": SHIPPED["base"]}, tokenizer(), longest, teacher_longest)(row, "a.jsonl, line 3")
    sentence = str(told.value)
    assert sentence.startswith(f"a.jsonl, line 3: `strategies.base.{side}` makes a prompt of ")
    assert f"leaves nothing of the {side}'s {min(longest, teacher_longest)} to the answer" in sentence


def test_room_for_one_token_is_room():
    (one,) = prompted(tokenizer(), count=1)
    (least,) = prompted(tokenizer(), count=1, longest=one["answer_start"] + 1)
    assert len(least["input_ids"]) - least["answer_start"] == 1
    with pytest.raises(UserError, match="leaves nothing"):
        prompted(tokenizer(), count=1, longest=one["answer_start"])


@pytest.mark.parametrize(
    ("user", "row", "sentence"),
    [
        (
            "{{ qestion }}",
            {"question": "a", "answer": "b", "level": 3},
            "line 1: `strategies.s.teacher.user` uses the field `qestion`, and the fields there are question, answer, "
            "level",
        ),
        (
            "{{ question }} {{ reference }}",
            {"question": "a", "answer": "b", "reference": None},
            "line 1: `strategies.s.teacher.user` uses the field `reference`, and the fields there are question, answer",
        ),
        (
            "{{ question.first }}",
            {"question": "a", "answer": "b"},
            "line 1: `strategies.s.teacher.user` cannot be filled in ('str object' has no attribute 'first'), and the "
            "fields there are question, answer",
        ),
        (
            "{{ level / 0 }}",
            {"question": "a", "answer": "b", "level": 3},
            "line 1: `strategies.s.teacher.user` cannot be filled in (division by zero); mend the template",
        ),
        (
            "{% if level > 2 %}{{ question }}{% endif %}",
            {"question": "a", "answer": "b", "level": 1},
            "line 1: `strategies.s.teacher.user` comes out blank; mend the template, or leave the row out",
        ),
        (
            "{{ question }}",
            {"question": "a", "answer": " \n"},
            "line 1: has no text in `answer`, so there is nothing to learn; leave the row out",
        ),
        (
            "{{ question }}",
            {"question": "a"},
            "line 1: has no text in `answer`, so there is nothing to learn; leave the row out",
        ),
    ],
)
def test_a_row_and_a_template_that_do_not_fit_are_refused(user, row, sentence):
    with pytest.raises(UserError) as told:
        Prompter({"s": Strategy(teacher=Prompt(user=user))}, tokenizer(), ROOMY, ROOMY)(row, "line 1")
    assert str(told.value) == sentence


def test_an_example_without_a_field_of_the_template_is_named():
    prompt = Prompt(user="{{ question }} ({{ level }})", examples=[{"question": "a", "answer": "b"}])
    with pytest.raises(UserError) as told:
        prompt_ids(tokenizer(), prompt, {"question": "a", "level": 1}, "line 1", "strategies.s.teacher")
    assert str(told.value) == (
        "line 1: `strategies.s.teacher.examples.0` uses the field `level`, and the fields there are question, answer"
    )


REFUSING = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role here') }}{% endif %}" + CHAT
FORGETTING = CHAT.replace("messages %}", "messages if m.role != 'system' %}", 1)


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        (REFUSING, "refuses it (no system role here)"),
        (FORGETTING, "leaves the system message out, or changes it; say it in another message"),
    ],
    ids=["refusing", "forgetting"],
)
def test_a_chat_template_that_loses_a_message_is_named(template, sentence):
    # Without this, two strategies that differ in the system message alone would be one experiment under two names.
    with pytest.raises(UserError) as told:
        prompt_ids(
            chatty(template), SHIPPED["confidence"].teacher, rows()[0], "line 1", "strategies.confidence.teacher"
        )
    assert str(told.value) == f"line 1: `strategies.confidence.teacher`: the tokenizer's chat template {sentence}"


def test_a_fingerprint_is_of_the_prompt_and_of_the_chat_template():
    prints = [
        template_fingerprint(tokens, one.teacher) for tokens in (tokenizer(), chatty()) for one in SHIPPED.values()
    ]
    assert len(set(prints)) == 2 * len(SHIPPED)
    assert template_fingerprint(chatty(), SHIPPED["base"].teacher) in prints
