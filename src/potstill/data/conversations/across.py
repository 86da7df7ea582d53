"""Across: the turns of a conversation as student and teachers read them, each with a chat template and a tokenizer of
its own.

The words of a learned turn are compared, and its end (``data/compared_turns.py``). Headers, and what stands around the
words, are read and not compared.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from potstill.data.compared_turns import ComparedTurns, sample_across
from potstill.data.conversations.chat_template import ChatTemplate, chat_template
from potstill.data.conversations.conversation import BadRowError, Conversation, NothingLearnedError
from potstill.data.conversations.length import fitting_samples
from potstill.data.conversations.render import ChatSample, learned_turns, render
from potstill.data.conversations.tally import ChatTally
from potstill.data.row_teachers import named
from potstill.data.token_bytes import TokenBytes
from potstill.errors import UserError
from potstill.recipe.conversations import ChatSettings


@dataclass(frozen=True)
class Side:
    """How one of several models reads conversations.

    Args:
        template: its chat template, with its tokenizer.
        bytes: the bytes of its tokens.
        longest: the greatest number of tokens that it reads; None: no limit.
    """

    template: ChatTemplate
    bytes: TokenBytes
    longest: int | None

    @property
    def end(self) -> int:
        """The id of the token that ends a turn."""
        return int(self.template.tokenizer.convert_tokens_to_ids(self.template.end_token))


@dataclass(frozen=True)
class OtherTeacher:
    """A teacher of another tokenizer.

    Args:
        bytes: the bytes of its tokens.
        longest: the greatest number of tokens that it reads; None: no limit.
    """

    bytes: TokenBytes
    longest: int | None


@dataclass(frozen=True)
class OtherReaders:
    """Teachers that read conversations by their tokenizers' own chat templates.

    Args:
        ours: the bytes of the student's tokens.
        teachers: the teachers, in their order.
        names: their names, if each teaches only the rows that name it; None: each teaches every row.
    """

    ours: TokenBytes
    teachers: Sequence[OtherTeacher]
    names: Sequence[str] | None = None

    def sides(self, student: ChatTemplate, settings: ChatSettings) -> tuple[Side, list[Side]]:
        """How the student and the teachers read a conversation.

        Raises:
            UserError: a teacher's tokenizer has no template that can be used, or settings are not for two readers.
        """
        if settings.too_long not in ("drop", "cut_right"):
            raise UserError(
                f"`corpus.too_long: {settings.too_long}` cuts tokens of the student, which a teacher of another "
                "tokenizer does not have; use `drop` or `cut_right`"
            )
        return Side(student, self.ours, None), [_side(one, settings) for one in self.teachers]

    def of_row(self, sides: Sequence[Side], teachers: Sequence[str] | None) -> list[Side | None]:
        """The teachers of a conversation, in the places of all teachers.

        Args:
            sides: all teachers.
            teachers: the names of those of the conversation; None where rows have none of their own.
        """
        if self.names is None:
            return [*sides]
        return [side if name in (teachers or ()) else None for name, side in zip(self.names, sides, strict=True)]


def _side(teacher: OtherTeacher, settings: ChatSettings) -> Side:
    try:
        template = chat_template(teacher.bytes.tokenizer, settings.model_copy(update={"template": None}))
    except UserError as error:
        raise UserError(
            f"{teacher.bytes.name} reads conversations by its tokenizer's own chat template, which fails: {error}"
        ) from error
    return Side(template, teacher.bytes, teacher.longest)


def rows_across(
    conversations: Iterable[Conversation],
    readers: OtherReaders,
    settings: ChatSettings,
    tally: ChatTally,
    compared: Sequence[ComparedTurns],
) -> Iterator[dict[str, Any]]:
    """The samples of conversations, in their order, with the names of their teachers where they have some of their own;
    see :func:`samples_across`.

    Raises:
        UserError: a chat template cannot be used, or a conversation cannot be rendered and none may be left out.
    """
    template = chat_template(readers.ours.tokenizer, settings)
    student, teachers = readers.sides(template, settings)
    tally.template_digest = template.digest
    for conversation in conversations:
        own = readers.of_row(teachers, conversation.teachers)
        try:
            for sample in samples_across(conversation, student, own, settings, tally, compared):
                yield sample | named(conversation.teachers)
        except BadRowError as error:
            if settings.on_bad_row == "refuse" and not isinstance(error, NothingLearnedError):
                raise
            tally.drop(conversation.source, error.reason)


def samples_across(
    conversation: Conversation,
    student: Side,
    teachers: Sequence[Side | None],
    settings: ChatSettings,
    tally: ChatTally,
    compared: Sequence[ComparedTurns],
) -> list[dict[str, Any]]:
    """The samples of a conversation (``compared_turns.sample_across``). A sample that is too long for one of its
    teachers is left out, or with `too_long: cut_right` compared as far as the teacher reads.

    Args:
        conversation: the conversation.
        student: how the student reads it.
        teachers: how each teacher reads it; None for a teacher that does not teach it.
        settings: what is learned, and what is too long: `drop` or `cut_right`.
        tally: counts what becomes of the conversation.
        compared: counts bytes, spans and tokens for each teacher.

    Raises:
        BadRowError: one of the templates cannot render it.
    """
    sides = (student, *(one for one in teachers if one is not None))
    rendered = [render(conversation, side.template, settings) for side in sides]
    if len({len(one.samples) for one in rendered}) > 1:
        rendered = [render(conversation, side.template, settings, apart=True) for side in sides]
    # It says of the student whether the conversation is kept, cut or left out.
    kept = fitting_samples(conversation, rendered[0], student.template, settings)
    found = []
    for ours, *theirs in zip(*(one.samples for one in rendered), strict=True):
        fitting = [one for one in kept if one.turns[:1] == ours.turns[:1]]
        read = iter(theirs)
        in_places = [None if one is None else (next(read), one.longest) for one in teachers]
        too_long = any(one and one[1] is not None and len(one[0].input_ids) > one[1] for one in in_places)
        if fitting and not (too_long and settings.too_long == "drop"):
            cut = [None if one is None else _cut(*one) for one in in_places]
            found.append(sample_across(fitting[0], cut, student, teachers, compared))
    counts = tally.of(conversation.source)
    counts.turns_in_all += sum(message.role == "assistant" for message in conversation.messages)
    if found:
        tally.keep(conversation, "whole" if kept == list(rendered[0].samples) else "cut", kept)
        words = learned_words(conversation, settings)
        for teacher, counted in zip(teachers, compared, strict=True):
            if teacher is not None:
                counted.add_words(words, student.bytes, teacher.bytes)
    else:
        tally.drop(conversation.source, "too long for the student or for the teacher")
    return found


def learned_words(conversation: Conversation, settings: ChatSettings) -> list[str]:
    """The words of the learned turns, which every chat template writes in its own way."""
    found = []
    for number in learned_turns(conversation, settings):
        content, reasoning, *calls = conversation.messages[number].texts
        found += [content, *([reasoning] if settings.reasoning else []), *(calls if settings.tool_calls else [])]
    return [text for text in found if text]


def _cut(sample: ChatSample, longest: int | None) -> ChatSample:
    return replace(sample, input_ids=sample.input_ids[:longest], labels=sample.labels[:longest])
