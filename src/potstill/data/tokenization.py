"""Tokenization: makes tokens of documents, each after its separator."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

from potstill.errors import UserError

DOCUMENTS_AT_ONCE = 1000

CHARACTERS_AT_ONCE = 1 << 20
"""About the text that is tokenized at once: enough for all cores, little beside the limits of memory."""

AHEAD = 2
"""The number of batches that are tokenized before they are asked for."""


@dataclass(frozen=True)
class Encoder:
    """Tokenizes documents. A fast tokenizer uses all cores that this process may use."""

    tokenizer: Any
    separator: Sequence[int]
    """The tokens before each document."""

    def of_stream(self, documents: Iterable[str]) -> Iterator[list[int]]:
        """The tokens of each document of a stream. It is read a thousand documents at a time, and not ahead."""
        documents = iter(documents)
        while batch := list(islice(documents, DOCUMENTS_AT_ONCE)):
            yield from self.encode(batch)

    def of_documents(
        self, documents: Iterable[str], advance: Callable[[int], None] = lambda count: None
    ) -> Iterator[list[int]]:
        """The tokens of each document. A thread tokenizes the next documents while these are used.

        Args:
            documents: the documents.
            advance: told the number of documents that are done.
        """
        waiting: deque[tuple[int, Future[list[list[int]]]]] = deque()
        with ThreadPoolExecutor(1) as thread:
            for batch in _batches(documents):
                waiting.append((len(batch), thread.submit(self.encode, batch)))
                if len(waiting) > AHEAD:
                    yield from _finished(waiting, advance)
            while waiting:
                yield from _finished(waiting, advance)

    def encode(self, documents: list[str]) -> list[list[int]]:
        """The tokens of some documents."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None:
            found = self.tokenizer(documents, add_special_tokens=False, verbose=False).input_ids
            return [[*self.separator, *ids] for ids in found]
        # As the tokenizer's own call does, but without the columns and offsets that nothing here reads.
        backend.no_truncation()
        backend.no_padding()
        found = backend.encode_batch_fast(documents, add_special_tokens=False)
        return [[*self.separator, *encoding.ids] for encoding in found]


def separator_ids(tokenizer: Any, separator: str | None) -> list[int]:
    """The token that stands before each document, or no token.

    Raises:
        UserError: the tokenizer has no such token; or `separator` is None and it has no beginning or end token.
    """
    if separator == "":
        return []
    if separator is None:
        for found in (tokenizer.bos_token_id, tokenizer.eos_token_id):
            if found is not None:
                return [found]
        raise UserError("the tokenizer has neither a beginning nor an end token; name one as `corpus.separator`")
    number = tokenizer.get_vocab().get(separator)
    if number is None:
        raise UserError(f"`corpus.separator`: the tokenizer has no token {separator!r}")
    return [number]


def _batches(documents: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document)
        if characters >= CHARACTERS_AT_ONCE:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _finished(
    waiting: deque[tuple[int, Future[list[list[int]]]]], advance: Callable[[int], None]
) -> Iterator[list[int]]:
    count, future = waiting.popleft()
    yield from future.result()
    advance(count)
