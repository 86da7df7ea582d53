"""Conversation: its messages, tools and place, whatever format its row had."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from potstill.data.row_teachers import Teachers
from potstill.errors import UserError

TOOL_CALL_TAG = "<tool_call>"
"""What a tool call begins with that a turn holds as text, as Hermes and Qwen write it."""


class BadRowError(UserError):
    """A row that is no proper conversation.

    Args:
        where: names the row, such as `train.jsonl:7`.
        reason: why, in a few words that name no row, so that equal reasons can be counted.
        detail: why, as the end of a sentence; default: the reason.
    """

    def __init__(self, where: str, reason: str, detail: str | None = None) -> None:
        super().__init__(
            f"{where}: {detail or reason}; correct the row, leave it out, or set `corpus.on_bad_row: drop`"
        )
        self.reason = reason


class NothingLearnedError(BadRowError):
    """A conversation of which no turn is learned: its weights are 0, or what is learned leaves it out."""


@dataclass(frozen=True)
class ToolCall:
    """A call of a tool."""

    name: str
    arguments: Mapping[str, Any]
    id: str | None = None


@dataclass(frozen=True)
class Message:
    """One turn."""

    role: str
    """`system`, `user`, `assistant` or `tool`."""
    content: str
    """Its text without its reasoning."""
    reasoning: str = ""
    inline: bool = False
    """Whether the row has the reasoning inside the content, between `<think>` and `</think>`. Then `reasoning` and
    `content` keep the space around them."""
    tool_calls: tuple[ToolCall, ...] = ()
    name: str | None = None
    """The name of the tool that gave a result."""
    tool_call_id: str | None = None
    learn: bool = True
    """False if the row gives the turn a weight of 0."""

    @property
    def texts(self) -> tuple[str, ...]:
        """Everything that the turn says."""
        return (
            self.content,
            self.reasoning,
            *(json.dumps(call.arguments, ensure_ascii=False) for call in self.tool_calls),
        )

    @property
    def calls(self) -> bool:
        """Whether the turn calls a tool, in its `tool_calls` or as text."""
        return bool(self.tool_calls) or TOOL_CALL_TAG in self.content


@dataclass(frozen=True)
class Conversation:
    """The messages of a conversation, the tools that it may call, and its place."""

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    """JSON schemas: `{"type": "function", "function": {"name": …, "parameters": …}}`."""
    where: str = "the conversation"
    """The row, such as `train.jsonl:7`."""
    source: str = ""
    """The file or the data set's configuration."""
    teachers: Teachers | None = None
    """Its teachers; None where rows have none of their own."""

    def as_row(self) -> dict[str, str]:
        """The conversation as two columns of JSON, which ``read.read_conversation`` reads."""
        messages = [_as_dict(message) for message in self.messages]
        return {"messages": json.dumps(messages, ensure_ascii=False), "tools": json.dumps(self.tools)}

    @property
    def text(self) -> str:
        """Everything that is said, message by message."""
        said = (text for message in self.messages for text in (message.reasoning, message.content) if text.strip())
        return "\n\n".join(said)

    def hash(self) -> bytes:
        """16 bytes that are the same for the same messages and tools. They decide the side on which it is judged."""
        content = json.dumps(self.as_row(), sort_keys=True, ensure_ascii=False)
        return hashlib.blake2b(content.encode(), digest_size=16).digest()


def _as_dict(message: Message) -> dict[str, Any]:
    inline = f"<think>{message.reasoning}</think>{message.content}"
    found: dict[str, Any] = {"role": message.role, "content": inline if message.inline else message.content}
    if message.reasoning and not message.inline:
        found["reasoning_content"] = message.reasoning
    if message.tool_calls:
        found["tool_calls"] = [as_call(call) for call in message.tool_calls]
    found |= {key: value for key in ("name", "tool_call_id") if (value := getattr(message, key)) is not None}
    return found if message.learn else found | {"weight": 0}


def as_call(call: ToolCall, as_text: bool = False) -> dict[str, Any]:
    """A tool call as chat templates take it, its arguments as an object or as a text of JSON."""
    arguments = json.dumps(call.arguments, ensure_ascii=False) if as_text else dict(call.arguments)
    found: dict[str, Any] = {"type": "function", "function": {"name": call.name, "arguments": arguments}}
    return found if call.id is None else {"id": call.id, **found}
