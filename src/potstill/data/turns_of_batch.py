"""Turns of a batch: where student and teacher stand at the same byte of the turns of conversations.

Each has the conversation in tokens and a chat template of its own. A piece of a turn is compared from the token before
it on, whatever that is, to the token that ends the turn, if it is there.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int
from torch import Tensor

from potstill.data.collators import Collate, Collator, pad_token_id
from potstill.data.labels import IGNORE_INDEX, supervised_mask
from potstill.data.prompts.collator import TEACHER
from potstill.data.text_of_batch import columns, rows_of_predictions
from potstill.data.token_alignment import NOWHERE, Spans, TextAxis, TextReading, align
from potstill.data.token_bytes import TokenBytes

OTHER, PIECES = "other_", "pieces"
"""The prefix of the teachers' columns in a sample, and the column with the pieces of its turns."""
PIECE_COLUMNS = (f"{OTHER}input_ids", f"{OTHER}labels", PIECES)
"""The columns of a sample for its teachers: each has a list for each teacher, which is empty where the teacher does not
teach the sample."""


class TurnPiece(NamedTuple):
    """Some text of a turn, as the tokens of both models; the first of them is predicted. Of neither side, tokens that
    end later in the text are in it."""

    begin: int
    """The place of the student's first token."""
    stop: int
    """The place after its last token."""
    other_begin: int
    other_stop: int
    own_space: bool
    """Whether the student's first token has a space that is no byte of the text."""
    other_own_space: bool
    closed: bool
    """Whether the whole turn ends here for both models, whose next tokens say so."""


@dataclass(frozen=True)
class TurnsCollator:
    """A collator that adds what a teacher reads of turns, of samples with pieces.

    Args:
        collate: the collator of the student's batches.
        ours: the bytes of the student's tokens.
        theirs: the bytes of the teacher's tokens.
        number: the teacher's place in the columns of a sample.
    """

    collate: Collate
    ours: TokenBytes
    theirs: TokenBytes
    number: int = 0

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """The collator's batch, with the teacher's columns."""
        batch = self.collate([without_pieces(one) for one in samples])
        return batch | {f"{TEACHER}{name}": value for name, value in self.columns(batch, samples).items()}

    def columns(self, batch: Mapping[str, Tensor], samples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """The teacher's columns of a batch, without their prefix.

        Args:
            batch: the student's batch of the samples, padded on the right.
            samples: the samples (``data/compared_turns.py``).
        """
        teacher = self.reads(samples)
        pieces = [pieces_of(one[PIECES][self.number]) for one in samples]
        spans = aligned_pieces(pieces, (batch, self.ours), (teacher, self.theirs))
        return teacher | columns(spans, int(supervised_mask(batch).sum()))

    def teaches(self, sample: Mapping[str, Any]) -> bool:
        """Whether the teacher teaches a sample."""
        return len(sample[f"{OTHER}input_ids"][self.number]) > 0

    def reads(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """What the teacher reads of some samples. A row of a sample that it does not teach has one token, of which
        nothing is learned."""
        pad = pad_token_id(self.theirs.tokenizer)
        nothing = {"input_ids": [pad], "labels": [IGNORE_INDEX]}
        rows = [
            {name: one[f"{OTHER}{name}"][self.number] for name in nothing} if self.teaches(one) else nothing
            for one in samples
        ]
        return Collator(pad)(rows)


@dataclass(frozen=True)
class TeacherSide:
    """The samples of a teacher as it reads them, an indexable collection of `input_ids` and `labels`.

    Args:
        samples: samples with pieces.
        number: the teacher's place in their columns.
        places: the samples that it teaches.
    """

    samples: Any
    number: int
    places: Sequence[int]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, at: int) -> dict[str, list[int]]:
        sample = self.samples[self.places[at]]
        return {name: sample[f"{OTHER}{name}"][self.number] for name in ("input_ids", "labels")}


def without_pieces(sample: Mapping[str, Any]) -> dict[str, Any]:
    """The sample as its student reads it."""
    return {name: value for name, value in sample.items() if name not in PIECE_COLUMNS}


def ends_of_turns(samples: Iterable[Mapping[str, Any]], number: int) -> tuple[int, int] | None:
    """The tokens that end a turn of the student and of a teacher; None if no whole turn is compared.

    Args:
        samples: the samples.
        number: the teacher's place in their columns.
    """
    for sample in samples:
        for piece in pieces_of(sample[PIECES][number]):
            if piece.closed:
                theirs = sample[f"{OTHER}input_ids"][number]
                return int(sample["input_ids"][piece.stop]), int(theirs[piece.other_stop])
    return None


def pieces_of(numbers: Sequence[int]) -> list[TurnPiece]:
    """The pieces of a sample for a teacher, of the flat list in its column."""
    width = len(TurnPiece._fields)
    return [TurnPiece(*map(int, numbers[at : at + width])) for at in range(0, len(numbers), width)]  # type: ignore[arg-type]


def aligned_pieces(
    pieces: Sequence[Sequence[TurnPiece]],
    student: tuple[Mapping[str, Tensor], TokenBytes],
    teacher: tuple[Mapping[str, Tensor], TokenBytes],
) -> Spans:
    """Where student and teacher stand at the same byte of the pieces of a batch.

    Args:
        pieces: those of each row.
        student: the batch as the student reads it, and the bytes of its tokens.
        teacher: the same of the teacher.
    """
    (batch, ours), (other_batch, theirs) = student, teacher
    flat = [(row, piece) for row, own in enumerate(pieces) for piece in own]
    ids, other_ids = batch["input_ids"].numpy(), other_batch["input_ids"].numpy()
    texts, ends = list[bytes](), list[tuple[np.ndarray, np.ndarray]]()
    for row, piece in flat:
        one, at = _text(ids[row, piece.begin : piece.stop], ours, piece.own_space)
        read = other_ids[row, piece.other_begin : piece.other_stop]
        other, other_at = _text(read, theirs, piece.other_own_space)
        texts.append(max(one, other, key=len))
        ends.append((at, other_at))
    axis = TextAxis.of(texts, [piece.closed for _, piece in flat])
    places = (
        [(row, piece.begin, piece.stop) for row, piece in flat],
        [(row, piece.other_begin, piece.other_stop) for row, piece in flat],
    )
    readings = [
        _reading(one, axis, of_side, [each[side] for each in ends])
        for side, (one, of_side) in enumerate(zip((batch, other_batch), places, strict=True))
    ]
    return align(axis, *readings)


def _text(ids: Int[np.ndarray, "n"], tokens: TokenBytes, own_space: bool) -> tuple[bytes, Int[np.ndarray, "n"]]:
    """The bytes of a piece, and where its tokens end in them."""
    content, ends = tokens.joined(ids.tolist()), tokens.lengths[ids].cumsum()
    return content[own_space:], np.maximum(ends - own_space, 0)


def _reading(
    batch: Mapping[str, Tensor],
    axis: TextAxis,
    places: Sequence[tuple[int, int, int]],
    ends: Sequence[Int[np.ndarray, "n"]],
) -> TextReading:
    rows, width = batch["input_ids"].shape
    at = np.full(rows * width, NOWHERE, np.int64)
    for opening, (row, begin, stop), own in zip(axis.openings.tolist(), places, ends, strict=True):
        at[row * width + begin : row * width + stop] = opening + 1 + own
        # What is predicted after this token is the first byte of the piece.
        at[row * width + begin - 1] = opening
    return TextReading(at, np.zeros(len(at), bool), rows_of_predictions(batch))
