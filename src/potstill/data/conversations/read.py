"""Read: rows of any chat format become conversations."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from potstill.data.conversations.check import check_conversation
from potstill.data.conversations.conversation import BadRowError, Conversation, Message
from potstill.data.conversations.parts import json_value, message_of, schemas_of, without_none
from potstill.data.row_teachers import RowTeachers
from potstill.data.sources import SourceRow, rows
from potstill.recipe.conversations import ConversationBase, ConversationSource, Format
from potstill.recipe.corpus import HubDataset

LISTS = ("messages", "conversations", "conversation")
"""Columns that hold a list of messages."""

MEDIA = ("image", "images", "audio", "audios", "video", "videos")
"""Columns that hold what is not text."""

ARROW = re.compile(r"\.parquet:\d+$")


def conversations_of(
    sources: Sequence[ConversationSource],
    key: str,
    dropped: Callable[[SourceRow, str], None] | None = None,
    taught: RowTeachers | None = None,
) -> Iterator[Conversation]:
    """The conversations of sources, one source after the other.

    Args:
        sources: the sources.
        key: the recipe key of the list of sources, for messages.
        dropped: told each row that is no proper conversation, and why. None: such a row is refused.
        taught: says which teachers a row has; None where rows have none of their own.

    Raises:
        UserError: a source is missing or cannot be read; or a row is no proper conversation.
    """
    every = ((row, source) for index, source in enumerate(sources) for row in rows(source, f"{key}.{index}"))
    for row, source in every:
        try:
            found = read_conversation(row, source)
            yield found if taught is None else replace(found, teachers=taught.of(source, row.columns))
        except BadRowError as error:
            if dropped is None:
                raise
            dropped(row, error.reason)


def conversations_of_rows(rows: Iterable[Mapping[str, Any]], name: str) -> Iterator[Conversation]:
    """The conversations of the rows of a table, such as a ``datasets.Dataset``.

    Args:
        rows: the rows.
        name: names the table in messages.

    Raises:
        BadRowError: a row is no proper conversation.
    """
    for number, columns in enumerate(rows, 1):
        yield read_conversation(SourceRow(columns, f"{name}:{number}", name), ConversationBase(), arrow=True)


def read_conversation(row: SourceRow, source: ConversationBase, arrow: bool | None = None) -> Conversation:
    """The conversation of a row.

    Args:
        row: the row.
        source: the names of its format, its columns and its roles.
        arrow: whether the row comes from a table that writes every key in every object, with None where it is not
            there. Default: it does from a data set and from .parquet.

    Raises:
        BadRowError: the row is no proper conversation.
    """
    if arrow is None:
        arrow = isinstance(source, HubDataset) or ARROW.search(row.where) is not None
    columns = {name: value for name, value in row.columns.items() if value is not None}
    media = next((name for name in MEDIA if columns.get(name)), None)
    if media is not None:
        raise BadRowError(row.where, f"has `{media}`, and only text is supported")
    kind = source.format or _recognised(columns, row.where)
    reader = _Reader(columns, row.where, source, arrow)
    messages = tuple(message for message in _joined(FORMATS[kind](reader)) if not _is_empty_system(message))
    conversation = Conversation(messages, reader.tools(), row.where, row.origin)
    check_conversation(conversation)
    return conversation


def _recognised(columns: Mapping[str, Any], where: str) -> Format:
    if name := next((name for name in LISTS if name in columns), None):
        messages = _as_list(columns[name], where)
        first = messages[0] if isinstance(messages, list) and messages else None
        return "sharegpt" if isinstance(first, Mapping) and first.get("role") is None else "messages"
    if "instruction" in columns and "output" in columns:
        return "alpaca"
    if "prompt" in columns and "completion" in columns:
        return "prompt_completion"
    named = ", ".join(columns) or "none"
    raise BadRowError(
        where,
        "holds no conversation",
        f"holds no conversation that is recognised (its columns are {named}; `format` and `keys` name others)",
    )


class _Reader:
    """The columns of one row, under the names that its source gives."""

    def __init__(self, columns: Mapping[str, Any], where: str, source: ConversationBase, arrow: bool) -> None:
        self._columns, self.where, self._source, self._arrow = columns, where, source, arrow

    def column(self, name: str) -> Any:
        return self._columns.get(self.key(name))

    def key(self, name: str) -> str:
        return self._source.keys.get(name, name)

    def text(self, name: str) -> str:
        value = self.column(name)
        if value is None or isinstance(value, str):
            return value or ""
        raise BadRowError(self.where, f"`{self.key(name)}` is {_named(value)}, not text")

    def system(self) -> list[Message]:
        text = self.text("system")
        return [Message("system", text)] if text.strip() else []

    def tools(self) -> tuple[Mapping[str, Any], ...]:
        given = self.column("tools")
        return schemas_of(without_none(given) if self._arrow else given, self.where)

    def messages(self, given: Any, role: str, content: str) -> list[Message]:
        """A list of messages whose keys are `role` and `content`."""
        found = _as_list(given, self.where)
        if not isinstance(found, list) or not all(isinstance(one, Mapping) for one in found):
            raise BadRowError(self.where, "its messages are no list of objects")
        return [
            message_of(without_none(one) if self._arrow else one, (role, content), self._source.roles, self.where)
            for one in found
        ]

    def listed(self) -> Any:
        """The column with the list of messages, whatever its name."""
        for name in (self.key("messages"), self.key("conversations"), *LISTS):
            if name in self._columns:
                return self._columns[name]
        raise BadRowError(self.where, "has no messages")


def _as_list(given: Any, where: str) -> Any:
    """A list of messages, which may be its JSON, or an object with one list for each key of the messages."""
    if isinstance(given, str):
        return json_value(given, where, "the list of messages")
    if isinstance(given, Mapping) and given and all(isinstance(values, list) for values in given.values()):
        return [dict(zip(given, values, strict=False)) for values in zip(*given.values(), strict=False)]
    return given


def _messages(reader: _Reader) -> list[Message]:
    found = reader.messages(reader.listed(), reader.key("role"), reader.key("content"))
    return found if found and found[0].role == "system" else [*reader.system(), *found]


def _sharegpt(reader: _Reader) -> list[Message]:
    found = reader.messages(reader.listed(), reader.key("from"), reader.key("value"))
    return found if found and found[0].role == "system" else [*reader.system(), *found]


def _alpaca(reader: _Reader) -> list[Message]:
    history = reader.column("history") or []
    history = json_value(history, reader.where, "`history`") if isinstance(history, str) else history
    pairs = isinstance(history, list) and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in history)
    if not pairs or not all(isinstance(text, str) for pair in history for text in pair):
        raise BadRowError(reader.where, f"`{reader.key('history')}` is no list of pairs of texts")
    asked = "\n".join(text for text in (reader.text("instruction"), reader.text("input")) if text.strip())
    turns = [*history, (asked, reader.text("output"))]
    return [
        *reader.system(),
        *(message for question, answer in turns for message in _exchange(question, answer, reader.where)),
    ]


def _prompt_completion(reader: _Reader) -> list[Message]:
    prompt, completion = reader.column("prompt"), reader.column("completion")
    if isinstance(prompt, str) and isinstance(completion, str):
        return [*reader.system(), *_exchange(prompt, completion, reader.where)]
    found = [
        message
        for part, role in ((prompt, "user"), (completion, "assistant"))
        for message in reader.messages(
            [{"role": role, "content": part}] if isinstance(part, str) else part, "role", "content"
        )
    ]
    return found if found and found[0].role == "system" else [*reader.system(), *found]


FORMATS: Mapping[Format, Callable[[_Reader], list[Message]]] = {
    "messages": _messages,
    "sharegpt": _sharegpt,
    "alpaca": _alpaca,
    "prompt_completion": _prompt_completion,
}


def _exchange(question: str, answer: str, where: str) -> tuple[Message, Message]:
    answered = message_of({"role": "assistant", "content": answer}, ("role", "content"), {}, where)
    return Message("user", question), answered


def _joined(messages: Sequence[Message]) -> list[Message]:
    """The messages, in which a call of a tool that has a message of its own joins the assistant's turn before it."""
    found: list[Message] = []
    for message in messages:
        before = found[-1] if found else None
        if before is not None and before.role == message.role == "assistant" and _only_calls(message):
            found[-1] = replace(before, tool_calls=before.tool_calls + message.tool_calls)
        else:
            found.append(message)
    return found


def _only_calls(message: Message) -> bool:
    return bool(message.tool_calls) and not message.content.strip() and not message.reasoning.strip()


def _is_empty_system(message: Message) -> bool:
    return message.role == "system" and not message.content.strip()


def _named(value: Any) -> str:
    return {"list": "a list", "dict": "an object"}.get(type(value).__name__, repr(value))
