"""Layouts: how tokenized documents become samples of at most `sequence_length` tokens."""

from collections.abc import Iterable, Iterator


def packed(documents: Iterable[list[int]], sequence_length: int) -> Iterator[list[int]]:
    """Documents end to end, cut every `sequence_length` tokens; what is left at the very end is dropped."""
    buffer: list[int] = []
    for tokens in documents:
        buffer += tokens
        whole = len(buffer) - len(buffer) % sequence_length
        for start in range(0, whole, sequence_length):
            yield buffer[start : start + sequence_length]
        del buffer[:whole]


def padded(documents: Iterable[list[int]], sequence_length: int) -> Iterator[list[int]]:
    """One document a sample, cut at `sequence_length`; one token alone predicts nothing and is dropped."""
    for tokens in documents:
        if len(tokens) > 1:
            yield tokens[:sequence_length]


def windows(tokens: list[int], sequence_length: int) -> list[list[int]]:
    """A whole document in windows that overlap by one token, so that every token but the first is predicted once."""
    step = sequence_length - 1
    return [tokens[start : start + sequence_length] for start in range(0, max(len(tokens) - 1, 1), step)]


LAYOUTS = {"packed": packed, "padded": padded}
