"""Capture of spans: run a teacher once over documents, for students of every tokenizer.

What a teacher says of a student's sample depends on where the student's tokenizer has cut it. A store for every student
cannot. So the teacher reads whole documents, each alone, after the token that it reads before a text. A live teacher
reads the text of the sample instead. Of a sample that begins within a document, it does not know what was before, and
this one knows some of it. Where samples are the beginnings of documents, both say the same.

A document is read in blocks of bytes (``targets/span_slices.py``). Before a block, the teacher reads some tokens again
that precede it. A block that does not fit into the teacher's positions is read in several rows.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from potstill.console import progress
from potstill.data.collators import Collator, pad_token_id
from potstill.data.labels import IGNORE_INDEX
from potstill.data.positions import supervised_labels
from potstill.data.stored_texts import hash_of
from potstill.data.text_of_batch import before_text
from potstill.data.token_bytes import TokenBytes, TokenEnds
from potstill.device import device, to_device
from potstill.losses.compiled_kernels import worth_compiling
from potstill.losses.span_likelihood import TokenNumbers
from potstill.losses.span_scores import numbers_of, numbers_of_likeliest
from potstill.losses.teacher_target import HiddenTarget, LogitsTarget, SparseTarget, TeacherTarget
from potstill.models.size import positions_of
from potstill.targets import StoreSpec, StoreWriter
from potstill.targets.codecs.spans import SpanCodec, SpanNumbers
from potstill.targets.content_keys import key_array
from potstill.targets.span_slices import block_key
from potstill.teachers.beside import TeacherBeside

BLOCK = 4000
"""The bytes of a block: some 1,000 tokens of English."""

CONTEXT = 256
"""The tokens that are read again before a block: a quarter of its reading."""

LONGEST = 2048
"""The greatest number of tokens in a row, for teachers that can read more."""

_DOCUMENTS_AT_ONCE = 256


def span_codec(teacher: Any, tokenizer: Any) -> SpanCodec:
    """The codec of a teacher's spans.

    Args:
        teacher: the teacher's configuration.
        tokenizer: its tokenizer.
    """
    text = teacher.get_text_config() if hasattr(teacher, "get_text_config") else teacher
    longest = min(LONGEST, positions_of(text) or LONGEST)
    before, _ = before_text(tokenizer)
    return SpanCodec(BLOCK, min(CONTEXT, longest // 4), longest, opens=bool(before))


class Blocks(NamedTuple):
    """The blocks of documents, in the order in which they are read: of the longest documents first."""

    keys: np.ndarray
    """As ``content_keys.key_array`` gives them."""
    document: Int[np.ndarray, "blocks"]
    """The place of each block's document."""
    number: Int[np.ndarray, "blocks"]
    """Its number in the document."""
    first: Int[np.ndarray, "blocks"]
    """The first of the document's tokens in it."""
    counts: Int[np.ndarray, "blocks"]
    """The number of its tokens."""


class BlockRow(NamedTuple):
    """What the teacher reads at once."""

    ids: list[int]
    """Its tokens: those before a text or a context, the tokens of a block, and the token after them."""
    tokens: int
    """The number of tokens of the block."""
    is_predicted: bool
    """Whether a token stands before the first of them, so that it is predicted."""

    @property
    def sample(self) -> dict[str, list[int]]:
        """The row as a sample, whose last tokens are labels."""
        labels = self.tokens + 1
        return {"input_ids": self.ids, "labels": [IGNORE_INDEX] * (len(self.ids) - labels) + self.ids[-labels:]}

    @property
    def predictions(self) -> int:
        """The number of its tokens that are predicted, with the token after those of the block."""
        return self.tokens + self.is_predicted

    def numbers(self, found: TokenNumbers) -> TokenNumbers:
        """The numbers of each token of the block, of those of the row's predictions.

        A token has its own probability, and the word mass of the prediction after it. The first token of a document
        has the logarithm 0, if nothing predicts it.
        """
        log_p = found.log_p[:-1] if self.is_predicted else torch.cat([torch.zeros(1), found.log_p[:-1]])
        return TokenNumbers(log_p, found.log_mass[int(self.is_predicted) :])


@dataclass
class UntoldMass:
    """The probability mass of the tokens that a teacher does not tell, over its predictions."""

    tokens: int = 0
    mean: float = 0.0
    largest: float = 0.0

    def add(self, mass: Float[Tensor, "N"]) -> None:
        """Count some predictions."""
        if len(mass):
            self.merge(UntoldMass(len(mass), float(mass.mean()), float(mass.max())))

    def merge(self, other: "UntoldMass") -> None:
        """Count what another has counted."""
        self.tokens += other.tokens
        self.mean += (other.mean - self.mean) * other.tokens / max(self.tokens, 1)
        self.largest = max(self.largest, other.largest)


@dataclass(frozen=True)
class DocumentBlocks:
    """Documents, and how a teacher reads them.

    Args:
        documents: the documents, which may be read from a disk.
        theirs: the bytes of the teacher's tokens.
        codec: the size of blocks and rows.
    """

    documents: Sequence[str]
    theirs: TokenBytes
    codec: SpanCodec
    _read: dict[int, TokenEnds] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def _before(self) -> tuple[list[int], bool]:
        return before_text(self.theirs.tokenizer)

    @cached_property
    def blocks(self) -> Blocks:
        """The blocks of all documents."""
        size, keys, parts = self.codec.block, [key_array([])], [np.zeros((0, 5), np.int64)]
        for start in range(0, len(self.documents), _DOCUMENTS_AT_ONCE):
            texts = [self.documents[at] for at in range(start, min(start + _DOCUMENTS_AT_ONCE, len(self.documents)))]
            for place, (text, tokens) in enumerate(zip(texts, self.theirs.read(texts), strict=True), start):
                hashed, blocks = hash_of(text), -(-len(text.encode()) // size)
                counts = np.bincount(np.maximum(tokens.ends - 1, 0) // size, minlength=blocks)
                keys.append(key_array(block_key(hashed, number) for number in range(blocks)))
                each = np.arange(blocks)
                whole = np.full(blocks, len(tokens.ids))
                parts.append(np.stack([np.full(blocks, place), each, counts.cumsum() - counts, counts, whole], 1))
        found = np.concatenate(parts)
        order = np.argsort(-found[:, 4], kind="stable")
        document, number, first, counts, _ = found[order].T
        return Blocks(np.concatenate(keys)[order], document, number, first, counts)

    def tokens(self, places: Int[np.ndarray, "batch"]) -> list[TokenEnds]:
        """The tokens of the documents of some blocks; those of the last blocks stay in memory for the next ones."""
        wanted = [int(one) for one in self.blocks.document[places]]
        new = [one for one in dict.fromkeys(wanted) if one not in self._read]
        read = dict(zip(new, self.theirs.read([self.documents[one] for one in new]), strict=True))
        kept = {one: read[one] if one in read else self._read[one] for one in dict.fromkeys(wanted)}
        self._read.clear()
        self._read.update(kept)
        return [kept[one] for one in wanted]

    def rows(self, place: int, tokens: TokenEnds) -> list[BlockRow]:
        """The rows of a block, given the tokens of its document."""
        before, always = self._before
        first, stop = int(self.blocks.first[place]), int(self.blocks.first[place] + self.blocks.counts[place])
        # The last token of a document is followed by one whose probability nobody asks for.
        ids, rows, begin = [*tokens.ids.tolist(), before[-1] if before else 0], list[BlockRow](), first
        while begin < stop:
            context = max(begin - self.codec.context, 0)
            end = min(context + self.codec.longest - len(before) - 1, stop)
            own = before if always or not context else []
            rows.append(BlockRow([*own, *ids[context : end + 1]], end - begin, begin > 0 or bool(own)))
            begin = end
        return rows

    def numbers(self, place: int, tokens: TokenEnds, rows: Sequence[TokenNumbers]) -> SpanNumbers:
        """What the teacher says of a block, given the numbers of its rows."""
        first, count, size = (int(each[place]) for each in (self.blocks.first, self.blocks.counts, self.blocks.number))
        of_block = slice(first, first + count)
        step = np.diff(tokens.ends[of_block], prepend=size * self.codec.block)
        log_p, log_mass = (
            (torch.cat([torch.zeros(0), *each]) for each in zip(*rows, strict=True)) if rows else [torch.zeros(0)] * 2
        )
        return SpanNumbers(log_p, log_mass, torch.from_numpy(step), torch.from_numpy(tokens.lost[of_block]))


def capture_spans(
    store: StoreSpec,
    teacher: TeacherBeside,
    documents: DocumentBlocks,
    batch_size: int,
    worker: int = 0,
    workers: int = 1,
) -> tuple[int, UntoldMass]:
    """Write what a teacher says of documents into a store; blocks that are there already are not written again.

    Args:
        store: the store, with the codec of the documents.
        teacher: the teacher. Its targets are whole distributions, or tell the likeliest tokens and the label.
        documents: the documents.
        batch_size: the number of rows that the teacher reads at the same time.
        worker: the number of this worker. Each writes its own shards.
        workers: how many workers write the store together.

    Returns:
        The number of the teacher's tokens of all documents; and the mass that it did not tell of those that it read
        here, without those of an earlier attempt.

    Raises:
        UserError: the folder holds the store of another teacher or corpus, or the disk is full.
    """
    assert store.codec == documents.codec
    blocks = documents.blocks
    # By all of the text, so that a capture that goes on says the same.
    compile = worth_compiling(int(blocks.counts.sum()), len(documents.theirs.each), device())
    reading = _BlocksAsked(documents, batch_size, compile)
    with (
        StoreWriter(store, blocks.keys, blocks.counts) as writer,
        progress(
            f"capturing {store.provenance.teacher}", writer.header.samples, "blocks", writer.samples_written()
        ) as advance,
    ):

        def write_finished() -> None:
            for numbers, count in reading.finished():
                writer.write(numbers)
                advance(count)

        batches = (batch for places in writer.pending(batch_size, worker, workers) for batch in reading.batches(places))
        for target in teacher.targets(batches):
            reading.take(target)
            write_finished()
        write_finished()
    return int(blocks.counts.sum()), reading.untold


def read_blocks(
    teacher: TeacherBeside, documents: DocumentBlocks, places: Int[np.ndarray, "batch"], batch_size: int
) -> SpanNumbers:
    """What a teacher says of some blocks, block after block."""
    reading = _BlocksAsked(documents, batch_size)
    for target in teacher.targets(reading.batches(places)):
        reading.take(target)
    ((found, _),) = reading.finished()
    return found


def told_numbers(
    target: TeacherTarget,
    labels: Int[Tensor, "N"],
    begins_word: Bool[Tensor, "V"],
    ends_turn: Bool[Tensor, "V"] | None = None,
    compile: bool = False,
) -> tuple[TokenNumbers, Float[Tensor, "N"] | None]:
    """The numbers of a teacher's predictions; and the mass of the tokens that it does not tell, if it tells some alone.

    Args:
        target: what the teacher says: whole distributions, or the likeliest tokens and the label.
        labels: the tokens that follow.
        begins_word: whether the bytes of each id begin with a space.
        ends_turn: whether each id ends a turn; None: none does.
        compile: whether to fuse the passes over whole distributions.
    """
    if isinstance(target, SparseTarget):
        return numbers_of_likeliest(target, labels, begins_word, ends_turn)
    assert isinstance(target, HiddenTarget | LogitsTarget)
    return numbers_of(target, labels, begins_word, ends_turn, compile), None


class _BlocksAsked:
    """Blocks that a teacher is asked for, and its answers. A teacher may be asked for some batches ahead."""

    def __init__(self, documents: DocumentBlocks, batch_size: int, compile: bool = False) -> None:
        self._documents, self._batch_size, self._compile = documents, batch_size, compile
        self.untold = UntoldMass()
        self._begins = torch.from_numpy(documents.theirs.begins_word)
        self._collate = Collator(pad_token_id(documents.theirs.tokenizer))
        self._asked: deque[tuple[list[BlockRow], Tensor]] = deque()
        self._blocks: deque[list[tuple[int, TokenEnds, int]]] = deque()
        self._answers: deque[TokenNumbers] = deque()

    def batches(self, places: Int[np.ndarray, "batch"]) -> Iterator[dict[str, Tensor]]:
        """The batches of some blocks, which are written together."""
        rows, asked = list[BlockRow](), list[tuple[int, TokenEnds, int]]()
        for place, tokens in zip(places.tolist(), self._documents.tokens(places), strict=True):
            own = self._documents.rows(place, tokens)
            asked.append((place, tokens, len(own)))
            rows += own
        self._blocks.append(asked)
        for at in range(0, len(rows), self._batch_size):
            some = rows[at : at + self._batch_size]
            batch = self._collate([row.sample for row in some])
            self._asked.append((some, supervised_labels(batch)))
            yield to_device(batch)

    def take(self, target: TeacherTarget) -> None:
        """Take the teacher's answer to the first batch that it has not answered."""
        rows, labels = self._asked.popleft()
        found, untold = told_numbers(target, labels.to(device()), self._begins.to(device()), compile=self._compile)
        if untold is not None:
            self.untold.add(untold)
        sizes = [row.predictions for row in rows]
        log_p, log_mass = (each.float().cpu().split(sizes) for each in found)
        self._answers += [row.numbers(TokenNumbers(*own)) for row, *own in zip(rows, log_p, log_mass, strict=True)]

    def finished(self) -> Iterator[tuple[SpanNumbers, int]]:
        """What the teacher says of blocks whose answers are all there, and the number of blocks; batch by batch."""
        while self._blocks and sum(rows for *_, rows in self._blocks[0]) <= len(self._answers):
            batch = self._blocks.popleft()
            found = [
                self._documents.numbers(place, tokens, [self._answers.popleft() for _ in range(rows)])
                for place, tokens, rows in batch
            ]
            yield SpanNumbers(*map(torch.cat, zip(*(vars(one).values() for one in found), strict=True))), len(batch)
