"""Prompts as tokens: plain text, chat templates, end tokens, and templates that do not fit."""

import copy

import pytest
from transformers import AddedToken

from potstill.data.prompts import render
from potstill.data.prompts.render import end_token_id, prompt_ids, template_fingerprint
from potstill.errors import UserError
from potstill.recipe.strategies import SHIPPED, Prompt
from tiny import tokenizer
from toy_prompts import CHAT, FEW_SHOT, chatty, rows


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
    # A token that is not special does not end an answer.
    made = chatty(CHAT.replace("<|endoftext|>", "<turn>"))
    made.add_tokens([AddedToken("<turn>", special=False)])
    assert end_token_id(made) == made.eos_token_id


def test_without_any_end_token_nothing_is_taught():
    made = copy.deepcopy(tokenizer())
    made.eos_token = None
    with pytest.raises(UserError, match="never learn to stop"):
        end_token_id(made)


@pytest.mark.parametrize(
    ("user", "row", "sentence"),
    [
        (
            "{{ qestion }}",
            {"question": "a", "answer": "b", "level": 3},
            "line 1: `strategies.s.teacher.user` uses the field `qestion`, and the fields are question, answer, level",
        ),
        (
            "{{ question }} {{ reference }}",
            {"question": "a", "answer": "b", "reference": None},
            "line 1: `strategies.s.teacher.user` uses the field `reference`, and the fields are question, answer",
        ),
        (
            "{{ question.first }}",
            {"question": "a", "answer": "b"},
            "line 1: `strategies.s.teacher.user` cannot be filled in ('str object' has no attribute 'first'), and the "
            "fields are question, answer",
        ),
        (
            "{{ level / 0 }}",
            {"question": "a", "answer": "b", "level": 3},
            "line 1: `strategies.s.teacher.user` cannot be filled in (division by zero); correct the template",
        ),
        (
            "{% if level > 2 %}{{ question }}{% endif %}",
            {"question": "a", "answer": "b", "level": 1},
            "line 1: `strategies.s.teacher.user` comes out blank; correct the template, or leave the row out",
        ),
    ],
)
def test_a_row_and_a_template_that_do_not_fit_are_refused(user, row, sentence):
    with pytest.raises(UserError) as told:
        prompt_ids(tokenizer(), Prompt(user=user), row, "line 1", "strategies.s.teacher")
    assert str(told.value) == sentence


def test_an_example_without_a_field_of_the_template_is_named():
    prompt = Prompt(user="{{ question }} ({{ level }})", examples=[{"question": "a", "answer": "b"}])
    with pytest.raises(UserError) as told:
        prompt_ids(tokenizer(), prompt, {"question": "a", "level": 1}, "line 1", "strategies.s.teacher")
    assert str(told.value) == (
        "line 1: `strategies.s.teacher.examples.0` uses the field `level`, and the fields are question, answer"
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
    # Without this, two strategies that differ only in the system message would be the same experiment.
    with pytest.raises(UserError) as told:
        prompt_ids(
            chatty(template), SHIPPED["confidence"].teacher, rows()[0], "line 1", "strategies.confidence.teacher"
        )
    assert str(told.value) == f"line 1: `strategies.confidence.teacher`: the tokenizer's chat template {sentence}"


FAILING = {
    "{{ 1 / 0 }}": "division by zero",
    "{{ messages.nothing.there }}": "",
    "{{ 'a' * 10**9 }}": "takes more than",
    "{% for i in range(10**5) %}{% for j in range(10**5) %}{% endfor %}{% endfor %}": "takes longer than",
    "{% for m in messages %}": "Unexpected end of template",
    "{{ [1, 2] | sum(attribute='x') + messages }}": "",
}


@pytest.mark.parametrize("template", FAILING, ids=range(len(FAILING)))
def test_a_chat_template_that_fails_is_a_sentence(template, monkeypatch):
    monkeypatch.setattr(render, "MOST_SECONDS", 0.2)
    for use in (
        lambda made: prompt_ids(made, SHIPPED["base"].teacher, rows()[0], "line 1", "strategies.base.teacher"),
        end_token_id,
    ):
        with pytest.raises(UserError, match=r"the tokenizer's chat template (fails|refuses it)") as told:
            use(chatty(template))
        assert FAILING[template] in str(told.value)
        assert "\n" not in str(told.value)


def test_a_fingerprint_is_of_the_prompt_and_of_the_chat_template():
    prints = [
        template_fingerprint(tokens, one.teacher) for tokens in (tokenizer(), chatty()) for one in SHIPPED.values()
    ]
    assert len(set(prints)) == 2 * len(SHIPPED)
    assert template_fingerprint(chatty(), SHIPPED["base"].teacher) in prints
