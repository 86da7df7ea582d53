"""Measured text: the samples and tokens of documents that are on this machine.

Documents are read, cleaned and split as the corpus stage does it. Some of them are tokenized, and tell of the rest.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from potstill.data.babylm_cleaning import clean, source_of
from potstill.data.documents import texts, texts_of
from potstill.data.splitting import DocumentSplit, split_documents
from potstill.data.stored_texts import TaughtText
from potstill.data.text_files import PLAIN
from potstill.errors import UserError
from potstill.planning.amounts import Amounts, held_out_text, text_bytes
from potstill.planning.ranges import ZERO, Range
from potstill.planning.sampling.estimate import drawn, mean, ratio
from potstill.planning.sampling.local_files import MOST_BYTES, bytes_in, local_files
from potstill.planning.teacher_tokens import bytes_per_token
from potstill.recipe import Recipe
from potstill.recipe.corpus import Corpus, HeldOutText, Source

PIECE = 2**14
"""Characters of a piece of a document. Long documents are tokenized in pieces."""
CHARACTERS = 2**21
"""The greatest number of characters that are tokenized to tell the tokens of a character."""
DOCUMENTS = 1500
"""The greatest number of documents that are tokenized to tell the lengths of documents."""
OF_BEGINNINGS = 1.15
"""The factor by which the beginnings of files may differ from their rest."""
OF_HELD_OUT = Range.around(1.0, 1.05, 1.05)
"""The factor by which held-out documents may have more or fewer tokens for a character."""

Encode = Callable[[list[str]], list[list[int]]]
"""Makes tokens of texts, without separators."""


@dataclass(frozen=True)
class _ReadText:
    """What was read of a text."""

    split: DocumentSplit
    times: Range
    """How many times as long the whole text is."""


@dataclass(frozen=True)
class _Tokens:
    """What the tokenizer, or the assumption in its place, tells of the documents that were read."""

    count: int
    """The number of documents to train on."""
    per_character: Range
    whole: Range
    """The tokens of all of them, separators included."""
    lengths: list[float]
    """The tokens of some of them, separators included; of a long one, those of its first piece."""
    share: float
    """The share of the characters that was tokenized."""


@dataclass(frozen=True)
class _Laid:
    """Documents in a layout."""

    samples: Range
    length: Range
    """The tokens of a sample."""
    answer: Range
    """Those of them that are learned."""
    lost: dict[str, Range]
    """What is left out, in words."""
    lengths: tuple[float, ...] = ()
    """Of some samples of unequal length."""


def measured_text(
    recipe: Recipe,
    corpus: Corpus,
    encode: Encode | None,
    separator: int,
    teachers: Mapping[str, Encode] = MappingProxyType({}),
) -> Amounts:
    """The amounts of a text whose sources are on this machine.

    Args:
        recipe: the recipe.
        corpus: its corpus.
        encode: tokenizes texts; None: the tokenizer is not there yet.
        separator: the number of tokens before each document.
        teachers: tokenizes texts as the teachers of another tokenizer do, by their names.

    Raises:
        UserError: a source is not on this machine; or as `texts`.
    """
    read = _read(corpus)
    if not read.split.train:
        raise UserError("`corpus.sources` give no document to train on")
    tokens = _tokens(read.split.train, encode, bytes_per_token(recipe), separator)
    theirs = {
        name: _tokens(read.split.train, other, bytes_per_token(recipe), separator).whole / tokens.whole
        for name, other in teachers.items()
    }
    shortest = corpus.shortest + separator if corpus.shortest else 0
    laid = (_packed if corpus.layout == "packed" else _padded)(corpus, tokens, shortest)
    samples, notes = laid.samples * read.times, list[str]()
    if corpus.train_tokens is not None:
        if (samples * laid.answer).expected < corpus.train_tokens:
            notes.append(f"the text has less than the {corpus.train_tokens:,} tokens of `corpus.train_tokens`")
        limit = Range.exactly(corpus.train_tokens) / laid.answer
        samples = Range(*(min(pair) for pair in zip(samples.to_list(), limit.to_list(), strict=True)))
    samples = Range(*(float(math.floor(one)) for one in samples.to_list()))
    longest = max(laid.length.high, min(float(corpus.sequence_length), max(tokens.lengths, default=0.0)))
    length = Range(laid.length.low, laid.length.expected, longest)
    held_out = _held_out(recipe, corpus, read, tokens.per_character, separator)
    repeated = Range.exactly(read.split.repeated) * read.times
    return Amounts(
        samples=samples,
        tokens=samples * laid.length,
        length=length,
        teacher_length=length,
        answer=laid.answer,
        held_out_samples=held_out[0],
        held_out_tokens=held_out[1],
        validation_samples=corpus.validation or 0,
        origin=_origin(read, tokens, encode),
        notes=tuple(notes),
        teacher_tokens=theirs,
        lengths=laid.lengths,
        lost={
            "documents that repeat others": repeated,
            **{name: one * read.times for name, one in laid.lost.items()},
        },
    )


def _origin(read: _ReadText, tokens: _Tokens, encode: Encode | None) -> str:
    part = "the text" if read.times.is_exact else "the beginnings of the text's files"
    if encode is None:
        return f"measured on {part}, with an assumed length of a token, because the tokenizer is not there yet"
    return f"measured on {part}, {tokens.share:.0%} of which was tokenized"


def _read(corpus: Corpus) -> _ReadText:
    # What is also in a separate held-out text is not looked for.
    held_out = 0.0 if isinstance(corpus.held_out, HeldOutText) else corpus.held_out
    files = local_files(corpus.sources, "corpus.sources")
    if bytes_in(files) <= MOST_BYTES:
        whole = split_documents(texts(corpus.sources, corpus.cleaning, "corpus.sources", {}), held_out)
        return _ReadText(whole, Range.exactly(1.0))
    part = MOST_BYTES / bytes_in(files)
    beginnings = (
        text
        for index, source in enumerate(corpus.sources)
        for text in _beginning(source, corpus, f"corpus.sources.{index}", part)
    )
    split = split_documents(beginnings, held_out)
    size = sum(len(text.encode()) for side in (split.train, split.held_out) for text in side)
    every = sum((text_bytes(file) for file in files), ZERO) / float(max(1, size))
    least, expected, most = (max(1.0, one) for one in every.to_list())
    return _ReadText(split, Range(least / OF_BEGINNINGS, expected, most * OF_BEGINNINGS))


def _beginning(source: Source, corpus: Corpus, key: str, part: float) -> Iterator[TaughtText]:
    """The first documents of a source, as far as a part of its bytes."""
    files = local_files([source], key)
    if all(file.suffix in PLAIN for file in files):
        yield from (TaughtText(_beginning_of(file, corpus, part)) for file in files)
        return
    left = bytes_in(files) * part
    for text in texts_of(source, corpus.cleaning, key, {}):
        yield text
        left -= len(text.text.encode())
        if left <= 0:
            return


def _beginning_of(file: Path, corpus: Corpus, part: float) -> str:
    with file.open(encoding="utf-8-sig", errors="ignore") as stream:
        text = stream.read(max(1, round(file.stat().st_size * part)))
    return text if corpus.cleaning is None else clean(source_of(file), text, corpus.cleaning.rules)


def _tokens(train: Sequence[str], encode: Encode | None, assumed: Range, separator: int) -> _Tokens:
    def count(several: list[str]) -> list[float]:
        if encode is None:
            return [len(text.encode()) / assumed.expected for text in several]
        return [float(len(ids)) for ids in encode(several)]

    sizes = [len(text) for text in train]
    places = [(number, start) for number, size in enumerate(sizes) for start in range(0, size, PIECE)]
    most = math.ceil(len(places) * CHARACTERS / max(1, sum(sizes)))
    pieces = [
        train[number][start : start + PIECE] for number, start in (places[one] for one in drawn(len(places), most))
    ]
    per_character = ratio(count(pieces), [float(len(one)) for one in pieces], len(places))
    if encode is None:
        per_character = per_character * Range(assumed.expected / assumed.high, 1.0, assumed.expected / assumed.low)
    firsts = [train[number][:PIECE] for number in drawn(len(sizes), DOCUMENTS)]
    return _Tokens(
        count=len(sizes),
        per_character=per_character,
        whole=per_character * float(sum(sizes)) + float(separator * len(sizes)),
        lengths=[one + separator for one in count(firsts)],
        share=sum(map(len, pieces)) / max(1, sum(sizes)),
    )


def _packed(corpus: Corpus, tokens: _Tokens, shortest: int) -> _Laid:
    width, whole, lost = float(corpus.sequence_length), tokens.whole, dict[str, Range]()
    if shortest:
        less = mean([one if one < shortest else 0.0 for one in tokens.lengths], tokens.count) * float(tokens.count)
        whole = Range(
            *sorted(
                max(0.0, one) for one in (whole.low - less.high, whole.expected - less.expected, whole.high - less.low)
            )
        )
        lost = _short(tokens, shortest)
    # The first token of a sample is not learned, or that of each document in it.
    apart = tokens.count * width / max(1.0, whole.expected) if corpus.attention == "document" else 0.0
    return _Laid(whole / width, Range.exactly(width), Range.exactly(max(1.0, width - 1 - apart)), lost)


def _padded(corpus: Corpus, tokens: _Tokens, shortest: int) -> _Laid:
    width, count = float(corpus.sequence_length), float(tokens.count)
    # A document of one token predicts nothing.
    kept = [one for one in tokens.lengths if one >= max(shortest, 2)]
    share = mean([float(one >= max(shortest, 2)) for one in tokens.lengths], count)
    length = mean([min(one, width) for one in kept] or [width], len(kept) * count / max(1, len(tokens.lengths)))
    cut = mean([float(one > width) for one in tokens.lengths], count)
    lost = (_short(tokens, shortest) if shortest else {}) | {
        "documents that `corpus.sequence_length` cuts": cut.at_most(1.0) * count
    }
    length = length.at_most(width)
    return _Laid(share.at_most(1.0) * count, length, length + -1.0, lost, tuple(min(one, width) for one in kept))


def _short(tokens: _Tokens, shortest: int) -> dict[str, Range]:
    share = mean([float(one < shortest) for one in tokens.lengths], tokens.count)
    return {"documents shorter than `corpus.shortest`": share.at_most(1.0) * float(tokens.count)}


def _held_out(
    recipe: Recipe, corpus: Corpus, read: _ReadText, per_character: Range, separator: int
) -> tuple[Range | None, Range | None]:
    """The held-out documents that are measured, and their tokens."""
    if isinstance(corpus.held_out, HeldOutText):
        return held_out_text(recipe, corpus)
    held_out = read.split.held_out
    # They are not tokenized themselves.
    tokens = per_character * OF_HELD_OUT * float(sum(map(len, held_out))) + float(separator * len(held_out))
    count, limit = read.times * float(len(held_out)), recipe.evaluate.documents
    if limit is None or limit >= count.high:
        return count, tokens * read.times
    of_one = tokens / float(max(1, len(held_out)))
    return count.at_most(float(limit)), Range(0.5, 1.0, 2.0) * of_one * count.at_most(float(limit))
