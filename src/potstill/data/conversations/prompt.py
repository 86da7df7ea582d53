"""Prompt: the tokens after which the assistant writes its next turn."""

from collections.abc import Mapping, Sequence
from typing import Any

from potstill.data.conversations.chat_template import ChatTemplate
from potstill.data.conversations.conversation import Message
from potstill.data.prompts.render import token_ids


def plain_messages(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> list[dict[str, str]]:
    """Messages for a server that renders a conversation itself; none where tools or reasoning belong to it."""
    if tools or any(one.role == "tool" or one.calls or one.reasoning for one in messages):
        return []
    return [{"role": one.role, "content": one.content} for one in messages]


def turn_prompt_ids(
    messages: Sequence[Message], template: ChatTemplate, tools: Sequence[Mapping[str, Any]] = ()
) -> list[int]:
    """The tokens that a model reads before it writes the turn that follows.

    Args:
        messages: the conversation so far.
        template: the chat template.
        tools: JSON schemas.

    Raises:
        TemplateRefusedError: the template refuses the messages.
    """
    text = template.render([template.message(message) for message in messages], tools, prompt=True)
    return token_ids(template.tokenizer, text + (template.header if template.ignores_prompt else ""))
