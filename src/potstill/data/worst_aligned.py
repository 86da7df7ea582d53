"""Worst aligned: the places of some texts that two tokenizers have least in common, for people to read.

They are the longest texts that are not compared, and the longest spans.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int

from potstill.data.aligned_texts import AlignedTexts
from potstill.data.token_bytes import TokenBytes, TokenEnds

SHOWN = 2
"""The number of places of each kind."""
MOST_CHARACTERS, MOST_TOKENS = 60, 12
"""What is told of a place."""


@dataclass(frozen=True)
class AlignedPlace:
    """Some text, and the bytes of the tokens that each tokenizer makes of it."""

    content: bytes
    ours: list[bytes]
    theirs: list[bytes]

    def told(self) -> Iterator[str]:
        """Lines for a terminal, without characters that a terminal would obey."""
        text = self.content.decode(errors="replace")
        yield f"{len(self.content):,} bytes: {text[:MOST_CHARACTERS]!r}{'…' * (len(text) > MOST_CHARACTERS)}"
        for who, tokens in (("student", self.ours), ("teacher", self.theirs)):
            shown = " ".join(map(_shown, tokens[:MOST_TOKENS]))
            yield f"  {who}, {len(tokens):,} tokens: {shown}{' …' * (len(tokens) > MOST_TOKENS)}"


@dataclass
class WorstAligned:
    """The places of the texts that were added.

    Args:
        ours: the bytes of the student's tokens.
        theirs: the bytes of the teacher's tokens.
    """

    ours: TokenBytes
    theirs: TokenBytes
    not_compared: list[AlignedPlace] = field(default_factory=list)
    """The longest first, each text once."""
    spans: list[AlignedPlace] = field(default_factory=list)
    """The same."""

    def add(self, found: AlignedTexts) -> None:
        """Look at some texts."""
        self.not_compared = self._longest(self.not_compared, found, between_spans(found))
        self.spans = self._longest(self.spans, found, found.span_bytes)

    def told(self) -> Iterator[str]:
        """Lines for a terminal."""
        for what, places in (("texts that are not compared", self.not_compared), ("spans", self.spans)):
            if places:
                yield f"the longest {what}:"
                yield from (f"  {line}" for place in places for line in place.told())

    def _longest(
        self, known: Sequence[AlignedPlace], found: AlignedTexts, where: Int[np.ndarray, "n 2"]
    ) -> list[AlignedPlace]:
        """The longest of the known places and of those on the axis of some texts."""
        sizes = where[:, 1] - where[:, 0]
        places = {place.content: place for place in known}
        for at in np.argsort(-sizes, kind="stable").tolist():
            first, stop = where[at].tolist()
            if not sizes[at] or len(places) == len(known) + SHOWN:
                break
            content = found.axis.content[first:stop].tobytes()
            if content not in places:
                places[content] = self._place(found, first, stop)
        return sorted(places.values(), key=lambda place: -len(place.content))[:SHOWN]

    def _place(self, found: AlignedTexts, first: int, stop: int) -> AlignedPlace:
        number = int(found.axis.openings.searchsorted(first, "right")) - 1
        before = int(found.axis.openings[number]) + 1
        begin, end = first - before, stop - before
        ours, theirs = (
            [each.each[token] for token in _within(texts[number], begin, end)]
            for each, texts in ((self.ours, found.ours), (self.theirs, found.theirs))
        )
        return AlignedPlace(found.contents[number][begin:end], ours, theirs)


def between_spans(found: AlignedTexts) -> Int[np.ndarray, "n 2"]:
    """What lies before, between and after the spans of each text, as :attr:`AlignedTexts.span_bytes`. It may be
    empty."""
    begins = found.axis.openings + 1
    stops = begins + np.fromiter(map(len, found.contents), np.int64, len(found.contents))
    # On the axis, a text begins, its spans follow one another, and it stops before the next one begins.
    return np.stack(
        [
            np.sort(np.concatenate([begins, found.span_bytes[:, 1]])),
            np.sort(np.concatenate([found.span_bytes[:, 0], stops])),
        ],
        1,
    )


def _within(text: TokenEnds, begin: int, end: int) -> list[int]:
    """The tokens of some bytes of a text. A space that the tokenizer puts before it is of its first bytes."""
    ids: list[int] = text.ids[((text.ends > begin) | (begin == 0)) & (text.ends <= end)].tolist()
    return ids


def _shown(token: bytes) -> str:
    try:
        return repr(token.decode())
    except UnicodeDecodeError:
        return repr(token)
