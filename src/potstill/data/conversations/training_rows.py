"""Training rows: the samples of conversations as the rows of a table, and the conversations themselves as rows."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from potstill.data.conversations.align import aligned_samples
from potstill.data.conversations.chat_template import ChatTemplate, chat_template
from potstill.data.conversations.conversation import BadRowError, Conversation, NothingLearnedError
from potstill.data.conversations.packing import packed_conversations
from potstill.data.conversations.read import read_conversation
from potstill.data.conversations.samples import samples, samples_of
from potstill.data.conversations.tally import ChatTally
from potstill.data.prompts.collator import TEACHER
from potstill.data.row_teachers import TEACHERS, named
from potstill.data.sources import SourceRow
from potstill.recipe.conversations import ChatSettings, ConversationBase, Conversations, TeacherReading

ROW = ("input_ids", "labels")
ALIGNED = (*ROW, *(f"{TEACHER}{name}" for name in ROW))
OF_CONVERSATION = ("id", "messages", "tools", "where", "source")
"""The columns of a stored conversation; the id is the hash of its messages and tools."""


def columns_of(corpus: Conversations) -> tuple[str, ...]:
    """The columns of a training row, each of them a list of numbers."""
    if corpus.teacher is not None:
        return ALIGNED
    return (*ROW, "documents") if corpus.layout == "packed" else ROW


def training_rows(
    conversations: Iterable[Conversation], tokenizer: Any, corpus: Conversations, tally: ChatTally
) -> Iterator[dict[str, list[Any]]]:
    """The rows of a training, with the columns of :func:`columns_of`, and the teachers of conversations that have some
    of their own.

    Args:
        conversations: the conversations.
        tokenizer: the tokenizer of student and teachers.
        corpus: the recipe's section.
        tally: counts what becomes of each conversation.

    Raises:
        UserError: a chat template cannot be used, or a conversation cannot be rendered and none may be left out.
    """
    if corpus.teacher is not None:
        given = {"corpus.teacher": corpus.teacher}
        yield from (
            row for rows in aligned_rows(conversations, tokenizer, corpus, given, tally) for row in rows.values()
        )
        return
    alone = samples(conversations, tokenizer, corpus, tally)
    if corpus.layout == "padded":
        for one in alone:
            yield {"input_ids": one.input_ids, "labels": one.labels, **named(one.teachers)}
        return
    for sample in packed_conversations(alone, corpus.sequence_length):
        row: dict[str, list[Any]] = {
            "input_ids": sample.input_ids,
            "labels": sample.labels,
            "documents": sample.documents,
        }
        yield row | named(sample.teachers)


def aligned_rows(
    conversations: Iterable[Conversation],
    tokenizer: Any,
    corpus: Conversations,
    readings: Mapping[str, TeacherReading],
    tally: ChatTally,
) -> Iterator[dict[str, dict[str, list[Any]]]]:
    """The rows of a training whose teachers read other words than its students: for each sample, one row of the columns
    `ALIGNED` for each reading. All readings have the same samples; see ``align.aligned_samples``.

    Args:
        conversations: the conversations.
        tokenizer: the tokenizer of student and teachers.
        corpus: the recipe's section.
        readings: what the teachers read, by its key in the recipe.
        tally: counts what becomes of each conversation.

    Raises:
        UserError: as :func:`training_rows`.
    """
    student, teacher = chat_template(tokenizer, corpus), teacher_template(tokenizer, corpus)
    tally.template_digest = student.digest
    for conversation in conversations:
        try:
            found = aligned_samples(conversation, student, teacher, corpus, readings)
            if not found:
                raise NothingLearnedError(conversation.where, "too long for the student or for the teacher")
            samples_of(conversation, student, corpus, tally)
        except BadRowError as error:
            if corpus.on_bad_row == "refuse" and not isinstance(error, NothingLearnedError):
                raise
            tally.drop(conversation.source, error.reason)
            continue
        taught = named(conversation.teachers)
        for sample in found:
            yield {key: {name: row[name] for name in ALIGNED} | taught for key, row in sample.items()}


def aligned_pairs(
    conversation: Conversation, student: ChatTemplate, teacher: ChatTemplate, corpus: Conversations
) -> list[dict[str, Any]]:
    """The samples of a conversation as the student and as the teacher reads it; see ``align.aligned_samples``."""
    assert corpus.teacher is not None
    found = aligned_samples(conversation, student, teacher, corpus, {"corpus.teacher": corpus.teacher})
    return [sample["corpus.teacher"] for sample in found]


def teacher_template(tokenizer: Any, corpus: Conversations) -> ChatTemplate:
    """The chat template by which the teachers read."""
    given = corpus.teacher or TeacherReading()
    kwargs = {**corpus.template_kwargs, **given.template_kwargs}
    changed = {"template": given.template or corpus.template, "template_kwargs": kwargs}
    return chat_template(tokenizer, corpus.model_copy(update=changed))


def judged(conversations: Sequence[Conversation], tokenizer: Any, corpus: Conversations) -> list[Conversation]:
    """The held-out conversations that give a sample, all of whose turns count, whatever is learned.

    Raises:
        UserError: a conversation cannot be rendered, and none may be left out.
    """
    every: ChatSettings = corpus.model_copy(update={"learn": "all"})
    template, kept, tally = chat_template(tokenizer, corpus), list[Conversation](), ChatTally()
    for conversation in conversations:
        try:
            if samples_of(conversation, template, every, tally):
                kept.append(conversation)
        except BadRowError as error:
            if corpus.on_bad_row == "refuse" and not isinstance(error, NothingLearnedError):
                raise
    return kept


def row_of(conversation: Conversation) -> dict[str, Any]:
    """A conversation as a row of text columns and its teachers, which :func:`stored_conversation` reads."""
    place = {"where": conversation.where, "source": conversation.source}
    return {"id": conversation.hash().hex(), **conversation.as_row(), **place, **named(conversation.teachers)}


def stored_conversation(row: dict[str, Any]) -> Conversation:
    """The conversation of such a row."""
    columns = {name: row[name] for name in ("messages", "tools")}
    found = read_conversation(SourceRow(columns, row["where"], row["source"]), ConversationBase())
    return replace(found, teachers=tuple(row[TEACHERS]) if TEACHERS in row else None)
