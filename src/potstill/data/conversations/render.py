"""Render: a conversation becomes the tokens that a model reads and the labels that it learns.

The whole conversation is rendered once and tokenized once, as ``apply_chat_template(tokenize=True)`` does. A template
that shows earlier turns in another way once there are later ones, such as one that drops their reasoning, gives one
sample for each turn: the conversation up to it. That is what a model reads when it writes the turn.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from potstill.data.conversations.chat_template import ChatTemplate, TemplateRefusedError
from potstill.data.conversations.conversation import BadRowError, Conversation, NothingLearnedError
from potstill.data.conversations.spans import Span, TurnText, turn_text
from potstill.data.conversations.windows import turns_in_windows
from potstill.data.labels import IGNORE_INDEX
from potstill.data.row_teachers import Teachers
from potstill.recipe.conversations import ChatSettings


@dataclass(frozen=True)
class TurnTokens:
    """The tokens of one learned turn in a sample."""

    turn: int
    """Its number among the turns of the assistant in its conversation, from 1."""
    start: int
    """The place of its first token: the tokens before it are the prompt for it."""
    stop: int
    """The place after the token that ends it."""


@dataclass(frozen=True)
class ChatSample:
    """A sample of a conversation."""

    input_ids: list[int]
    labels: list[int]
    """The tokens that are learned, at their places in `input_ids`; the others are ignored."""
    turns: tuple[TurnTokens, ...]
    """The learned turns that it holds."""
    where: str
    """The row of the conversation."""
    source: str
    """The file or the data set's configuration."""
    teachers: Teachers | None = None
    """The teachers of the conversation; None where rows have none of their own."""

    @property
    def supervised(self) -> int:
        """The number of supervised tokens."""
        return sum(label != IGNORE_INDEX for label in self.labels[1:])


@dataclass(frozen=True)
class RenderedConversation:
    """The samples of a conversation."""

    samples: tuple[ChatSample, ...]
    rewritten: bool
    """Whether the template rewrites earlier turns, so that each turn has a sample of its own."""
    left_out: tuple[str, ...]
    """What the template leaves out of the learned turns: `reasoning`, `content`, `tools`; once for each turn."""


def render(
    conversation: Conversation, template: ChatTemplate, settings: ChatSettings, apart: bool = False
) -> RenderedConversation:
    """The samples of a conversation, whatever their length. What follows the last turn of the assistant is left out.

    Args:
        conversation: the conversation.
        template: the chat template.
        settings: what is learned.
        apart: whether each turn has a sample of its own in any case.

    Raises:
        BadRowError: the template refuses the conversation or changes a turn, or a text holds a token of the template.
        NothingLearnedError: no turn is learned.
    """
    _check_texts(conversation, template)
    last = max(number for number, message in enumerate(conversation.messages) if message.role == "assistant")
    conversation = replace(conversation, messages=conversation.messages[: last + 1])
    numbers = learned_turns(conversation, settings)
    found = None if apart else turns_in_windows(conversation, numbers, template, settings)
    if found is None:
        found = [turn_text(conversation, number, template, settings) for number in numbers]
    turns = [turn for turn in found if turn.learned]
    if not turns:
        raise NothingLearnedError(conversation.where, "has no turn that is learned")
    whole = turns[-1].text if turns[-1].message == last else _whole_text(conversation, template)
    rewritten = any(turn.text is not whole and not whole.startswith(turn.text[: turn.whole[1]]) for turn in turns)
    groups = [(turn.text, [turn]) for turn in turns] if rewritten or apart else [(whole, turns)]
    samples = [_sample(conversation, text, held, template.tokenizer) for text, held in groups]
    return RenderedConversation(tuple(samples), rewritten, tuple(part for turn in turns for part in turn.left_out))


def learned_turns(conversation: Conversation, settings: ChatSettings) -> list[int]:
    """The messages that are learned, by their numbers."""
    turns = [number for number, message in enumerate(conversation.messages) if message.role == "assistant"]
    turns = turns[-1:] if settings.learn == "last" else turns
    return [number for number in turns if conversation.messages[number].learn]


def _check_texts(conversation: Conversation, template: ChatTemplate) -> None:
    for message in conversation.messages:
        for token in template.control_tokens:
            if any(token in text for text in message.texts):
                raise BadRowError(
                    conversation.where,
                    "a text holds a special token of the chat template",
                    f"a turn of the {message.role} holds {token!r}, which the chat template writes itself",
                )


def _whole_text(conversation: Conversation, template: ChatTemplate) -> str:
    messages = [template.message(message) for message in conversation.messages]
    try:
        return template.render(messages, conversation.tools)
    except TemplateRefusedError as error:
        raise BadRowError(conversation.where, f"the chat template refuses it ({error})") from error


def _sample(conversation: Conversation, text: str, turns: Sequence[TurnText], tokenizer: Any) -> ChatSample:
    ids, tokens = _tokens(tokenizer, text)
    labels = [IGNORE_INDEX] * len(ids)
    found = []
    for turn in turns:
        for place in (place for part in turn.learned for place in tokens.within(part)):
            labels[place] = ids[place]
        whole = tokens.within(turn.whole)
        found.append(TurnTokens(turn.turn, whole[0], whole[-1] + 1))
    return ChatSample(ids, labels, tuple(found), conversation.where, conversation.source, conversation.teachers)


class _TextTokens:
    """The characters of each token of a text.

    Args:
        text: the text.
        spans: the characters of each token.
    """

    def __init__(self, text: str, spans: Sequence[Span]) -> None:
        self._text, self._spans = text, spans
        self._order = sorted(range(len(spans)), key=lambda place: spans[place][0])
        self._starts = [spans[place][0] for place in self._order]

    def within(self, part: Span) -> list[int]:
        """The tokens of a part of the text.

        A token that begins before it is none of them: no model can write it where the part begins. A token that ends
        after it with space alone is one of them, because some special tokens include the space that follows.
        """
        start, stop = part
        inside = sorted(self._order[bisect_left(self._starts, start) : bisect_left(self._starts, stop)])
        return [place for place in inside if not self._text[stop : self._spans[place][1]].strip()]


def _tokens(tokenizer: Any, text: str) -> tuple[list[int], _TextTokens]:
    """The tokens of a text, and the characters of each."""
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    spans, end = [], 0
    for start, stop in found["offset_mapping"]:
        # Some tokenizers say of a token of space that it has no characters.
        spans.append((start if start < stop else min(end, start), stop))
        end = max(end, stop)
    return list(found["input_ids"]), _TextTokens(text, spans)
