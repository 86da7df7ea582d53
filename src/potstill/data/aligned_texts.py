"""Aligned texts: whole texts that two tokenizers read, and the spans between both readings."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from potstill.data.token_alignment import Spans, TextAxis, TextReading, align
from potstill.data.token_bytes import TokenBytes, TokenEnds

_AT_ONCE = 256


class AlignedTexts(NamedTuple):
    """Some texts, each read with a token before it."""

    contents: list[bytes]
    axis: TextAxis
    ours: list[TokenEnds]
    """The student's tokens of each text."""
    theirs: list[TokenEnds]
    """The teacher's."""
    spans: Spans
    span_bytes: Int[np.ndarray, "S 2"]
    """The place on the axis of each span's first byte, and the place after its last."""


def aligned_texts(texts: Iterable[str], ours: TokenBytes, theirs: TokenBytes) -> Iterator[AlignedTexts]:
    """The texts, some at a time.

    Args:
        texts: the texts.
        ours: the bytes of the student's tokens.
        theirs: the bytes of the teacher's tokens.
    """
    texts = iter(texts)
    while some := list(islice(texts, _AT_ONCE)):
        contents = [text.encode() for text in some]
        axis = TextAxis.of(contents)
        own, others = ours.read(some), theirs.read(some)
        reading = text_reading(axis, own)
        spans = align(axis, reading, text_reading(axis, others))
        # A prediction has the number of the token that it is made after.
        first, last = reading.ends[spans.ours].T
        yield AlignedTexts(contents, axis, own, others, spans, np.stack([first + spans.opens, last], 1))


def text_reading(axis: TextAxis, texts: Sequence[TokenEnds]) -> TextReading:
    """One tokenizer's reading of the texts on an axis, each with a token before it."""
    ends = [np.append(at, at + 1 + one.ends) for at, one in zip(axis.openings, texts, strict=True)]
    lost = np.concatenate([np.append(False, one.lost) for one in texts])
    return TextReading(np.concatenate(ends), lost, np.arange(len(lost)))
