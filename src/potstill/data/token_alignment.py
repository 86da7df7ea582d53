"""Token alignment: where two tokenizations of the same text stand at the same byte.

Both readings lie on one axis of bytes. Each piece of text has its own part of the axis, which begins with a place for
the token that stands before the text, as a separator does:

    opening, byte 0, byte 1, ..., last byte        opening, byte 0, ...

Three things are found in one pass over both readings, whatever the number of pieces:

**Common ends**: the places where a token of the one and a token of the other end. Between two of them lies a finest
piece of text that both tokenize by themselves.

**Word ends**: the common ends at which a space follows a byte that is no white space, the openings, and the ends of
turns. Only from one word end to the next is the probability of the text the same event for both models. Between other
common ends it is not: that the teacher's token `Hel` has ended says that the text does not go on as its token `Hello`,
which says nothing to a student without `Hello`. Of a run of white space, a tokenizer may make one token or several.

**Spans**: the text between two neighbouring word ends of a piece, as the tokens of each reading that are predicted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt8

NOWHERE = -1
"""The place of a token that is part of no text, and the row of one that is not predicted."""

_SPACE, _WHITE = ord(" "), np.isin(np.arange(256), list(b" \t\n\r\v\f"))


@dataclass(frozen=True)
class TextAxis:
    """The bytes of some pieces of text, with one place before each piece."""

    content: UInt8[np.ndarray, "places"]
    """The bytes, and 0 at each opening."""
    openings: Int[np.ndarray, "pieces"]
    """The place of each piece's opening. A token that ends at byte `e` of the piece ends at place `opening + 1 + e`."""
    closings: Int[np.ndarray, "turns"]
    """The place after the last byte of each piece after which a turn ends, as both models write it."""

    @staticmethod
    def of(pieces: list[bytes], closed: Sequence[bool] = ()) -> "TextAxis":
        """The axis of pieces of text that follow one another.

        Args:
            pieces: the bytes of each piece.
            closed: whether a turn ends after each piece; empty: after none.
        """
        sizes = np.fromiter((len(one) + 2 for one in pieces), np.int64, len(pieces))
        # The place after the last byte is an end, too.
        content = np.frombuffer(b"".join(b"\0" + one + b"\0" for one in pieces), np.uint8)
        stops = sizes.cumsum()
        closings = stops[np.flatnonzero(closed)] - 1
        return TextAxis(content, np.concatenate([[0], stops])[:-1].astype(np.int64), closings.astype(np.int64))


class TextReading(NamedTuple):
    """One model's tokens of a batch, one row after the other."""

    ends: Int[np.ndarray, "tokens"]
    """Each token's end on the axis, never falling within a piece; NOWHERE for a token that is part of no text."""
    lost: Bool[np.ndarray, "tokens"]
    """Whether the token belongs to bytes that the tokens do not give back."""
    rows: Int[np.ndarray, "tokens"]
    """The number of the prediction that is made after each token, in the order of the losses; NOWHERE for none."""


class Spans(NamedTuple):
    """The spans of a batch, in the order of the text, and the pairs of predictions at the same byte."""

    ours: Int[np.ndarray, "S 2"]
    """The first prediction of each span, and the prediction after its last. The last is not of the span: it says how
    likely it is that the span ends here."""
    theirs: Int[np.ndarray, "S 2"]
    """The same of the other reading."""
    opens: Bool[np.ndarray, "S"]
    """Whether a span begins at an opening."""
    follows: Bool[np.ndarray, "S"]
    """Whether a span begins where the one before it ends."""
    pairs: Int[np.ndarray, "P 2"]
    """The predictions of both readings that are made at the same byte, wherever that is."""
    bytes_in_spans: int


def align(axis: TextAxis, ours: TextReading, theirs: TextReading) -> Spans:
    """The spans and pairs of two readings of the same text, in time that is linear in its bytes and tokens."""
    last, other = common_ends(len(axis.content), ours.ends, theirs.ends)
    places = ours.ends[last]
    openings, closings = np.zeros((2, len(axis.content)), bool)
    openings[axis.openings] = closings[axis.closings] = True
    is_opening = openings[places]
    # A token that has ended before the first byte is the tokenizer's own space.
    of_text = is_opening | ~openings[places - 1]
    pairs = np.stack([ours.rows[last], theirs.rows[other]], 1)[of_text]
    before, after = axis.content[places - 1], axis.content[places]
    words = is_opening | (of_text & (after == _SPACE) & ~_WHITE[before]) | (of_text & closings[places])
    piece = openings.cumsum(dtype=np.int32)[places[words]]
    one, two, at = last[words], other[words], places[words]
    kept = piece[1:] == piece[:-1]
    for reading, tokens in ((ours, one), (theirs, two)):
        kept &= _whole(reading, tokens)
    first = np.flatnonzero(kept)
    follows = np.zeros(len(kept), bool)
    follows[1:] = kept[1:] & kept[:-1]
    begins = at[first] + is_opening[words][first]
    return Spans(
        np.stack([ours.rows[one[first]], ours.rows[one[first + 1]]], 1),
        np.stack([theirs.rows[two[first]], theirs.rows[two[first + 1]]], 1),
        is_opening[words][first],
        follows[first],
        pairs[(pairs != NOWHERE).all(1)],
        int((at[first + 1] - begins).sum()),
    )


def common_ends(
    places: int, ours: Int[np.ndarray, "n"], theirs: Int[np.ndarray, "m"]
) -> tuple[Int[np.ndarray, "ends"], Int[np.ndarray, "ends"]]:
    """The last token of each reading at each place where both end.

    Args:
        places: the length of the axis.
        ours: the ends of one reading's tokens, never falling but for NOWHERE.
        theirs: the ends of the other reading's tokens.
    """
    at = np.full(places, NOWHERE, np.int32)
    other = np.flatnonzero(theirs != NOWHERE)
    # Of several tokens that end at one place the last is written last.
    at[theirs[other]] = other
    own = np.flatnonzero(ours != NOWHERE)
    ends = ours[own]
    is_last = np.append(ends[1:] != ends[:-1], True)[: len(ends)]
    own, ends = own[is_last], ends[is_last]
    common = at[ends] != NOWHERE
    return own[common], at[ends[common]]


def _whole(reading: TextReading, tokens: Int[np.ndarray, "words"]) -> Bool[np.ndarray, "words-1"]:
    """Whether all tokens between two neighbouring ends are predicted, none is lost, and the end is predicted too."""
    rows, lost = reading.rows[tokens], np.concatenate([[0], reading.lost.cumsum(dtype=np.int32)])[tokens + 1]
    predicted = (rows[:-1] != NOWHERE) & (rows[1:] != NOWHERE) & (np.diff(rows) == np.diff(tokens))
    return predicted & (np.diff(lost) == 0)
