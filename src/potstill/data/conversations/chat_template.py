"""Chat template: renders messages as text, and knows by trial what a template does with a turn of the assistant."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from potstill.data.conversations.conversation import Message, as_call
from potstill.errors import UserError, first_line
from potstill.files.named_files import named_path
from potstill.limits import limited
from potstill.recipe.conversations import ChatSettings
from potstill.recipe.strategies import MOST_MEMORY, MOST_SECONDS

REASONING_MARK, CONTENT_MARK = "\ue0b1\ue0a7\ue0b1", "\ue0b2\ue0a7\ue0b2"
"""Characters for private use, which stand for a turn's reasoning and content where their places are looked for."""

CALL_MARK = "qzxvkjqzxv"
"""A name that no tool has, of plain letters, because some templates write others as escapes."""

TODAY = re.compile(r"strftime_now\(\s*(?P<quote>['\"])(?P<format>.*?)(?P=quote)\s*\)")
"""How a template asks for today's date."""

Rendered = Mapping[str, Any]
"""A message as chat templates take it."""

_NO_PARAMETERS = {"type": "object", "properties": {}, "required": []}
ASKED: Rendered = {"role": "user", "content": "Why?"}


class TemplateRefusedError(Exception):
    """A chat template refuses a conversation, or fails."""


@dataclass(frozen=True)
class ChatTemplate:
    """A chat template with the values of its variables.

    Args:
        tokenizer: the tokenizer whose special tokens the template writes.
        text: the Jinja template. It prints one date, whatever day it is.
        tool_text: the template for conversations with tools, where the tokenizer has one of its own for them.
        kwargs: the values of the template's own variables.
        name: names it in messages.
    """

    tokenizer: Any
    text: str
    tool_text: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    name: str = "the tokenizer's chat template"

    def render(
        self, messages: Sequence[Rendered], tools: Sequence[Mapping[str, Any]] = (), prompt: bool = False, **kwargs: Any
    ) -> str:
        """The text of messages.

        Args:
            messages: as :meth:`message` gives them.
            tools: JSON schemas.
            prompt: whether the text ends where the assistant begins to write its next turn.
            kwargs: values of the template's variables in place of this template's own.

        Raises:
            TemplateRefusedError: the template refuses the messages, or fails.
        """
        try:
            with limited(MOST_SECONDS, MOST_MEMORY):
                return self.tokenizer.apply_chat_template(
                    list(messages),
                    tools=list(tools) or None,
                    chat_template=self.tool_text if tools else self.text,
                    add_generation_prompt=prompt,
                    tokenize=False,
                    **{**self.kwargs, **kwargs},
                )
        except Exception as error:  # a template can raise any exception
            raise TemplateRefusedError(first_line(error)) from error

    def message(self, message: Message) -> dict[str, Any]:
        """A message as this template takes it: where it shows no reasoning of its own, as a part of the content."""
        reasoning, content = message.reasoning, message.content
        given: dict[str, Any] = {"role": message.role, "content": content}
        if reasoning and self.reasoning == "field":
            # A template strips the space around reasoning that it finds in the content, and so does this.
            if message.inline:
                reasoning, given["content"] = reasoning.strip("\n"), content.lstrip("\n")
            given["reasoning_content"] = reasoning
        elif reasoning and self.reasoning == "inline":
            given["content"] = (
                f"<think>{reasoning}</think>{content}" if message.inline else _thought(reasoning, content)
            )
        if message.tool_calls:
            given["tool_calls"] = [as_call(call, self.arguments_as_text) for call in message.tool_calls]
        given |= {key: value for key in ("name", "tool_call_id") if (value := getattr(message, key)) is not None}
        return given

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of the template's text and of the values of its variables."""
        content = [self.text, self.tool_text, self.kwargs]
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()

    @cached_property
    def reasoning(self) -> Literal["field", "inline", "none"]:
        """Where the last turn's reasoning is shown: from its own field, as a part of the content, or not at all."""
        answer = {"role": "assistant", "content": CONTENT_MARK, "reasoning_content": REASONING_MARK}
        if REASONING_MARK in self._tried([ASKED, answer]):
            return "field"
        answer = {"role": "assistant", "content": _thought(REASONING_MARK, CONTENT_MARK)}
        return "inline" if REASONING_MARK in self._tried([ASKED, answer]) else "none"

    @cached_property
    def shows_tools(self) -> bool:
        """Whether a conversation's tools stand in its text."""
        tool = {"type": "function", "function": {"name": CALL_MARK, "description": "", "parameters": _NO_PARAMETERS}}
        try:
            return CALL_MARK in self.render([ASKED, {"role": "assistant", "content": CONTENT_MARK}], [tool])
        except TemplateRefusedError:
            return False

    @cached_property
    def arguments_as_text(self) -> bool:
        """Whether the template needs the arguments of a tool call as a text of JSON."""
        for as_text in (False, True):
            function = {"name": "f", "arguments": '{"a": 1}' if as_text else {"a": 1}}
            call = {"id": "abcdefghi", "type": "function", "function": function}
            try:
                self.render([ASKED, {"role": "assistant", "content": "", "tool_calls": [call]}])
            except TemplateRefusedError:
                continue
            return as_text
        return False

    @cached_property
    def can_stop_thinking(self) -> bool:
        """Whether `enable_thinking: false` changes the prompt, as in Qwen 3, whose prompt then has an empty block."""
        return self.render([ASKED], prompt=True) != self.render([ASKED], prompt=True, enable_thinking=False)

    @cached_property
    def ignores_prompt(self) -> bool:
        """Whether the template never writes the header of the turn that comes next."""
        return self.render([ASKED], prompt=True) == self.render([ASKED])

    @cached_property
    def header(self) -> str:
        """The text between the messages before a turn of the assistant and its content; empty if it is only space."""
        plain, before = self._answer, self.render([ASKED])
        lead = plain[len(shared_start(plain, before)) : plain.index(CONTENT_MARK)]
        answer = {"role": "assistant", "content": CONTENT_MARK, "reasoning_content": REASONING_MARK}
        thoughtful = self.render([ASKED, answer])
        lead = shared_start(lead, thoughtful[len(shared_start(thoughtful, before)) :])
        return lead if lead.strip() else ""

    @cached_property
    def after_end(self) -> str:
        """What the template writes after the token that ends a turn of the assistant, at the end of a conversation.

        Raises:
            UserError: it writes no such token.
        """
        tail = self._answer.rpartition(CONTENT_MARK)[2]
        # What stays if another turn follows is the turn's own: some templates end the whole text with one more token.
        followed = self._tried([ASKED, {"role": "assistant", "content": CONTENT_MARK}, ASKED])
        shared = shared_start(tail, followed.rpartition(CONTENT_MARK)[2])
        stops = [shared.rfind(token) + len(token) for token in self.special_tokens if token in shared]
        first = sorted((tail.index(token), token) for token in self.special_tokens if token in tail)
        if not first:
            written = f"with {tail!r}" if tail.strip() else "with nothing"
            raise UserError(
                f"{self.name} ends a turn {written}, which is no special token of the tokenizer, so a student would "
                "never learn to stop; give `corpus.template: plain`, or a template of tokens that the tokenizer has"
            )
        return tail[max(stops, default=first[0][0] + len(first[0][1])) :]

    @cached_property
    def end_token(self) -> str:
        """The token that ends a turn of the assistant."""
        whole = self._answer.removesuffix(self.after_end)
        return max((token for token in self.special_tokens if whole.endswith(token)), key=len)

    @cached_property
    def empty_block(self) -> str:
        """What the template writes between the prompt and an answer without reasoning, if it is a block of reasoning
        with nothing in it; or else empty."""
        if self.reasoning != "field":
            return ""
        answer = {"role": "assistant", "content": CONTENT_MARK, "reasoning_content": REASONING_MARK}
        prompt, thoughtful = self.render([ASKED], prompt=True), self.render([ASKED, answer])
        if not self._answer.startswith(prompt) or not thoughtful.startswith(prompt):
            return ""
        lead = self._answer[len(prompt) : self._answer.index(CONTENT_MARK)]
        block = thoughtful[len(prompt) :].partition(CONTENT_MARK)[0].replace(REASONING_MARK, "")
        return lead if lead.strip() and "".join(lead.split()) == "".join(block.split()) else ""

    @cached_property
    def special_tokens(self) -> tuple[str, ...]:
        """The tokenizer's special tokens."""
        added = self.tokenizer.added_tokens_decoder.values()
        return tuple(sorted({token.content for token in added if token.special and token.content}))

    @cached_property
    def control_tokens(self) -> tuple[str, ...]:
        """The special tokens that the template itself writes."""
        text = self._answer + self._tried([ASKED], prompt=True)
        return tuple(token for token in self.special_tokens if token in text)

    @cached_property
    def _answer(self) -> str:
        try:
            text = self.render([ASKED, {"role": "assistant", "content": CONTENT_MARK}])
        except TemplateRefusedError as error:
            raise UserError(f"{self.name} cannot render a question and its answer ({error}); give another") from error
        if CONTENT_MARK not in text:
            raise UserError(f"{self.name} leaves the assistant's answer out; give another `corpus.template`")
        return text

    def _tried(self, messages: Sequence[Rendered], prompt: bool = False) -> str:
        try:
            return self.render(messages, prompt=prompt)
        except TemplateRefusedError:
            return ""


def shared_start(one: str, other: str) -> str:
    """The characters with which both texts begin."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return one[:low]


def _thought(reasoning: str, content: str) -> str:
    return f"<think>\n{reasoning}\n</think>\n\n{content}"


def chat_template(tokenizer: Any, settings: ChatSettings) -> ChatTemplate:
    """The chat template that the recipe names, or else the tokenizer's own.

    Raises:
        UserError: there is none, or it cannot be read or used.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise UserError(
            "conversations need a fast tokenizer, which says where each token stands in the text; give the model a "
            "tokenizer.json"
        )
    if settings.template is not None:
        text, name = _named(settings.template), f"`corpus.template: {settings.template}`"
        tool_text = text
    else:
        text, tool_text, name = *_own(tokenizer), "the tokenizer's chat template"
    pinned = [_pinned(each, date.fromisoformat(settings.date), name) for each in (text, tool_text)]
    made = ChatTemplate(tokenizer, pinned[0], pinned[1], settings.template_kwargs, name)
    # What it cannot do is said before any row is read.
    assert made.end_token
    return made


def template_names() -> list[str]:
    """The names of the templates that ship."""
    files = resources.files("potstill.data.conversations").joinpath("templates").iterdir()
    return sorted(Path(file.name).stem for file in files)


def _named(name: str) -> str:
    if name in template_names():
        shipped = resources.files("potstill.data.conversations").joinpath("templates", f"{name}.jinja")
        return shipped.read_text(encoding="utf-8")
    file = named_path(name)
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"`corpus.template`: {name!r} is neither {', '.join(template_names())} nor a file that can be read "
            f"({first_line(error)}); give one of them"
        ) from error


def _own(tokenizer: Any) -> tuple[str, str]:
    if not tokenizer.chat_template:
        raise UserError(
            f"the tokenizer has no chat template; name one in `corpus.template`: {', '.join(template_names())}, or a "
            "file"
        )
    try:
        return tokenizer.get_chat_template(), tokenizer.get_chat_template(tools=[{}])
    except ValueError as error:
        raise UserError(
            f"the tokenizer has several chat templates and none is its default ({first_line(error)}); name a file in "
            "`corpus.template`"
        ) from error


def _pinned(text: str, day: date, name: str) -> str:
    """A template that prints one date in place of today's."""
    pinned = TODAY.sub(lambda found: json.dumps(day.strftime(found["format"])), text)
    if "strftime_now(" in pinned:
        raise UserError(f"{name} prints a date in a format that it computes, which cannot be pinned; give another")
    return pinned
