"""Across: the turns of a conversation as two models read them, each with a chat template and a tokenizer of its own.

The words of a learned turn are compared, and its end: the token that ends a turn of the one is that of the other.
Headers, and what stands around the words, are read and not compared.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby
from typing import Any, NamedTuple

from potstill.data.conversations.chat_template import ChatTemplate, chat_template
from potstill.data.conversations.conversation import BadRowError, Conversation, NothingLearnedError
from potstill.data.conversations.length import fitting_samples
from potstill.data.conversations.render import ChatSample, TurnTokens, render
from potstill.data.conversations.tally import ChatTally
from potstill.data.labels import IGNORE_INDEX
from potstill.data.token_bytes import SPACE, TokenBytes
from potstill.data.turns_of_batch import OTHER, PIECES, TurnPiece
from potstill.errors import UserError
from potstill.recipe.conversations import ChatSettings


@dataclass(frozen=True)
class Side:
    """How one of two models reads conversations.

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
class OtherReader:
    """A teacher of another tokenizer, which reads conversations by its tokenizer's own chat template.

    Args:
        ours: the bytes of the student's tokens.
        theirs: the bytes of the teacher's tokens.
        longest: the greatest number of tokens that the teacher reads; None: no limit.
    """

    ours: TokenBytes
    theirs: TokenBytes
    longest: int | None

    def sides(self, student: ChatTemplate, settings: ChatSettings) -> tuple[Side, Side]:
        """How student and teacher read a conversation.

        Raises:
            UserError: the teacher's tokenizer has no template that can be used, or settings are not for two readers.
        """
        if settings.too_long not in ("drop", "cut_right"):
            raise UserError(
                f"`corpus.too_long: {settings.too_long}` cuts tokens of the student, which a teacher of another "
                "tokenizer does not have; use `drop` or `cut_right`"
            )
        try:
            teacher = chat_template(self.theirs.tokenizer, settings.model_copy(update={"template": None}))
        except UserError as error:
            raise UserError(
                f"{self.theirs.name} reads conversations by its tokenizer's own chat template, which fails: {error}"
            ) from error
        return Side(student, self.ours, None), Side(teacher, self.theirs, self.longest)


@dataclass
class ComparedBytes:
    """The bytes of learned turns of the student, and those of them that are compared."""

    learned: int = 0
    compared: int = 0

    @property
    def share(self) -> float:
        """The share of them that is compared."""
        return self.compared / max(self.learned, 1)

    def told(self, teacher: str) -> str:
        """The share in a sentence.

        Args:
            teacher: the teacher's name.

        Raises:
            UserError: nothing is compared.
        """
        if not self.compared:
            raise UserError(
                f"nothing of {self.learned:,} learned bytes is the same text for {teacher}: the chat templates write "
                "the turns otherwise; give the tokenizers templates that write a turn as it is"
            )
        return f"{self.share:.1%} of the learned bytes are compared with {teacher}"


def rows_across(
    conversations: Iterable[Conversation],
    reader: OtherReader,
    settings: ChatSettings,
    tally: ChatTally,
    compared: ComparedBytes,
) -> Iterator[dict[str, Any]]:
    """The samples of conversations, in their order; see :func:`samples_across`.

    Raises:
        UserError: a chat template cannot be used, or a conversation cannot be rendered and none may be left out.
    """
    template = chat_template(reader.ours.tokenizer, settings)
    sides = reader.sides(template, settings)
    tally.template_digest = template.digest
    for conversation in conversations:
        try:
            yield from samples_across(conversation, *sides, settings, tally, compared)
        except BadRowError as error:
            if settings.on_bad_row == "refuse" and not isinstance(error, NothingLearnedError):
                raise
            tally.drop(conversation.source, error.reason)


def samples_across(
    conversation: Conversation,
    student: Side,
    teacher: Side,
    settings: ChatSettings,
    tally: ChatTally,
    compared: ComparedBytes,
) -> list[dict[str, Any]]:
    """The samples of a conversation: the student's `input_ids` and `labels`, the same of the teacher with the prefix
    ``other_``, and `pieces`, a flat list of :class:`TurnPiece`. A sample that is too long for the teacher is left out,
    or with `too_long: cut_right` compared as far as the teacher reads.

    Args:
        conversation: the conversation.
        student: how the student reads it.
        teacher: how the teacher reads it.
        settings: what is learned, and what is too long: `drop` or `cut_right`.
        tally: counts what becomes of the conversation.
        compared: counts bytes.

    Raises:
        BadRowError: one of the templates cannot render it.
    """
    sides = (student, teacher)
    both = [render(conversation, side.template, settings) for side in sides]
    if len({len(one.samples) for one in both}) > 1:
        both = [render(conversation, side.template, settings, apart=True) for side in sides]
    # It says of the student whether the conversation is kept, cut or left out.
    kept = fitting_samples(conversation, both[0], student.template, settings)
    found = []
    for ours, theirs in zip(both[0].samples, both[1].samples, strict=True):
        fitting = [one for one in kept if one.turns[:1] == ours.turns[:1]]
        too_long = teacher.longest is not None and len(theirs.input_ids) > teacher.longest
        if fitting and not (too_long and settings.too_long == "drop"):
            found.append(_paired(fitting[0], _cut(theirs, teacher.longest), sides, compared))
    counts = tally.of(conversation.source)
    counts.turns_in_all += sum(message.role == "assistant" for message in conversation.messages)
    if found:
        tally.keep(conversation, "whole" if kept == list(both[0].samples) else "cut", kept)
    else:
        tally.drop(conversation.source, "too long for the student or for the teacher")
    return found


def _cut(sample: ChatSample, longest: int | None) -> ChatSample:
    return ChatSample(**{**vars(sample), "input_ids": sample.input_ids[:longest], "labels": sample.labels[:longest]})


def _paired(
    student: ChatSample, teacher: ChatSample, sides: tuple[Side, Side], compared: ComparedBytes
) -> dict[str, Any]:
    pieces: list[int] = []
    turns = {turn.turn: turn for turn in teacher.turns}
    for turn in student.turns:
        ours = [*_runs(student, turn, sides[0])]
        compared.learned += sum(len(run.content) for run in ours)
        theirs = [*_runs(teacher, turns[turn.turn], sides[1])] if turn.turn in turns else []
        for one, other in _matched(ours, theirs):
            piece = _piece(one, other, sides)
            if piece is not None:
                compared.compared += len(sides[0].bytes.joined(student.input_ids[piece.begin : piece.stop]))
                pieces += map(int, piece)
    return {
        "input_ids": student.input_ids,
        "labels": student.labels,
        f"{OTHER}input_ids": teacher.input_ids,
        f"{OTHER}labels": teacher.labels,
        PIECES: pieces,
    }


class _LearnedText(NamedTuple):
    """Learned tokens of text that follow one another."""

    begin: int
    stop: int
    ids: list[int]
    content: bytes
    closed: bool
    """Whether the token that ends the turn follows, and is learned."""


def _runs(sample: ChatSample, turn: TurnTokens, side: Side) -> Iterator[_LearnedText]:
    """The runs of a turn. A special token is no text, and divides it."""
    ids, labels = sample.input_ids, sample.labels
    places = range(max(turn.start, 1), min(turn.stop, len(ids)))

    def is_text(place: int) -> bool:
        return labels[place] != IGNORE_INDEX and bool(side.bytes.each[ids[place]])

    for learned, several in groupby(places, is_text):
        if learned:
            begin, *_ = own = [*several]
            stop = own[-1] + 1
            closed = stop < len(ids) and labels[stop] == ids[stop] == side.end
            yield _LearnedText(begin, stop, ids[begin:stop], side.bytes.joined(ids[begin:stop]), closed)


def _matched(
    ours: Sequence[_LearnedText], theirs: Sequence[_LearnedText]
) -> Iterator[tuple[_LearnedText, _LearnedText]]:
    """The runs of both that are the same part of a turn: all in their order, or else those of the same text."""
    if len(ours) == len(theirs):
        yield from zip(ours, theirs, strict=True)
        return
    one, other = ([run.content for run in runs] for runs in (ours, theirs))
    for block in SequenceMatcher(None, one, other, autojunk=False).get_matching_blocks():
        yield from zip(ours[block.a : block.a + block.size], theirs[block.b : block.b + block.size], strict=True)


def _piece(one: _LearnedText, other: _LearnedText, sides: tuple[Side, Side]) -> TurnPiece | None:
    """The text with which both runs begin. A tokenizer may put a space of its own before it."""
    texts = [one.content, other.content]
    spaces = [text[:1] == SPACE for text in texts]
    own = [has and not both for has, both in zip(spaces, spaces[::-1], strict=True)]
    texts = [text[has:] for text, has in zip(texts, own, strict=True)]
    same = next((at for at, pair in enumerate(zip(*texts, strict=False)) if pair[0] != pair[1]), min(map(len, texts)))
    counts = [
        _tokens_within(run.ids, side.bytes, same + has) for run, side, has in zip((one, other), sides, own, strict=True)
    ]
    if not all(counts):
        return None
    whole = texts[0] == texts[1] and one.closed and other.closed
    stops = one.begin + counts[0], other.begin + counts[1]
    return TurnPiece(one.begin, stops[0], other.begin, stops[1], own[0], own[1], whole)


def _tokens_within(ids: Sequence[int], tokens: TokenBytes, size: int) -> int:
    """How many of the first tokens end within this number of bytes."""
    count = 0
    for number in ids:
        size -= len(tokens.each[number])
        if size < 0:
            break
        count += 1
    return count
