"""Windows: the turns of a long conversation, each found in a rendering of the few messages around it.

``spans.turn_text`` renders all messages up to a turn. For many turns, that takes the square of their number. Most
templates write a turn in the same way wherever it stands. So here each turn is rendered behind the turn before it
alone, and its text must stand at its place in the whole rendering. Where it does not, there is no result.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise, takewhile

from potstill.data.conversations.chat_template import ChatTemplate, TemplateRefusedError
from potstill.data.conversations.conversation import BadRowError, Conversation, Message
from potstill.data.conversations.spans import TurnText, turn_end, turn_text
from potstill.recipe.conversations import ChatSettings

MANY = 16
"""The number of learned turns from which windows take less time."""


def turns_in_windows(
    conversation: Conversation, learned: Sequence[int], template: ChatTemplate, settings: ChatSettings
) -> list[TurnText] | None:
    """The learned turns in the text of the whole conversation, in a time that grows as the conversation does.

    They are what ``spans.turn_text`` finds, but that each has the whole text. This is proven for the text of every
    turn, and for its parts at the first turn, the second, the fourth, and so on, and at the last.

    Args:
        conversation: the conversation, which ends with a turn of the assistant.
        learned: the learned turns among its messages, by their numbers.
        template: the chat template.
        settings: which parts are learned.

    Returns:
        The turns; None if there are few of them, or if the template does not write every turn as it writes it in a
        short conversation.
    """
    if len(learned) < MANY:
        return None
    try:
        return _Windows(conversation, template, settings).turns(learned)
    except (_ElsewhereError, BadRowError, TemplateRefusedError):
        # What is wrong with a row is said where all of it is rendered.
        return None


class _ElsewhereError(Exception):
    """A turn is not written as in a short conversation."""


class _Windows:
    def __init__(self, conversation: Conversation, template: ChatTemplate, settings: ChatSettings) -> None:
        self._conversation, self._template, self._settings = conversation, template, settings
        self._messages = conversation.messages
        self._head = list(takewhile(lambda message: message.role == "system", self._messages))
        self._whole = template.render([template.message(one) for one in self._messages], conversation.tools)

    def turns(self, learned: Sequence[int]) -> list[TurnText]:
        numbers = [number for number, message in enumerate(self._messages) if message.role == "assistant"]
        wanted, found = set(learned), list[TurnText]()
        text, end = turn_end(self._up_to(numbers[0]), numbers[0], self._template)
        self._check(text[:end], 0)
        if numbers[0] in wanted:
            first = turn_text(self._up_to(numbers[0]), numbers[0], self._template, self._settings)
            found.append(replace(first, text=self._whole))
        for turn, (before, number) in enumerate(pairwise(numbers), 2):
            window, known = self._window(before, number)
            place = len(window.messages) - 1
            if number in wanted:
                one = turn_text(window, place, self._template, self._settings)
                text = one.text[: one.whole[1]]
                found.append(self._moved(one, turn, number, end - len(known)))
            else:
                whole, stop = turn_end(window, place, self._template)
                text = whole[:stop]
            if not text.startswith(known):
                raise _ElsewhereError
            end = self._check(text[len(known) :], end)
        self._check_parts(found)
        return found

    def _up_to(self, number: int) -> Conversation:
        return replace(self._conversation, messages=self._messages[: number + 1])

    def _window(self, before: int, number: int) -> tuple[Conversation, str]:
        """The conversation of the system prompt, a turn of the user, the turn before, and what follows up to the turn;
        and its text up to the end of the turn before."""
        asked = next(self._messages[at] for at in range(before, -1, -1) if self._messages[at].role == "user")
        shown: list[Message] = [*self._head, asked, *self._messages[before : number + 1]]
        window, place = replace(self._conversation, messages=tuple(shown)), len(self._head) + 1
        text, end = turn_end(replace(window, messages=window.messages[: place + 1]), place, self._template)
        return window, text[:end]

    def _check(self, text: str, place: int) -> int:
        """The place after a text that stands in the whole one."""
        if not self._whole.startswith(text, place):
            raise _ElsewhereError
        return place + len(text)

    def _moved(self, one: TurnText, turn: int, number: int, by: int) -> TurnText:
        spans = [(start + by, stop + by) for start, stop in (one.whole, *one.learned)]
        return TurnText(turn, number, self._whole, spans[0], tuple(spans[1:]), one.left_out)

    def _check_parts(self, found: Sequence[TurnText]) -> None:
        """Check the parts of some turns against those that the whole conversation up to the turn gives."""
        places = {len(found) - 1, *(2**power - 1 for power in range(len(found).bit_length()))}
        for one in (found[place] for place in sorted(places)):
            slow = turn_text(self._up_to(one.message), one.message, self._template, self._settings)
            stands = self._whole.startswith(slow.text[: slow.whole[1]])
            if not stands or replace(slow, text=self._whole) != one:
                raise _ElsewhereError
