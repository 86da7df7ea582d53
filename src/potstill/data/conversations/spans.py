"""Spans: where in the rendered text a turn of the assistant stands, and which part of it is learned.

No template needs `{% generation %}` for it. The turn begins where the prompt for it ends, and ends with the token that
the template writes after it. Its reasoning and content are found by a second rendering with marks in their place.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from potstill.data.conversations.chat_template import (
    CALL_MARK,
    CONTENT_MARK,
    REASONING_MARK,
    ChatTemplate,
    Rendered,
    TemplateRefusedError,
    shared_start,
)
from potstill.data.conversations.conversation import TOOL_CALL_TAG, BadRowError, Conversation, Message
from potstill.recipe.conversations import ChatSettings

Span = tuple[int, int]
"""The first character, and the one after the last."""


@dataclass(frozen=True)
class TurnText:
    """One turn of the assistant in the text of the conversation that ends with it."""

    turn: int
    """Its number among the turns of the assistant, from 1."""
    message: int
    """Its number among the messages, from 0."""
    text: str
    """The conversation up to this turn."""
    whole: Span
    """The turn, from the character after the prompt to the one after the token that ends it."""
    learned: tuple[Span, ...]
    """The parts that are learned, in order."""
    left_out: tuple[str, ...]
    """What of the turn the template does not show: `reasoning`, `content`, and the `tools` that it may call."""


def turn_text(conversation: Conversation, message: int, template: ChatTemplate, settings: ChatSettings) -> TurnText:
    """Find a turn of the assistant.

    Args:
        conversation: the conversation.
        message: the number of the turn among the messages.
        template: the chat template.
        settings: which parts are learned.

    Raises:
        BadRowError: the template refuses the conversation, or changes the turn so that it cannot be found.
    """
    turn = sum(one.role == "assistant" for one in conversation.messages[: message + 1])
    try:
        return _Turn(conversation, message, template).found(turn, settings)
    except TemplateRefusedError as error:
        raise BadRowError(
            conversation.where, f"the chat template refuses it ({error})", f"{template.name} refuses it ({error})"
        ) from error


def turn_end(conversation: Conversation, message: int, template: ChatTemplate) -> tuple[str, int]:
    """The text of a conversation up to a turn of the assistant, and the place after the token that ends the turn.

    Raises:
        BadRowError: the turn has no such token.
        TemplateRefusedError: the template refuses the conversation.
    """
    turn = _Turn(conversation, message, template)
    return turn.text, turn.end()


class _Turn:
    """A turn of the assistant while it is looked for."""

    def __init__(self, conversation: Conversation, message: int, template: ChatTemplate) -> None:
        self._conversation, self._number, self._template = conversation, message, template
        self._message = conversation.messages[message]
        self._before = [template.message(one) for one in conversation.messages[:message]]
        self._given = template.message(self._message)
        self.text = self._rendered([*self._before, self._given])

    def found(self, turn: int, settings: ChatSettings) -> TurnText:
        end = self.end()
        start = self._start()
        places = self._places()
        content, reasoning = places.get(CONTENT_MARK), places.get(REASONING_MARK)
        if not self._message.reasoning and self.text.startswith(self._template.empty_block, start):
            start += len(self._template.empty_block)
        self._check_calls()
        first = start
        if reasoning is not None and not settings.reasoning:
            first = content[0] if content is not None else self._calls_begin()
        learned = [(first, end)]
        if self._message.calls and not settings.tool_calls:
            learned = self._without_calls((first, end), content)
        shown = {"reasoning": reasoning is not None, "content": content is not None}
        missing = [part for part, there in shown.items() if not there and getattr(self._message, part).strip()]
        missing += ["tools"] if self._conversation.tools and not self._template.shows_tools else []
        spans = tuple(span for span in learned if span[0] < span[1])
        return TurnText(turn, self._number, self.text, (start, end), spans, tuple(missing))

    def _rendered(self, messages: Sequence[Rendered], **options: Any) -> str:
        return self._template.render(messages, self._conversation.tools, **options)

    def end(self) -> int:
        """The place after the token that ends the turn."""
        after = self._template.after_end
        text = self.text.removesuffix(after) if self.text.endswith(after) else self.text.rstrip()
        if not text.endswith(self._template.special_tokens):
            raise self._bad("ends a turn of the assistant without a special token")
        return len(text)

    def _start(self) -> int:
        """The place where the assistant begins to write: after the header, and after what else the prompt has."""
        template = self._template
        if not self._message.reasoning and template.can_stop_thinking:
            prompt = self._rendered(self._before, prompt=True, enable_thinking=False)
            if self.text.startswith(prompt):
                return len(prompt)
        prompt = self._rendered(self._before, prompt=True)
        if self.text.startswith(prompt) and not template.ignores_prompt:
            return len(prompt)
        start = len(shared_start(self.text, self._rendered(self._before)))
        return start + len(template.header) if self.text.startswith(template.header, start) else start

    def _places(self) -> Mapping[str, Span]:
        """Where the reasoning and the content stand; a part that the template leaves out has no place."""
        marked = self._template.message(self._marked())
        given = self._rendered([*self._before, marked])
        order = sorted((given.index(mark), mark) for mark in (REASONING_MARK, CONTENT_MARK) if mark in given)
        if not order:
            return {}
        pieces = [given[: order[0][0]]]
        pieces += [given[at + len(mark) : after] for (at, mark), (after, _) in pairwise([*order, (len(given), "")])]
        spans = self._between(pieces, [self._own(mark) for _, mark in order])
        return {mark: span for (_, mark), span in zip(order, spans, strict=True)}

    def _marked(self) -> Message:
        message = self._message
        return Message(
            "assistant",
            CONTENT_MARK if message.content.strip() else message.content,
            REASONING_MARK if message.reasoning.strip() else "",
            message.inline,
            message.tool_calls,
            message.name,
        )

    def _own(self, mark: str) -> str:
        return (self._message.content if mark == CONTENT_MARK else self._message.reasoning).strip()

    def _between(self, pieces: Sequence[str], own: Sequence[str]) -> list[Span]:
        """The spans between pieces of the text that must be the message's own parts, but for the space around them."""
        text, start, stop = self.text, len(pieces[0]), len(self.text) - len(pieces[-1])
        if text.startswith(pieces[0]) and text.endswith(pieces[-1]) and start <= stop:
            if len(own) == 1 and text[start:stop].strip() == own[0]:
                return [(start, stop)]
            at = text.find(pieces[1], start, stop) if len(own) == 2 else -1
            while at >= 0:
                after = at + len(pieces[1])
                if text[start:at].strip() == own[0] and text[after:stop].strip() == own[1]:
                    return [(start, at), (after, stop)]
                at = text.find(pieces[1], at + 1, stop)
        raise self._bad("changes the text of a turn of the assistant, so that what is learned cannot be found")

    def _check_calls(self) -> None:
        """Refuse a turn whose calls are not shown. Their names prove nothing: the turn may also speak of the tool."""
        names = [f"{CALL_MARK}{number}" for number in range(len(self._message.tool_calls))]
        calls = (replace(call, name=name) for call, name in zip(self._message.tool_calls, names, strict=True))
        marked = replace(self._message, tool_calls=tuple(calls))
        text = self._rendered([*self._before, self._template.message(marked)]) if names else ""
        if not all(name in text for name in names):
            raise self._bad("leaves out a tool call of the assistant")

    def _without_calls(self, turn: Span, content: Span | None) -> list[Span]:
        """The parts of a turn that are no tool calls; the token that ends the calls belongs to them."""
        if content is not None and (written := self.text.find(TOOL_CALL_TAG, *content)) >= 0:
            return [(turn[0], written)]
        begin = self._calls_begin()
        if content is None:
            return [(turn[0], begin)]
        return [(turn[0], content[1])] if begin > content[0] else [(turn[0], begin), (content[0], turn[1])]

    def _calls_begin(self) -> int:
        """The place up to which the turn is the same without its tool calls."""
        silent = {key: value for key, value in self._given.items() if key != "tool_calls"}
        text = self._rendered([*self._before, silent])
        end = len(text.removesuffix(self._template.after_end))
        # The token that ends the turn may begin as a tool call does.
        ends = max((len(token) for token in self._template.special_tokens if text.endswith(token, 0, end)), default=0)
        return min(len(shared_start(self.text, text)), end - ends)

    def _bad(self, what: str) -> BadRowError:
        return BadRowError(self._conversation.where, f"the chat template {what}", f"{self._template.name} {what}")
