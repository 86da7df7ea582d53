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
from potstill.data.labels import supervised_mask
from potstill.data.prompts.collator import TEACHER
from potstill.data.text_of_batch import columns, rows_of_predictions
from potstill.data.token_alignment import NOWHERE, TextAxis, TextReading, align
from potstill.data.token_bytes import TokenBytes

OTHER, PIECES = "other_", "pieces"
"""The prefix of the teacher's columns in a sample, and the column with the pieces of its turns."""
PIECE_COLUMNS = (f"{OTHER}input_ids", f"{OTHER}labels", PIECES)
"""The columns of a sample for its teacher."""


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
    """A collator that adds what a teacher reads of conversations, which are samples with pieces. Others stay as they
    are.

    Args:
        collate: the collator of the student's batches.
        ours: the bytes of the student's tokens.
        theirs: the bytes of the teacher's tokens.
    """

    collate: Collate
    ours: TokenBytes
    theirs: TokenBytes

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """The collator's batch, with the teacher's columns."""
        if any(PIECES not in one for one in samples):
            return self.collate(samples)
        batch = self.collate([{name: one[name] for name in ("input_ids", "labels")} for one in samples])
        added = turn_columns(batch, samples, self.ours, self.theirs)
        return batch | {f"{TEACHER}{name}": value for name, value in added.items()}


def ends_of_turns(samples: Iterable[Mapping[str, Any]]) -> tuple[int, int] | None:
    """The tokens that end a turn of the student and of the teacher; None if no whole turn is compared."""
    for sample in samples:
        for piece in _pieces_of(sample[PIECES]):
            if piece.closed:
                return int(sample["input_ids"][piece.stop]), int(sample[f"{OTHER}input_ids"][piece.other_stop])
    return None


def turn_columns(
    batch: Mapping[str, Tensor], samples: Sequence[Mapping[str, Any]], ours: TokenBytes, theirs: TokenBytes
) -> dict[str, Tensor]:
    """The teacher's columns of a batch of conversations, without their prefix.

    Args:
        batch: the student's batch of the samples, padded on the right.
        samples: the samples (``conversations/across.py``).
        ours: the bytes of the student's tokens.
        theirs: the bytes of the teacher's tokens.
    """
    rows = [{"input_ids": one[f"{OTHER}input_ids"], "labels": one[f"{OTHER}labels"]} for one in samples]
    teacher = Collator(pad_token_id(theirs.tokenizer))(rows)
    pieces = [_pieces_of(one[PIECES]) for one in samples]
    flat = [(row, piece) for row, own in enumerate(pieces) for piece in own]
    ids, other_ids = batch["input_ids"].numpy(), teacher["input_ids"].numpy()
    texts, ends = list[bytes](), list[tuple[np.ndarray, np.ndarray]]()
    for row, piece in flat:
        one, at = _text(ids[row, piece.begin : piece.stop], ours, piece.own_space)
        other, other_at = _text(other_ids[row, piece.other_begin : piece.other_stop], theirs, piece.other_own_space)
        texts.append(max(one, other, key=len))
        ends.append((at, other_at))
    axis = TextAxis.of(texts, [piece.closed for _, piece in flat])
    places = (
        [(row, piece.begin, piece.stop) for row, piece in flat],
        [(row, piece.other_begin, piece.other_stop) for row, piece in flat],
    )
    readings = [
        _reading(one, axis, of_side, [each[side] for each in ends])
        for side, (one, of_side) in enumerate(zip((batch, teacher), places, strict=True))
    ]
    return teacher | columns(align(axis, *readings), int(supervised_mask(batch).sum()))


def _pieces_of(numbers: Sequence[int]) -> list[TurnPiece]:
    width = len(TurnPiece._fields)
    return [TurnPiece(*map(int, numbers[at : at + width])) for at in range(0, len(numbers), width)]  # type: ignore[arg-type]


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
