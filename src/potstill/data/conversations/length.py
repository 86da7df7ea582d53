"""Length: what becomes of a conversation that is longer than a sample may be."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import takewhile

from potstill.data.conversations.chat_template import CONTENT_MARK, ChatTemplate, TemplateRefusedError
from potstill.data.conversations.conversation import Conversation, Message, NothingLearnedError
from potstill.data.conversations.render import ChatSample, RenderedConversation, TurnTokens, learned_turns, render
from potstill.data.labels import IGNORE_INDEX
from potstill.recipe.conversations import ChatSettings


def fitting_samples(
    conversation: Conversation, rendered: RenderedConversation, template: ChatTemplate, settings: ChatSettings
) -> list[ChatSample]:
    """The samples of a conversation, of at most `sequence_length` tokens and with at least one supervised token each.

    Args:
        conversation: the conversation.
        rendered: its samples, whatever their length.
        template: the chat template.
        settings: the greatest length, and what happens to longer samples.

    Raises:
        BadRowError: a part of the conversation cannot be rendered.
    """
    longest = settings.sequence_length
    if settings.too_long == "split_turns" and any(len(sample.input_ids) > longest for sample in rendered.samples):
        return [sample for sample in _pieces(conversation, template, settings) if sample.supervised]
    samples = list(rendered.samples)
    if settings.too_long == "cut_right":
        samples = [_part(sample, 0, longest) for sample in samples]
    elif settings.too_long == "cut_left" and any(len(sample.input_ids) > longest for sample in samples):
        system = _system_tokens(conversation, template)
        samples = [_without_the_first(sample, system, longest) for sample in samples]
    return [sample for sample in samples if len(sample.input_ids) <= longest and sample.supervised]


def _part(sample: ChatSample, start: int, stop: int) -> ChatSample:
    """The tokens of a sample from one place to another."""
    inside = [turn for turn in sample.turns if turn.start < stop and turn.stop > start]
    turns = [TurnTokens(one.turn, max(one.start - start, 0), min(one.stop, stop) - start) for one in inside]
    return replace(sample, input_ids=sample.input_ids[start:stop], labels=sample.labels[start:stop], turns=tuple(turns))


def _without_the_first(sample: ChatSample, system: int, longest: int) -> ChatSample:
    """A sample that has lost its first tokens after those of the system prompt."""
    if len(sample.input_ids) <= longest:
        return sample
    # A system prompt that leaves little room is cut too.
    system = system if 2 * system <= longest else 0
    rest = _part(sample, len(sample.input_ids) - longest + system, len(sample.input_ids))
    # The token after the cut does not follow the one before it.
    labels = [IGNORE_INDEX] * (system + 1) + rest.labels[1:]
    turns = tuple(TurnTokens(one.turn, one.start + system, one.stop + system) for one in rest.turns)
    return replace(sample, input_ids=sample.input_ids[:system] + rest.input_ids, labels=labels, turns=turns)


def _system_tokens(conversation: Conversation, template: ChatTemplate) -> int:
    """The number of tokens of the system prompt; 0 where the template puts it into the first user's turn."""
    head = _head(conversation)
    marked = [*(template.message(message) for message in head), {"role": "user", "content": CONTENT_MARK}]
    try:
        before, mark, _ = template.render(marked, conversation.tools).partition(CONTENT_MARK)
    except TemplateRefusedError:
        return 0
    system, end, after = before.rpartition(template.end_token)
    if not mark or not end:
        return 0
    space = "".join(takewhile(str.isspace, after))
    return len(template.tokenizer(system + end + space, add_special_tokens=False, verbose=False)["input_ids"])


def _pieces(conversation: Conversation, template: ChatTemplate, settings: ChatSettings) -> Iterator[ChatSample]:
    """The samples of the parts of a conversation, each as long as can be: the system prompt, and whole exchanges."""
    learned = set(learned_turns(conversation, settings))
    messages = [replace(one, learn=number in learned) for number, one in enumerate(conversation.messages)]
    head, exchanges = _head(conversation), _exchanges(messages[len(_head(conversation)) :])
    every = settings.model_copy(update={"learn": "all"})

    def fitting(start: int, stop: int) -> list[ChatSample] | None:
        """The samples of some exchanges; None if one of them is too long."""
        part = [message for exchange in exchanges[start:stop] for message in exchange]
        found = _samples(replace(conversation, messages=(*head, *part)), template, every)
        return None if any(len(sample.input_ids) > settings.sequence_length for sample in found) else found

    first_turn, start = 0, 0
    while start < len(exchanges):
        stop, held = _longest_part(fitting, start, len(exchanges))
        yield from (_counted_from(sample, first_turn) for sample in held)
        done = max(stop, start + 1)
        first_turn += sum(one.role == "assistant" for exchange in exchanges[start:done] for one in exchange)
        start = done


def _longest_part(
    fitting: Callable[[int, int], list[ChatSample] | None], start: int, end: int
) -> tuple[int, list[ChatSample]]:
    """Where the longest part that fits stops, and its samples. It is found in few steps: twice as many exchanges each
    time, and then between the last two."""
    stop, held, step, too_many = start, list[ChatSample](), 1, end + 1
    while stop + 1 < too_many:
        tried = min(stop + step, end) if too_many > end else (stop + too_many) // 2
        found = fitting(start, tried)
        if found is None:
            too_many = tried
        else:
            stop, held, step = tried, found, 2 * step
    return stop, held


def _samples(conversation: Conversation, template: ChatTemplate, settings: ChatSettings) -> list[ChatSample]:
    try:
        return list(render(conversation, template, settings).samples)
    except NothingLearnedError:
        return []


def _counted_from(sample: ChatSample, before: int) -> ChatSample:
    """A sample of a part of a conversation, whose turns have the numbers that they have in the whole of it."""
    return replace(sample, turns=tuple(replace(turn, turn=turn.turn + before) for turn in sample.turns))


def _head(conversation: Conversation) -> list[Message]:
    return list(takewhile(lambda message: message.role == "system", conversation.messages))


def _exchanges(messages: Sequence[Message]) -> list[list[Message]]:
    """The messages in groups that each begin with a user's turn."""
    found: list[list[Message]] = []
    for message in messages:
        if message.role == "user" or not found:
            found.append([])
        found[-1].append(message)
    return found
