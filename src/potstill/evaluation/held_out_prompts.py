"""Held-out prompts: the held-out conversations up to the last turn of the assistant, which every model writes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from potstill.data.conversations.align import as_teachers_read
from potstill.data.conversations.chat_template import ChatTemplate, chat_template
from potstill.data.conversations.conversation import BadRowError, Conversation, Message
from potstill.data.conversations.render import render
from potstill.data.conversations.training_rows import teacher_template
from potstill.errors import UserError
from potstill.models.pretrained import ModelSource
from potstill.pipeline import artifacts
from potstill.pipeline.work import Work
from potstill.recipe.across_tokenizers import crossing_loss
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
    """What students read before they write."""
    teacher_input_ids: Mapping[str | None, list[int]]
    """What teachers read before they write, by name: what students read, unless the recipe lets them read something
    else, under None for all teachers; of teachers of other tokenizers, under their names."""
    reference: str
    """What the data has there, without special tokens."""
    reference_tokens: int
    """Its number of tokens, without the one that ends the turn."""

    def read_by(self, teacher: str) -> list[int]:
        """What a teacher reads before it writes."""
        return self.teacher_input_ids.get(teacher) or self.teacher_input_ids[None]

    @property
    def before(self) -> Sequence[Message]:
        """The messages of the prompt."""
        last = max(place for place, message in enumerate(self.conversation.messages) if message.role == "assistant")
        return self.conversation.messages[:last]


def held_out_prompts(work: Work) -> list[HeldOutPrompt]:
    """The prompts that leave every model room to write, in the order of the held-out conversations.

    A prompt is left out if it is longer than a sample may be, or if it and `answers.max_new_tokens` are more than the
    positions of a teacher or of the student.

    Raises:
        UserError: fewer than two prompts are left, or a conversation cannot be rendered.
    """
    recipe = work.recipe
    corpus = recipe.corpus
    assert isinstance(corpus, Conversations)
    held_out = list(artifacts.conversations(work, "held_out").items())[: recipe.evaluate.documents]
    room = _room(work)
    longest = min(corpus.sequence_length, *room)
    theirs = None if corpus.teacher is None else corpus.teacher.sequence_length
    longest_of_teachers = longest if theirs is None else min(theirs, *room)
    found = [
        one
        for one in _prompts(artifacts.tokenizer(work), _other_templates(work, corpus), held_out, corpus)
        if len(one.input_ids) <= longest
        and all(len(read) <= longest_of_teachers for read in one.teacher_input_ids.values())
    ]
    if len(found) < FEWEST:
        raise UserError(
            f"`answers.max_new_tokens`: {len(found)} of {len(held_out):,} held-out conversations have a prompt of at "
            f"most {longest:,} tokens, after which every model has room for an answer, and an interval needs {FEWEST}; "
            "lower it, raise `corpus.sequence_length`, or hold out more"
        )
    return found


def _other_templates(work: Work, corpus: Conversations) -> dict[str, ChatTemplate]:
    """The chat templates of teachers of other tokenizers, by name; none where all models have one tokenizer."""
    if crossing_loss(work.recipe) is None:
        return {}
    own = corpus.model_copy(update={"template": None})
    return {teacher.name: chat_template(teacher.tokenizer(), own) for teacher in artifacts.existing_teachers(work)}


def _prompts(
    tokenizer: Any,
    others: Mapping[str, ChatTemplate],
    held_out: Sequence[tuple[str, Conversation]],
    corpus: Conversations,
) -> Iterator[HeldOutPrompt]:
    ours = chat_template(tokenizer, corpus)
    # A teacher that has read the answer would only repeat it.
    reading = None if corpus.teacher is None else corpus.teacher.without_answers()
    theirs = None if reading is None else teacher_template(tokenizer, corpus)
    for name, conversation in held_out:
        try:
            prompt, reference = _cut(conversation, ours, corpus)
            asked: dict[str | None, list[int]] = {None: prompt}
            if others:
                asked = {teacher: _cut(conversation, one, corpus)[0] for teacher, one in others.items()}
            if reading is not None and theirs is not None:
                asked = {None: _cut(as_teachers_read(conversation, reading), theirs, corpus)[0]}
        except BadRowError:
            if corpus.on_bad_row == "refuse":
                raise
            continue
        text = tokenizer.decode(reference, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        yield HeldOutPrompt(name, conversation, prompt, asked, text, len(reference))


def _cut(conversation: Conversation, template: ChatTemplate, corpus: Conversations) -> tuple[list[int], list[int]]:
    """The tokens before the last turn of the assistant, and those of the turn without its end."""
    every = corpus.model_copy(update={"learn": "last", "reasoning": True, "tool_calls": True})
    # A turn that the data does not teach can be written all the same.
    messages = tuple(replace(message, learn=True) for message in conversation.messages)
    (sample,) = render(replace(conversation, messages=messages), template, every).samples
    (turn,) = sample.turns
    return sample.input_ids[: turn.start], sample.input_ids[turn.start : turn.stop - 1]


def _room(work: Work) -> list[int]:
    """The positions that an answer leaves to its prompt, in each model that has a limit."""
    start = ModelSource(str(work.run.path("student") / "start"), "the run's student").config()
    configs = [start, *(teacher.config() for teacher in artifacts.existing_teachers(work))]
    positions = (getattr(config.get_text_config(), "max_position_embeddings", None) for config in configs)
    return [each - work.recipe.answers.max_new_tokens for each in positions if each is not None]
