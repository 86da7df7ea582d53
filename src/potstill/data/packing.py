"""Layouts: turn tokenized documents into samples of at most `sequence_length` tokens.

A sample holds its tokens and the number of tokens of each of its documents, in order. All its documents have the same
teachers.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from potstill.data.row_teachers import Teachers
from potstill.data.text_runs import DocumentTokens


class TokenizedDocument(NamedTuple):
    """The tokens of a document, and its teachers where rows have teachers of their own."""

    ids: list[int]
    teachers: Teachers = ()
    text: DocumentTokens | None = None
    """Where the tokens end in its text, if samples say which text they are of."""


class Sample(NamedTuple):
    """Tokens, the number of tokens of each document, and the teachers of the documents."""

    input_ids: list[int]
    documents: list[int]
    teachers: Teachers = ()
    runs: Sequence[np.ndarray] = ()
    """The text of the documents (``text_runs.py``), if they say it."""

    def supervised(self, apart: bool) -> int:
        """The number of supervised tokens: all but the first token, or all but the first of each document if documents
        are read `apart`."""
        return len(self.input_ids) - (len(self.documents) if apart else 1)


def packed(documents: Iterable[TokenizedDocument], sequence_length: int) -> Iterator[Sample]:
    """Join documents with the same teachers end to end and cut every `sequence_length` tokens; an incomplete last
    sample is dropped."""
    begun: dict[Teachers, Sample] = {}
    for tokens, teachers, text in documents:
        taken = 0
        while taken < len(tokens):
            sample = begun.setdefault(teachers, Sample([], [], teachers))
            size = min(len(tokens) - taken, sequence_length - len(sample.input_ids))
            if text is not None:
                runs = text.runs(taken, taken + size, len(sample.input_ids))
                sample = begun[teachers] = sample._replace(runs=(*sample.runs, runs))
            sample.input_ids.extend(tokens[taken : taken + size])
            sample.documents.append(size)
            taken += size
            if len(sample.input_ids) == sequence_length:
                yield begun.pop(teachers)


def padded(documents: Iterable[TokenizedDocument], sequence_length: int) -> Iterator[Sample]:
    """One document per sample, cut at `sequence_length`; a document of one token predicts nothing and is dropped."""
    for tokens, teachers, text in documents:
        if len(tokens) > 1:
            cut = tokens[:sequence_length]
            yield Sample(cut, [len(cut)], teachers, () if text is None else (text.runs(0, len(cut), 0),))


def first_tokens(samples: Iterable[Sample], limit: int | None, apart: bool) -> Iterator[Sample]:
    """The first samples, with at most `limit` supervised tokens in all; see ``Sample.supervised``."""
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
    """Windows of a whole document that overlap by one token, so that each token but the first is predicted once."""
    step = sequence_length - 1
    return [tokens[start : start + sequence_length] for start in range(0, max(len(tokens) - 1, 1), step)]


LAYOUTS = {"packed": packed, "padded": padded}
