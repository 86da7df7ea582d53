"""Layouts: how tokenized documents become samples of at most `sequence_length` tokens.

A sample is the number of tokens that it has of each of its documents, in order, and those tokens.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Sample(NamedTuple):
    """Tokens, and how many of them are of each document."""

    input_ids: list[int]
    documents: list[int]

    def supervised(self, apart: bool) -> int:
        """How many tokens are predicted from the one before: all but the first; of each document, where documents are
        read apart."""
        return len(self.input_ids) - (len(self.documents) if apart else 1)


def packed(documents: Iterable[list[int]], sequence_length: int) -> Iterator[Sample]:
    """Documents end to end, cut every `sequence_length` tokens; what is left at the very end is dropped."""
    buffer: list[int] = []
    sizes: list[int] = []
    for tokens in documents:
        taken = 0
        while taken < len(tokens):
            size = min(len(tokens) - taken, sequence_length - len(buffer))
            buffer += tokens[taken : taken + size]
            sizes.append(size)
            taken += size
            if len(buffer) == sequence_length:
                yield Sample(buffer, sizes)
                buffer, sizes = [], []


def padded(documents: Iterable[list[int]], sequence_length: int) -> Iterator[Sample]:
    """One document a sample, cut at `sequence_length`; one token alone predicts nothing and is dropped."""
    for tokens in documents:
        if len(tokens) > 1:
            cut = tokens[:sequence_length]
            yield Sample(cut, [len(cut)])


def first_tokens(samples: Iterable[Sample], limit: int | None, apart: bool) -> Iterator[Sample]:
    """Samples as long as they have no more supervised tokens together than `limit`; see ``Sample.supervised``."""
    left = limit
    for sample in samples:
        if left is not None:
            left -= sample.supervised(apart)
            if left < 0:
                return
        yield sample
        if left == 0:
            return


def windows(tokens: list[int], sequence_length: int) -> list[list[int]]:
    """A whole document in windows that overlap by one token, so that every token but the first is predicted once."""
    step = sequence_length - 1
    return [tokens[start : start + sequence_length] for start in range(0, max(len(tokens) - 1, 1), step)]


LAYOUTS = {"packed": packed, "padded": padded}
