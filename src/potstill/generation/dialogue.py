"""Dialogue: a conversation between a person and a model, and the ways in which models are asked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from potstill.data.conversations.align import as_teachers_read
from potstill.data.conversations.chat_template import ChatTemplate, TemplateRefusedError
from potstill.data.conversations.conversation import Conversation, Message
from potstill.data.conversations.parts import message_of
from potstill.data.conversations.prompt import turn_prompt_ids
from potstill.data.prompts.render import prompt_ids, token_ids
from potstill.errors import UserError
from potstill.generation.decoding import Decoding, Request
from potstill.generation.generate import NamedModel, Response, streamed_response
from potstill.models.size import positions_of
from potstill.recipe.conversations import TeacherReading
from potstill.recipe.section import MOST_AT_ONCE
from potstill.recipe.strategies import Prompt


@dataclass(frozen=True)
class Asking:
    """A way in which a model is asked: what a person says becomes the tokens that the model reads."""

    prompt_ids: Callable[[Sequence[Message]], list[int]]
    """The prompt of a conversation so far, whose last turn is the person's."""
    remembers: bool
    """Whether the prompt holds earlier turns."""
    about: str | None = None
    """What a person should know of it."""


def by_chat_template(template: ChatTemplate, reading: TeacherReading | None = None) -> Asking:
    """The whole conversation, through a chat template, with the words that a teacher reads."""

    def ids(messages: Sequence[Message]) -> list[int]:
        said = Conversation(tuple(messages))
        shown = said if reading is None else as_teachers_read(said, reading)
        try:
            return turn_prompt_ids(shown.messages, template)
        except TemplateRefusedError as error:
            raise UserError(
                f"{template.name} refuses the conversation ({error}); leave the system prompt out"
            ) from None

    return Asking(ids, remembers=True)


def by_question(tokenizer: Any, prompt: Prompt, key: str) -> Asking:
    """One question, in a prompt of the recipe. Its system prompt is the recipe's.

    Args:
        tokenizer: the models' tokenizer.
        prompt: the prompt of the students.
        key: the prompt's key in the recipe, for messages.
    """

    def ids(messages: Sequence[Message]) -> list[int]:
        return prompt_ids(tokenizer, prompt, {"question": messages[-1].content}, "your question", key)

    return Asking(ids, remembers=False, about=f"each question stands alone, in the prompt of `{key}`")


def by_text(tokenizer: Any) -> Asking:
    """One text that the model continues."""
    start = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id

    def ids(messages: Sequence[Message]) -> list[int]:
        return [*([] if start is None else [start]), *token_ids(tokenizer, messages[-1].content)]

    about = "there is no chat template, so models continue what you write; each text stands alone"
    return Asking(ids, remembers=False, about=about)


class Dialogue:
    """A conversation with one model.

    Args:
        asking: how the model is asked.
        system: the system prompt.
    """

    def __init__(self, asking: Asking, system: str | None = None) -> None:
        self._asking = asking
        self._head = [] if system is None else [Message("system", system)]
        self.messages: list[Message] = list(self._head)

    def reset(self) -> None:
        """Forget what was said."""
        self.messages = list(self._head)

    def ask(self, said: str, asked: NamedModel, decoding: Decoding, show: Callable[[str], None]) -> Response:
        """Let the model answer, and remember what was said. After an error or a stop, nothing of it is remembered.

        Args:
            said: the turn of the person.
            asked: the model.
            decoding: how it answers; the limit of tokens is lower where the model has less room.
            show: gets the answer piece by piece.

        Raises:
            UserError: the conversation cannot be rendered, or fills all positions of the model.
        """
        messages = [*self.messages, Message("user", said)]
        ids = self._asking.prompt_ids(messages)
        limit = min(decoding.max_new_tokens, _room(asked, ids))
        request = Request(f"turn {len(messages)}", ids)
        answer = streamed_response(asked, request, replace(decoding, max_new_tokens=limit), show)
        if self._asking.remembers:
            given = {"role": "assistant", "content": answer.response}
            self.messages = [*messages, message_of(given, ("role", "content"), {}, "the answer")]
        return answer


def _room(asked: NamedModel, ids: list[int]) -> int:
    positions = positions_of(asked.model.config.get_text_config())
    if positions is None:
        return MOST_AT_ONCE
    if len(ids) >= positions:
        raise UserError(
            f"the conversation has {len(ids):,} tokens, and {asked.name} has only {positions:,} positions; begin a new "
            "one with `/reset`, or write less"
        )
    return positions - len(ids)
