"""Text of a batch: what a teacher of another tokenizer reads, which is the text of the student's tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import gcd
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from potstill.data.collators import Collate, Collator
from potstill.data.labels import starts_document, supervised_mask
from potstill.data.prompts.collator import TEACHER
from potstill.data.token_alignment import NOWHERE, Spans, TextAxis, TextReading, align
from potstill.data.token_bytes import SPACE, TokenBytes, TokenEnds, readable
from potstill.data.tokenization import separator_ids
from potstill.errors import UserError

SPANS, SAME_BYTE = "spans", "same_byte"
"""The teacher's columns with what :func:`align` finds: Int[S, 6] (the student's span, the teacher's span, whether it
opens a text, whether it follows the one before), and for each of the student's predictions the teacher's at the same
byte, or NOWHERE: Int[N]."""


class Piece(NamedTuple):
    """Some text between special tokens, or between the ends of a row."""

    row: int
    opening: int
    """The place of the special token before it, in the batch flattened to B·T; NOWHERE if there is none."""
    is_first: bool
    """Whether it begins a document, as far as the batch tells."""
    is_apart: bool
    """Whether its document does not see the one before it."""
    tokens: slice
    """The places of its tokens."""


@dataclass(frozen=True)
class TextCollator:
    """A collator that adds what the teacher reads to each batch, and where student and teacher stand at the same byte.

    A special token of the student, as a separator is, is no text. Where one stands before a text, the teacher reads the
    token that stands before a text for it. So a token that only one of the two knows is never compared. A character
    that a row has cut is left out for the teacher.

    Args:
        collate: the collator of the student's batches.
        ours: the bytes of the student's tokens.
        theirs: the bytes of the teacher's tokens.
        positions: the number of tokens that the teacher can read; None: no limit.
        cut: whether a longer text loses its end, and is not compared there. Else it is refused.

    Raises:
        UserError: the samples have tokens of their own for the teacher, or are too long for it.
    """

    collate: Collate
    ours: TokenBytes
    theirs: TokenBytes
    positions: int | None = None
    cut: bool = False
    _before: list[int] = field(init=False)
    _always: bool = field(init=False)

    def __post_init__(self) -> None:
        before, always = before_text(self.theirs.tokenizer)
        object.__setattr__(self, "_before", before)
        object.__setattr__(self, "_always", always)

    def __call__(self, samples: Sequence[Any]) -> dict[str, Tensor]:
        """The collator's batch, with the teacher's columns."""
        batch = self.collate(samples)
        if any(name.startswith(TEACHER) for name in batch):
            raise UserError(
                "samples have tokens of their own for the teacher, which a teacher of another tokenizer cannot read; "
                "let both read the same text"
            )
        return batch | {f"{TEACHER}{name}": value for name, value in self.columns(batch, samples).items()}

    def columns(self, batch: Mapping[str, Tensor], samples: Sequence[Any]) -> dict[str, Tensor]:
        """The teacher's columns of a batch, without their prefix. The text is that of the batch's tokens, and not of
        its samples."""
        ids = batch["input_ids"].numpy().reshape(-1)
        pieces = self._pieces(batch, ids)
        contents, own_ends = self._texts(ids, pieces)
        axis = TextAxis.of(contents)
        cuts = [readable(content) for content in contents]
        read = self.theirs.read([text for _, text in cuts])
        ends = np.full(len(ids), NOWHERE, np.int64)
        for piece, at, own in zip(pieces, axis.openings.tolist(), own_ends, strict=True):
            ends[piece.tokens] = at + 1 + own
            if piece.opening != NOWHERE:
                ends[piece.opening] = at
        ours = TextReading(ends, np.zeros(len(ids), bool), rows_of_predictions(batch))
        theirs = _TeacherTokens(len(batch["input_ids"]), "position_ids" in batch)
        for piece, at, found, (cut, _) in zip(pieces, axis.openings.tolist(), read, cuts, strict=True):
            theirs.add(piece, self._opening(theirs, piece), at, cut, found)
        if self.cut and self.positions is not None:
            theirs.cut(self.positions)
        teacher = theirs.batch(self.theirs.tokenizer, self.positions)
        self._check_length(teacher)
        spans = align(axis, ours, theirs.reading(teacher))
        return teacher | columns(spans, int(supervised_mask(batch).sum()))

    def _pieces(self, batch: Mapping[str, Tensor], ids: Int[np.ndarray, "BT"]) -> list[Piece]:
        """The pieces of text of a batch, in its order."""
        width = batch["input_ids"].shape[1]
        starts = starts_document(batch).numpy().reshape(-1)
        real = batch["attention_mask"].numpy().reshape(-1).astype(bool) if "attention_mask" in batch else ids >= 0
        is_text = real & (self.ours.lengths[ids] > 0)
        begins_row = np.arange(len(ids)) % width == 0
        before = np.append(False, is_text[:-1])
        firsts = np.flatnonzero(is_text & (begins_row | ~before | starts))
        after = np.append(is_text[1:], False) & ~np.append(starts[1:] | begins_row[1:], True)
        stops = np.flatnonzero(is_text & ~after) + 1
        found: list[Piece] = []
        for first, stop in zip(firsts.tolist(), stops.tolist(), strict=True):
            row = first // width
            opens = first % width > 0 and not starts[first] and bool(real[first - 1]) and not is_text[first - 1]
            head = first - 1 if opens else first
            is_first = opens or (bool(found) and found[-1].row == row)
            found.append(Piece(row, head if opens else NOWHERE, is_first, bool(starts[head]), slice(first, stop)))
        return found

    def _texts(
        self, ids: Int[np.ndarray, "BT"], pieces: Sequence[Piece]
    ) -> tuple[list[bytes], list[Int[np.ndarray, "n"]]]:
        """The bytes of each piece, and where its tokens end in them."""
        contents, ends = [], []
        for piece in pieces:
            own = ids[piece.tokens]
            content, at = self.ours.joined(own), self.ours.lengths[own].cumsum()
            if piece.is_first and self.ours.adds_space and content[:1] == SPACE:
                content, at = content[1:], np.maximum(at - 1, 0)
            contents.append(content)
            ends.append(at)
        return contents, ends

    def _opening(self, rows: "_TeacherTokens", piece: Piece) -> list[int]:
        begins_row = self._always and not rows.ids[piece.row]
        return self._before if piece.opening != NOWHERE or begins_row else []

    def _check_length(self, teacher: Mapping[str, Tensor]) -> None:
        places = teacher.get("position_ids")
        longest = int((teacher["attention_mask"].sum(1) if places is None else places + 1).max())
        if self.positions is not None and longest > self.positions:
            raise UserError(
                f"the text of a sample has {longest:,} tokens of {self.theirs.name}, but that reads only "
                f"{self.positions:,}; make the samples shorter (`corpus.sequence_length`)"
            )


def before_text(tokenizer: Any) -> tuple[list[int], bool]:
    """The tokens that a teacher reads before a text, and whether it has never read a text without them."""
    # A tokenizer that always puts a token before a text has a model that has never read a text without it.
    bare, whole = (tokenizer("a", add_special_tokens=special).input_ids for special in (False, True))
    own = list(whole[: len(whole) - len(bare)]) if whole[: -len(bare)] and whole[-len(bare) :] == bare else []
    known = tokenizer.bos_token_id is not None or tokenizer.eos_token_id is not None
    return own or (separator_ids(tokenizer, None) if known else []), bool(own)


class _TeacherTokens:
    """The teacher's tokens of a batch, row by row."""

    def __init__(self, rows: int, apart: bool) -> None:
        self.ids: list[list[int]] = [[] for _ in range(rows)]
        self._ends: list[list[int]] = [[] for _ in range(rows)]
        self._lost: list[list[bool]] = [[] for _ in range(rows)]
        self._documents: list[list[int]] = [[] for _ in range(rows)]
        self._apart = apart

    def add(self, piece: Piece, before: list[int], opening: int, cut: int, found: TokenEnds) -> None:
        """Add a piece to its row.

        Args:
            piece: the piece.
            before: the tokens before it.
            opening: its opening on the axis.
            cut: the bytes of it that are left out before the text.
            found: the tokens of the text.
        """
        row = piece.row
        if piece.is_apart or not self._documents[row]:
            self._documents[row].append(0)
        opens = [NOWHERE] * len(before)
        if before and piece.opening != NOWHERE:
            opens[-1] = opening
        self.ids[row] += [*before, *found.ids.tolist()]
        self._ends[row] += [*opens, *(opening + 1 + cut + found.ends).tolist()]
        self._lost[row] += [*([False] * len(before)), *found.lost.tolist()]
        self._documents[row][-1] += len(before) + len(found.ids)

    def cut(self, most: int) -> None:
        """Cut rows of more tokens than this, which are one document each."""
        assert not self._apart
        for rows in (self.ids, self._ends, self._lost):
            for row in rows:
                del row[most:]

    def batch(self, tokenizer: Any, positions: int | None) -> dict[str, Tensor]:
        """The rows as one batch. A row without text has one token, of which nothing is learned.

        Args:
            tokenizer: the teacher's.
            positions: the number of tokens that the teacher can read; None: no limit.
        """
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        samples = []
        for ids, documents in zip(self.ids, self._documents, strict=True):
            sizes = {"documents": [size for size in documents if size] or [1]} if self._apart else {}
            samples.append({"input_ids": ids or [pad], **sizes})
        longest = max(len(sample["input_ids"]) for sample in samples)
        # A CPU multiplies bf16 up to a third faster where the number of tokens is a multiple of 16.
        step = 16 // gcd(16, len(samples))
        length = -(-longest // step) * step
        return Collator(pad, min(length, positions or length))(samples)

    def reading(self, batch: Mapping[str, Tensor]) -> TextReading:
        """What the alignment needs of these rows."""
        shape = batch["input_ids"].shape
        ends, lost = np.full(shape, NOWHERE, np.int64), np.zeros(shape, bool)
        for row, (own, gone) in enumerate(zip(self._ends, self._lost, strict=True)):
            ends[row, : len(own)], lost[row, : len(own)] = own, gone
        return TextReading(ends.reshape(-1), lost.reshape(-1), rows_of_predictions(batch))


def columns(spans: Spans, tokens: int) -> dict[str, Tensor]:
    """Spans as columns of a batch with this number of the student's predictions."""
    flags = np.stack([spans.opens, spans.follows], 1)
    same = np.full(tokens, NOWHERE, np.int64)
    same[spans.pairs[:, 0]] = spans.pairs[:, 1]
    found = np.concatenate([spans.ours, spans.theirs, flags], 1).astype(np.int64)
    return {SPANS: torch.from_numpy(found), SAME_BYTE: torch.from_numpy(same)}


def rows_of_predictions(batch: Mapping[str, Tensor]) -> Int[np.ndarray, "BT"]:
    """The number of the prediction that is made at each place of a batch; NOWHERE where none is learned."""
    taught: Bool[np.ndarray, "BT"] = supervised_mask(batch).numpy().reshape(-1)
    return np.where(taught, taught.cumsum() - 1, NOWHERE)
