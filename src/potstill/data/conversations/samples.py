"""Samples: the one way from conversations to samples, for the stage and for ``DistilTrainer``."""

from collections.abc import Iterable, Iterator
from typing import Any

from potstill.data.conversations.chat_template import ChatTemplate, chat_template
from potstill.data.conversations.conversation import BadRowError, Conversation, NothingLearnedError
from potstill.data.conversations.length import fitting_samples
from potstill.data.conversations.render import ChatSample, render
from potstill.data.conversations.tally import ChatTally, Outcome
from potstill.recipe.conversations import ChatSettings


def samples(
    conversations: Iterable[Conversation], tokenizer: Any, settings: ChatSettings, tally: ChatTally | None = None
) -> Iterator[ChatSample]:
    """The samples of conversations, in their order.

    Args:
        conversations: the conversations.
        tokenizer: the tokenizer, with its chat template.
        settings: what is learned, how it is rendered, and what is too long.
        tally: counts what becomes of each conversation.

    Raises:
        UserError: the chat template cannot be used. While the samples are read, unless `on_bad_row` is `drop`: a
            conversation cannot be rendered.
    """
    template = chat_template(tokenizer, settings)
    tally = ChatTally() if tally is None else tally
    tally.template_digest = template.digest
    return _samples(conversations, template, settings, tally)


def _samples(
    conversations: Iterable[Conversation], template: ChatTemplate, settings: ChatSettings, tally: ChatTally
) -> Iterator[ChatSample]:
    for conversation in conversations:
        try:
            yield from samples_of(conversation, template, settings, tally)
        except BadRowError as error:
            if settings.on_bad_row == "refuse" and not isinstance(error, NothingLearnedError):
                raise
            tally.drop(conversation.source, error.reason)


def samples_of(
    conversation: Conversation, template: ChatTemplate, settings: ChatSettings, tally: ChatTally
) -> list[ChatSample]:
    """The samples of one conversation; none if it is too long, which `tally` counts.

    Raises:
        BadRowError: it cannot be rendered, or no turn is learned.
    """
    rendered = render(conversation, template, settings)
    found = fitting_samples(conversation, rendered, template, settings)
    counts = tally.of(conversation.source)
    counts.turns_in_all += sum(message.role == "assistant" for message in conversation.messages)
    if not found:
        longest = max(len(sample.input_ids) for sample in rendered.samples)
        long = longest > settings.sequence_length
        reason = f"longer than {settings.sequence_length:,} tokens" if long else "no token of it is learned"
        tally.drop(conversation.source, reason)
        return []
    counts.rewritten += rendered.rewritten
    counts.left_out.update(rendered.left_out)
    outcome: Outcome = "whole" if found == list(rendered.samples) else "cut"
    if settings.too_long == "split_turns" and outcome == "cut":
        outcome = "split"
    tally.keep(conversation, outcome, found)
    return found
