"""Held-out prompts: each ends where the last turn of the assistant begins, and leaves every model room to write it."""

from dataclasses import replace

import pytest

from potstill.data.conversations.conversation import Conversation
from potstill.errors import UserError
from potstill.evaluation import held_out_prompts as module
from potstill.evaluation.held_out_prompts import held_out_prompts
from potstill.pipeline import artifacts
from potstill.recipe.conversations import TeacherReading
from toy_chat import CASES, chat_tokenizer


def changed(work, answers=None, **corpus):
    recipe = work.recipe
    update = {"corpus": recipe.corpus.model_copy(update=corpus)}
    update |= {"answers": recipe.answers.model_copy(update=answers)} if answers else {}
    return replace(work, recipe=recipe.model_copy(update=update))


def test_a_prompt_ends_where_the_assistant_begins(chat_work):
    held_out, prompts = artifacts.conversations(chat_work, "held_out"), held_out_prompts(chat_work)
    assert [one.id for one in prompts] == list(held_out)
    for one in prompts:
        text = chat_tokenizer().decode(one.input_ids)
        assert text.endswith("<|im_start|>assistant\n")
        assert one.read_by("t") == one.input_ids
        last = held_out[one.id].messages[-1]
        assert one.reference == last.content or ('"name": "weather"' in one.reference and last.tool_calls)
        assert one.reference_tokens == len(chat_tokenizer()(one.reference, add_special_tokens=False)["input_ids"])
        assert list(one.before) == list(held_out[one.id].messages[:-1])


def test_a_longer_answer_leaves_less_room_for_prompts(chat_work):
    longest = 512 - 400
    prompts = held_out_prompts(changed(chat_work, {"max_new_tokens": 400}))
    every = held_out_prompts(chat_work)
    assert [one.id for one in prompts] == [one.id for one in every if len(one.input_ids) <= longest]
    assert 2 <= len(prompts) < len(every)


def test_without_room_for_any_prompt_the_key_is_named(chat_work):
    with pytest.raises(UserError, match=r"`answers.max_new_tokens`: 0 of \d+ held-out conversations have a prompt"):
        held_out_prompts(changed(chat_work, {"max_new_tokens": 500}))


def test_teachers_are_asked_as_they_teach(chat_work):
    reading = TeacherReading(system="You know coins.", template="plain")
    for one in held_out_prompts(changed(chat_work, teacher=reading)):
        theirs, ours = chat_tokenizer().decode(one.read_by("t")), chat_tokenizer().decode(one.input_ids)
        assert "You know coins." in theirs
        assert "<|im_start|>" not in theirs
        assert "You know coins." not in ours


def test_a_teacher_that_is_shown_answers_is_asked_without_them(chat_work):
    reading = TeacherReading(system="You know coins.", user="{{ question }} Say: {{ reference }}")
    for one in held_out_prompts(changed(chat_work, teacher=reading)):
        theirs = chat_tokenizer().decode(one.read_by("t"))
        assert "You know coins." in theirs
        assert "Say:" not in theirs


@pytest.mark.parametrize("name", CASES)
def test_every_kind_of_conversation_has_its_last_turn_written(chat_work, monkeypatch, name):
    whole: Conversation = CASES[name]
    untaught = replace(whole, messages=tuple(replace(one, learn=False) for one in whole.messages))
    monkeypatch.setattr(module.artifacts, "conversations", lambda *_: {"a": whole, "b": untaught})
    monkeypatch.setattr(module, "_room", lambda _: [4096])
    one, other = held_out_prompts(changed(chat_work, reasoning=False, tool_calls=False, sequence_length=4096))
    assert (one.input_ids, one.reference) == (other.input_ids, other.reference), "the data's weights do not matter"
    assert whole.messages[-1].content in one.reference
    assert whole.messages[-1].reasoning in one.reference
    assert list(one.before) == list(whole.messages[:-1])
