"""Compared turns: the text of a learned turn that two models read alike, each with a tokenizer of its own.

The words of a turn are compared, and its end: the token that ends a turn of the one is that of the other.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from potstill.data.alignment_figures import AlignmentFigures
from potstill.data.conversations.render import ChatSample, TurnTokens
from potstill.data.labels import IGNORE_INDEX
from potstill.data.token_bytes import SPACE, TokenBytes
from potstill.data.turns_of_batch import PIECE_COLUMNS, TurnPiece, aligned_pieces
from potstill.errors import UserError

LEARNED_TEXT = "the learned text"
"""What the figures of turns and answers are of, in messages."""


class TurnReader(Protocol):
    """A model that reads turns."""

    @property
    def bytes(self) -> TokenBytes:
        """The bytes of its tokens."""

    @property
    def end(self) -> int:
        """The id of the token that ends a turn."""


@dataclass
class ComparedTurns(AlignmentFigures):
    """How much of the turns of some samples is compared with a teacher.

    Its `bytes`, and those of them that are lost, are of the words of learned turns (:meth:`add_words`). What a chat
    template writes between them, as around reasoning, is in its spans too.
    """

    learned: int = 0
    """The bytes of the student's learned turns, with what its chat template writes in them."""
    compared: int = 0
    """Those of them that are compared."""
    student_reads: int = 0
    """The student's tokens of the samples, learned or not."""
    teacher_reads: int = 0
    """The teacher's tokens of the same samples."""

    @property
    def share(self) -> float:
        """The share of the learned bytes that is compared."""
        return self.compared / max(self.learned, 1)

    def told(self, text: str = LEARNED_TEXT, teacher: str = "the teacher") -> str:
        """As :meth:`AlignmentFigures.told`.

        Raises:
            UserError: nothing is compared.
        """
        if not self.compared:
            raise UserError(
                f"nothing of {self.learned:,} learned bytes is the same text for {teacher}: the chat templates write "
                "the turns otherwise; give the tokenizers templates that write a turn as it is"
            )
        return super().told(text, teacher)

    def add_words(self, words: Sequence[str], ours: TokenBytes, theirs: TokenBytes) -> None:
        """Count the bytes of the words of learned turns, and those that the tokens of student and teacher do not give
        back."""
        self.add_bytes(sum(len(word.encode()) for word in words), ours.read(words), theirs.read(words))

    def add_pieces(
        self,
        student: ChatSample,
        teacher: ChatSample,
        sides: tuple[TurnReader, TurnReader],
        pieces: Sequence[TurnPiece],
    ) -> None:
        """Count what is compared of a sample, and its spans.

        Args:
            student: the sample as the student reads it.
            teacher: as the teacher reads it.
            sides: both.
            pieces: what is compared.
        """
        ours, theirs = sides
        self.student_reads += len(student.input_ids)
        self.teacher_reads += len(teacher.input_ids)
        labelled = zip(student.input_ids[1:], student.labels[1:], strict=True)
        self.learned += sum(len(ours.bytes.each[number]) for number, label in labelled if label != IGNORE_INDEX)
        self.compared += sum(len(ours.bytes.joined(student.input_ids[one.begin : one.stop])) for one in pieces)
        if pieces:
            read = ((_alone(student), ours.bytes), (_alone(teacher), theirs.bytes))
            self.add_spans(aligned_pieces([pieces], *read))


def _alone(sample: ChatSample) -> dict[str, Tensor]:
    """A sample as the only row of a batch."""
    return {"input_ids": torch.tensor([sample.input_ids]), "labels": torch.tensor([sample.labels])}


def sample_across(
    student: ChatSample,
    teachers: Sequence[ChatSample | None],
    ours: TurnReader,
    theirs: Sequence[TurnReader | None],
    compared: Sequence[ComparedTurns] | None = None,
) -> dict[str, Any]:
    """A sample as student and teachers read it: the student's `input_ids` and `labels`, and for each teacher a list in
    each of the columns `PIECE_COLUMNS`. The pieces are a flat list of :class:`TurnPiece`. The lists of a teacher that
    does not teach the sample are empty.

    Args:
        student: the sample as the student reads it.
        teachers: as each teacher reads it; None for a teacher that does not teach it.
        ours: the student.
        theirs: the teachers.
        compared: counts bytes, spans and tokens for each teacher; None: nothing is counted.
    """
    columns: dict[str, list[list[int]]] = {name: [] for name in PIECE_COLUMNS}
    for number, (sample, reader) in enumerate(zip(teachers, theirs, strict=True)):
        if sample is None or reader is None:
            own: tuple[list[int], ...] = ([], [], [])
        else:
            pieces = _pieces(student, sample, (ours, reader))
            own = (sample.input_ids, sample.labels, [int(field) for piece in pieces for field in piece])
            if compared is not None:
                compared[number].add_pieces(student, sample, (ours, reader), pieces)
        for name, numbers in zip(PIECE_COLUMNS, own, strict=True):
            columns[name].append(numbers)
    return {"input_ids": student.input_ids, "labels": student.labels, **columns}


def _pieces(student: ChatSample, teacher: ChatSample, sides: tuple[TurnReader, TurnReader]) -> list[TurnPiece]:
    pieces = list[TurnPiece]()
    turns = {turn.turn: turn for turn in teacher.turns}
    for turn in student.turns:
        ours = [*_runs(student, turn, sides[0])]
        theirs = [*_runs(teacher, turns[turn.turn], sides[1])] if turn.turn in turns else []
        found = (_piece(one, other, sides) for one, other in _matched(ours, theirs))
        pieces += [piece for piece in found if piece is not None]
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
