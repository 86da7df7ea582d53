"""Compared turns: the text of a learned turn that two models read alike, each with a tokenizer of its own.

The words of a turn are compared, and its end: the token that ends a turn of the one is that of the other.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby
from typing import Any, NamedTuple, Protocol

from potstill.data.conversations.render import ChatSample, TurnTokens
from potstill.data.labels import IGNORE_INDEX
from potstill.data.token_bytes import SPACE, TokenBytes
from potstill.data.turns_of_batch import PIECE_COLUMNS, TurnPiece
from potstill.errors import UserError


class TurnReader(Protocol):
    """A model that reads turns."""

    @property
    def bytes(self) -> TokenBytes:
        """The bytes of its tokens."""

    @property
    def end(self) -> int:
        """The id of the token that ends a turn."""


@dataclass
class ComparedTurns:
    """How much of the turns of some samples is compared with a teacher."""

    learned: int = 0
    """The bytes of the student's learned turns."""
    compared: int = 0
    """Those of them that are compared."""
    student_tokens: int = 0
    """The student's tokens of the samples, learned or not."""
    teacher_tokens: int = 0
    """The teacher's tokens of the same samples."""

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


def sample_across(
    student: ChatSample,
    teachers: Sequence[ChatSample | None],
    ours: TurnReader,
    theirs: Sequence[TurnReader | None],
    compared: Sequence[ComparedTurns],
) -> dict[str, Any]:
    """A sample as student and teachers read it: the student's `input_ids` and `labels`, and for each teacher a list in
    each of the columns `PIECE_COLUMNS`. The pieces are a flat list of :class:`TurnPiece`. The lists of a teacher that
    does not teach the sample are empty.

    Args:
        student: the sample as the student reads it.
        teachers: as each teacher reads it; None for a teacher that does not teach it.
        ours: the student.
        theirs: the teachers.
        compared: counts bytes and tokens for each teacher.
    """
    columns: dict[str, list[list[int]]] = {name: [] for name in PIECE_COLUMNS}
    for sample, reader, counted in zip(teachers, theirs, compared, strict=True):
        if sample is None or reader is None:
            own: tuple[list[int], ...] = ([], [], [])
        else:
            own = (sample.input_ids, sample.labels, _pieces(student, sample, (ours, reader), counted))
            counted.student_tokens += len(student.input_ids)
            counted.teacher_tokens += len(sample.input_ids)
        for name, numbers in zip(PIECE_COLUMNS, own, strict=True):
            columns[name].append(numbers)
    return {"input_ids": student.input_ids, "labels": student.labels, **columns}


def _pieces(
    student: ChatSample, teacher: ChatSample, sides: tuple[TurnReader, TurnReader], compared: ComparedTurns
) -> list[int]:
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
    return pieces


class _LearnedText(NamedTuple):
    """Learned tokens of text that follow one another."""

    begin: int
    stop: int
    ids: list[int]
    content: bytes
    closed: bool
    """Whether the token that ends the turn follows, and is learned."""


def _runs(sample: ChatSample, turn: TurnTokens, side: TurnReader) -> Iterator[_LearnedText]:
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


def _piece(one: _LearnedText, other: _LearnedText, sides: tuple[TurnReader, TurnReader]) -> TurnPiece | None:
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
