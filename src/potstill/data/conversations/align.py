"""Align: the same turns of the assistant in a teacher's rendering of a conversation and in a student's.

The teacher may have another chat template, of the same tokenizer, and a system prompt of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
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
    reading: TeacherReading,
) -> list[dict[str, Any]]:
    """Samples that ``prompts.collator.AlignedCollator`` takes: a conversation as the student and as the teacher reads
    it, with the same supervised tokens.

    A token is supervised if both templates write it, such as those of the content. Where a template writes something
    else around it, such as another form of a tool call, that is read and not learned.

    A sample that is too long for one of the two is left out; or, with `too_long: cut_right`, both lose their ends after
    the same supervised token.

    Args:
        conversation: the conversation.
        student: the student's chat template.
        teacher: the teacher's chat template.
        settings: what is learned.
        reading: what else the teacher reads, and the greatest number of its tokens.

    Raises:
        UserError: the templates end a turn with different tokens, or the teacher's prompt cannot be filled in.
        BadRowError: one of them cannot render the conversation.
    """
    if student.end_token != teacher.end_token:
        raise UserError(
            f"{teacher.name} ends a turn with {teacher.end_token!r} and {student.name} with {student.end_token!r}, so "
            "the student cannot learn from the teacher where to stop; give both a template with the same end"
        )
    shown = as_teachers_read(conversation, reading)
    ours, theirs = render(conversation, student, settings), render(shown, teacher, settings)
    if len(ours.samples) != len(theirs.samples):
        ours, theirs = render(conversation, student, settings, True), render(shown, teacher, settings, True)
    pairs = (_aligned(one, other) for one, other in zip(ours.samples, theirs.samples, strict=True))
    longest = {"": settings.sequence_length, TEACHER: reading.sequence_length or settings.sequence_length}
    if settings.too_long == "cut_right":
        pairs = (_cut(pair, longest) for pair in pairs)
    return [pair for pair in pairs if _fits(pair, longest)]


def as_teachers_read(conversation: Conversation, reading: TeacherReading) -> Conversation:
    """A conversation with the system prompt and the turns of the user that teachers read.

    Raises:
        UserError: a template of the recipe fails, or a turn of the user comes out blank.
    """
    messages, where = list(conversation.messages), conversation.where
    system = PARAGRAPH.join(message.content for message in messages if message.role == "system")
    if reading.user is not None:
        answers = _answers(messages)
        for place in (place for place, message in enumerate(messages) if message.role == "user"):
            fields = {"question": messages[place].content, "reference": answers.get(place, ""), "system": system}
            text = filled_in(reading.user, fields, f"{where}: `corpus.teacher.user`")
            messages[place] = replace(messages[place], content=text)
    if reading.system is not None:
        text = filled_in(reading.system, {"system": system}, f"{where}: `corpus.teacher.system`")
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


def _aligned(student: ChatSample, teacher: ChatSample) -> dict[str, Any]:
    labels, teacher_labels = list(student.labels), list(teacher.labels)
    for one, other in zip(student.turns, teacher.turns, strict=True):
        ours, theirs = _places(labels, one.start, one.stop), _places(teacher_labels, other.start, other.stop)
        kept = _common([labels[place] for place in ours], [teacher_labels[place] for place in theirs])
        if not kept:
            raise BadRowError(student.where, "teacher and student have no token of a turn in common")
        _keep(labels, ours, {first for first, _ in kept})
        _keep(teacher_labels, theirs, {second for _, second in kept})
    return {
        "id": student.where,
        "input_ids": student.input_ids,
        "labels": labels,
        "teacher_input_ids": teacher.input_ids,
        "teacher_labels": teacher_labels,
        "turns": student.turns,
    }


def _cut(pair: dict[str, Any], longest: Mapping[str, int]) -> dict[str, Any]:
    """A pair whose sides end after the same supervised token, the last one that fits into both."""
    if _fits(pair, longest):
        return pair
    places = {side: _places(pair[f"{side}labels"], 0, most) for side, most in longest.items()}
    count = min(map(len, places.values()))
    stops = {side: found[count - 1] + 1 if count else 0 for side, found in places.items()}
    cut = {
        f"{side}{name}": pair[f"{side}{name}"][:stop]
        for side, stop in stops.items()
        for name in ("input_ids", "labels")
    }
    return pair | cut


def _fits(pair: Mapping[str, Any], longest: Mapping[str, int]) -> bool:
    """Whether no side is too long, and the student has a supervised token."""
    short = all(len(pair[f"{side}input_ids"]) <= most for side, most in longest.items())
    return short and any(label != IGNORE_INDEX for label in pair["labels"][1:])


def _places(labels: Sequence[int], start: int, stop: int) -> list[int]:
    return [place for place in range(start, min(stop, len(labels))) if labels[place] != IGNORE_INDEX]


def _common(ours: list[int], theirs: list[int]) -> list[tuple[int, int]]:
    """The places of the tokens that both have, in the same order."""
    if ours == theirs:
        return [(place, place) for place in range(len(ours))]
    blocks = SequenceMatcher(None, ours, theirs, autojunk=False).get_matching_blocks()
    return [(block.a + step, block.b + step) for block in blocks for step in range(block.size)]


def _keep(labels: list[int], places: Sequence[int], kept: set[int]) -> None:
    for number, place in enumerate(places):
        if number not in kept:
            labels[place] = IGNORE_INDEX
