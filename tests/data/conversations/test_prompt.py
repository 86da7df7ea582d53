"""The prompt of a turn is what a sample has before that turn."""

import pytest

import toy_chat
from potstill.data.conversations.prompt import turn_prompt_ids
from potstill.data.conversations.render import render
from toy_chat import CASES, settings


@pytest.mark.parametrize("template", ["chatml", "llama-3", "gemma", "plain"])
@pytest.mark.parametrize("case", ["plain", "system", "turns", "tools"])
def test_a_model_is_asked_as_it_was_taught(case, template):
    if (case, template) == ("tools", "gemma"):
        pytest.skip("gemma has no tools")
    made, conversation = toy_chat.template(template), CASES[case]
    (sample,) = render(conversation, made, settings(template=template)).samples
    turns = [number for number, message in enumerate(conversation.messages) if message.role == "assistant"]
    for turn, number in zip(sample.turns, turns, strict=True):
        ids = turn_prompt_ids(conversation.messages[:number], made, conversation.tools)
        assert ids == sample.input_ids[: turn.start]
