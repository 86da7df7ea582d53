"""Align: the same turns of the assistant in a teacher's rendering of a conversation and in a student's.

The teacher may have another chat template, of the same tokenizer, and a system prompt of its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from typing import Any

from potstill.data.conversations.chat_template import ChatTemplate
from potstill.data.conversations.conversation import BadRowError, Conversation, Message
from potstill.data.conversations.render import ChatSample, render
from potstill.data.labels import IGNORE_INDEX
from potstill.data.prompts.collator import TEACHER
from potstill.data.prompts.render import PARAGRAPH, filled_in
from potstill.errors import UserError
from potstill.recipe.conversations import ChatSettings, TeacherReading


def aligned_samples(
    conversation: Conversation,
    student: ChatTemplate,
    teacher: ChatTemplate,
    settings: ChatSettings,
    readings: Mapping[str, TeacherReading],
) -> list[dict[str, dict[str, Any]]]:
    """Samples that ``prompts.collator.AlignedCollator`` takes: a conversation as the student reads it and as the
    teacher reads it, with the same supervised tokens. Each sample has one for each reading of the teacher.

    A token is supervised if both templates write it, such as those of the content. Where a template writes something
    else around it, such as another form of a tool call, that is read and not learned. All readings have the same
    supervised tokens, so that students which are taught by different ones can be compared.

    A sample that is too long for the student or in one reading is left out; or, with `too_long: cut_right`, all sides
    lose their ends after the same supervised token.

    Args:
        conversation: the conversation.
        student: the student's chat template.
        teacher: the teacher's chat template.
        settings: what is learned.
        readings: what else the teacher reads, and the greatest number of its tokens, by its key in the recipe.

    Raises:
        UserError: the templates end a turn with different tokens, or the teacher's prompt cannot be filled in.
        BadRowError: one of them cannot render the conversation.
    """
    if student.end_token != teacher.end_token:
        raise UserError(
            f"{teacher.name} ends a turn with {teacher.end_token!r} and {student.name} with {student.end_token!r}, so "
            "the student cannot learn from the teacher where to stop; give both a template with the same end"
        )
    shown = [as_teachers_read(conversation, reading, key) for key, reading in readings.items()]
    sides = [(conversation, student), *((each, teacher) for each in shown)]
    rendered = [render(each, template, settings).samples for each, template in sides]
    if len({len(samples) for samples in rendered}) > 1:
        rendered = [render(each, template, settings, apart=True).samples for each, template in sides]
    longest = [each.sequence_length or settings.sequence_length for each in readings.values()]
    limits = [settings.sequence_length, *longest]
    found = (_aligned(*samples) for samples in zip(*rendered, strict=True))
    if settings.too_long == "cut_right":
        found = (_cut(one, limits) for one in found)
    return [dict(zip(readings, _rows(one), strict=True)) for one in found if _fits(one, limits)]


def as_teachers_read(conversation: Conversation, reading: TeacherReading, key: str = "corpus.teacher") -> Conversation:
    """A conversation with the system prompt and the turns of the user that teachers read.

    Args:
        conversation: the conversation.
        reading: what the teachers read.
        key: its key in the recipe, for messages.

    Raises:
        UserError: a template of the recipe fails, or a turn of the user comes out blank.
    """
    messages, where = list(conversation.messages), conversation.where
    system = PARAGRAPH.join(message.content for message in messages if message.role == "system")
    if reading.user is not None:
        answers = _answers(messages)
        for place in (place for place, message in enumerate(messages) if message.role == "user"):
            fields = {"question": messages[place].content, "reference": answers.get(place, ""), "system": system}
            text = filled_in(reading.user, fields, f"{where}: `{key}.user`")
            messages[place] = replace(messages[place], content=text)
    if reading.system is not None:
        text = filled_in(reading.system, {"system": system}, f"{where}: `{key}.system`")
        messages = [Message("system", text), *(message for message in messages if message.role != "system")]
    return replace(conversation, messages=tuple(messages))


def _answers(messages: Sequence[Message]) -> dict[int, str]:
    """The last words of the assistant after each turn of the user, by the turn's place."""
    found: dict[int, str] = {}
    asked = 0
    for place, message in enumerate(messages):
        if message.role == "user":
            asked = place
        elif message.role == "assistant":
            found[asked] = message.content
    return found


@dataclass(frozen=True)
class _Aligned:
    """A sample as the student reads it, and then as the teacher does in each reading."""

    student: ChatSample
    ids: list[list[int]]
    labels: list[list[int]]


def _aligned(student: ChatSample, *teachers: ChatSample) -> _Aligned:
    sides = (student, *teachers)
    labels = [list(side.labels) for side in sides]
    for turns in zip(*(side.turns for side in sides), strict=True):
        places = [_places(own, turn.start, turn.stop) for own, turn in zip(labels, turns, strict=True)]
        ours, *theirs = [[own[place] for place in at] for own, at in zip(labels, places, strict=True)]
        pairs = [_common(ours, other) for other in theirs]
        kept = set(range(len(ours))).intersection(*pairs)
        if not kept:
            raise BadRowError(student.where, "teacher and student have no token of a turn in common")
        for own, at, numbers in zip(labels, places, (kept, *({one[at] for at in kept} for one in pairs)), strict=True):
            _keep(own, at, numbers)
    return _Aligned(student, [side.input_ids for side in sides], labels)


def _rows(sample: _Aligned) -> Iterator[dict[str, Any]]:
    """The columns of the sample for each reading."""
    ours = {"id": sample.student.where, "input_ids": sample.ids[0], "labels": sample.labels[0]}
    for ids, labels in zip(sample.ids[1:], sample.labels[1:], strict=True):
        yield {**ours, f"{TEACHER}input_ids": ids, f"{TEACHER}labels": labels, "turns": sample.student.turns}


def _cut(sample: _Aligned, limits: Sequence[int]) -> _Aligned:
    """A sample whose sides end after the same supervised token, the last one that fits into all of them."""
    if _fits(sample, limits):
        return sample
    places = [_places(labels, 0, most) for labels, most in zip(sample.labels, limits, strict=True)]
    count = min(map(len, places))
    stops = [found[count - 1] + 1 if count else 0 for found in places]
    ids, labels = ([row[:stop] for row, stop in zip(rows, stops, strict=True)] for rows in (sample.ids, sample.labels))
    return replace(sample, ids=ids, labels=labels)


def _fits(sample: _Aligned, limits: Sequence[int]) -> bool:
    """Whether no side is too long, and the student has a supervised token."""
    short = all(len(ids) <= most for ids, most in zip(sample.ids, limits, strict=True))
    return short and any(label != IGNORE_INDEX for label in sample.labels[0][1:])


def _places(labels: Sequence[int], start: int, stop: int) -> list[int]:
    return [place for place in range(start, min(stop, len(labels))) if labels[place] != IGNORE_INDEX]


def _common(ours: list[int], theirs: list[int]) -> dict[int, int]:
    """The places of the tokens that both have in the same order: in `theirs`, by those in `ours`."""
    if ours == theirs:
        return {place: place for place in range(len(ours))}
    blocks = SequenceMatcher(None, ours, theirs, autojunk=False).get_matching_blocks()
    return {block.a + step: block.b + step for block in blocks for step in range(block.size)}


def _keep(labels: list[int], places: Sequence[int], kept: set[int]) -> None:
    for number, place in enumerate(places):
        if number not in kept:
            labels[place] = IGNORE_INDEX
