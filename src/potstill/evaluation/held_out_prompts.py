"""Held-out prompts: the held-out conversations up to the last turn of the assistant, which every model writes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from potstill.data.conversations.chat_template import chat_template
from potstill.data.conversations.conversation import BadRowError, Conversation, Message
from potstill.data.conversations.render import render
from potstill.errors import UserError
from potstill.models.pretrained import ModelSource
from potstill.pipeline import artifacts
from potstill.pipeline.work import Work
from potstill.recipe.conversations import Conversations

FEWEST = 2
"""The fewest conversations that give an interval."""


@dataclass(frozen=True)
class HeldOutPrompt:
    """A held-out conversation, cut before the last turn of the assistant."""

    id: str
    conversation: Conversation
    """The whole conversation, of which the last turn of the assistant is the reference."""
    input_ids: list[int]
    """What a model reads before it writes."""
    reference: str
    """What the data has there, without special tokens."""
    reference_tokens: int
    """Its number of tokens, without the one that ends the turn."""

    @property
    def question(self) -> str:
        """The message before the last turn of the assistant."""
        return self.before[-1].content

    @property
    def before(self) -> Sequence[Message]:
        """The messages of the prompt."""
        last = max(place for place, message in enumerate(self.conversation.messages) if message.role == "assistant")
        return self.conversation.messages[:last]


def held_out_prompts(work: Work) -> list[HeldOutPrompt]:
    """The prompts that leave every model room to write, in the order of the held-out conversations.

    A prompt is left out if it has more tokens than `corpus.sequence_length`, or if it and `answers.max_new_tokens` are
    more than the positions of a teacher or of the student.

    Raises:
        UserError: fewer than two prompts are left, or a conversation cannot be rendered.
    """
    recipe = work.recipe
    held_out = artifacts.conversations(work, "held_out")[: recipe.evaluate.documents]
    longest = _longest_prompt(work)
    found = [one for one in _prompts(work, held_out) if len(one.input_ids) <= longest]
    if len(found) < FEWEST:
        raise UserError(
            f"`answers.max_new_tokens`: {len(found)} of {len(held_out):,} held-out conversations have a prompt of at "
            f"most {longest:,} tokens, after which every model has room for an answer, and an interval needs {FEWEST}; "
            "lower it, raise `corpus.sequence_length`, or hold out more"
        )
    return found


def chat_tokenizer(work: Work) -> Any:
    """The run's tokenizer with the chat template of its conversations, which decides the token that ends an answer."""
    assert isinstance(work.recipe.corpus, Conversations)
    tokenizer = artifacts.tokenizer(work)
    tokenizer.chat_template = chat_template(tokenizer, work.recipe.corpus).text
    return tokenizer


def _prompts(work: Work, held_out: list[Conversation]) -> Iterator[HeldOutPrompt]:
    corpus, tokenizer = work.recipe.corpus, artifacts.tokenizer(work)
    assert isinstance(corpus, Conversations)
    template = chat_template(tokenizer, corpus)
    settings = corpus.model_copy(update={"learn": "last", "reasoning": True, "tool_calls": True})
    for conversation in held_out:
        # A turn that the data does not teach can be written all the same.
        messages = tuple(replace(message, learn=True) for message in conversation.messages)
        try:
            (sample,) = render(replace(conversation, messages=messages), template, settings).samples
        except BadRowError:
            if corpus.on_bad_row == "refuse":
                raise
            continue
        (turn,) = sample.turns
        prompt, reference = sample.input_ids[: turn.start], sample.input_ids[turn.start : turn.stop - 1]
        text = tokenizer.decode(reference, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        yield HeldOutPrompt(conversation.where, conversation, prompt, text, len(reference))


def _longest_prompt(work: Work) -> int:
    start = ModelSource(str(work.run.path("student") / "start"), "the run's student").config()
    configs = [start, *(teacher.config() for teacher in artifacts.existing_teachers(work))]
    positions = [getattr(config.get_text_config(), "max_position_embeddings", None) for config in configs]
    room = [each - work.recipe.answers.max_new_tokens for each in positions if each is not None]
    return min(work.recipe.corpus.sequence_length, *room)
