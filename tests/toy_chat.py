"""Toy conversations, and a tokenizer that has the tokens of all chat templates."""

from functools import cache
from typing import Any

from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from potstill.data.conversations.chat_template import ChatTemplate, chat_template
from potstill.data.conversations.conversation import Conversation
from potstill.data.conversations.read import read_conversation
from potstill.data.conversations.render import ChatSample
from potstill.data.labels import IGNORE_INDEX
from potstill.data.sources import SourceRow
from potstill.recipe.conversations import ChatSettings, PathConversations
from tiny import tokenizer

SPECIAL = ["<s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
SPECIAL += ["<start_of_turn>", "<end_of_turn>", "<|end|>", "<|return|>", "<|call|>", "<|user|>", "<|assistant|>"]
ADDED = ["<think>", "</think>", "<tool_call>", "</tool_call>"]
WEATHER = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
TOOLS = [{"type": "function", "function": WEATHER}]


@cache
def chat_tokenizer() -> PreTrainedTokenizerFast:
    """The tiny tokenizer with the special tokens of the usual templates. It has no template, and pads with its end."""
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer().backend_tokenizer, eos_token="<|endoftext|>")
    made.add_special_tokens({"additional_special_tokens": SPECIAL, "bos_token": "<s>"})
    made.add_tokens([AddedToken(token, normalized=False) for token in ADDED])
    made.pad_token = made.eos_token
    return made


def settings(**given: Any) -> ChatSettings:
    return ChatSettings.model_validate({"sequence_length": 4096, **given})


def template(name: str | None = "chatml", **given: Any) -> ChatTemplate:
    return chat_template(chat_tokenizer(), settings(template=name, **given))


def user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: str = "", **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def call(city: str = "Rome", **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "weather", "arguments": {"city": city}}, **more}


def result(content: str = "3 degrees") -> dict[str, Any]:
    return {"role": "tool", "content": content, "name": "weather"}


def read(columns: dict[str, Any], **source: Any) -> Conversation:
    """The conversation of a row of JSON lines."""
    given = PathConversations.model_validate({"path": "chats.jsonl", **source})
    return read_conversation(SourceRow(columns, "chats.jsonl:7", "chats.jsonl"), given)


def conversation(*messages: dict[str, Any], tools: Any = None) -> Conversation:
    return read({"messages": list(messages), "tools": tools})


CASES = {
    "plain": conversation(user("Why?"), assistant("It rains.")),
    "system": conversation({"role": "system", "content": "Be brief."}, user("Why?"), assistant("It rains.")),
    "turns": conversation(
        user("Why?"), assistant("It rains."), user("And now?"), assistant("It snows."), user("So?"), assistant("Go.")
    ),
    "reasoning": conversation(
        user("Why?"),
        assistant("It rains.", reasoning_content="Clouds."),
        user("And now?"),
        assistant("It snows.", reasoning_content="Cold clouds."),
    ),
    "tools": conversation(
        user("Is it cold?"), assistant(tool_calls=[call()]), result(), assistant("Yes, in Rome."), tools=TOOLS
    ),
    "everything": conversation(
        {"role": "system", "content": "Be brief."},
        user("Is it cold?"),
        assistant("I look.", reasoning_content="No idea.", tool_calls=[call()]),
        result(),
        assistant("Yes, in Rome.", reasoning_content="It is."),
        user("And in Oslo?"),
        assistant(tool_calls=[call("Oslo")]),
        result("-9 degrees"),
        assistant("Colder."),
        tools=TOOLS,
    ),
}


def marked(sample: ChatSample) -> str:
    """The text of a sample, with what is learned between brackets."""
    text, learned = "", False
    for token, label in zip(sample.input_ids, sample.labels, strict=True):
        if (label != IGNORE_INDEX) != learned:
            learned = not learned
            text += "⟦" if learned else "⟧"
        text += chat_tokenizer().decode([token])
    return text + ("⟧" if learned else "")


def learned(sample: ChatSample) -> list[str]:
    """The texts that are learned."""
    return [part.partition("⟧")[0] for part in marked(sample).split("⟦")[1:]]
