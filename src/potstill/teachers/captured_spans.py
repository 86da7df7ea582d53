"""Captured spans: a teacher of another tokenizer, from a store of two numbers for each of its tokens."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from potstill.data.collators import Collate
from potstill.data.positions import supervised_labels
from potstill.data.text_of_batch import SAME_BYTE, SPANS
from potstill.data.token_bytes import TokenBytes
from potstill.data.tokenizers import tokenizer_fingerprint
from potstill.data.turns_of_batch import TurnsCollator
from potstill.errors import UserError
from potstill.losses.span_likelihood import TokenNumbers, joined
from potstill.losses.teacher_target import SpanTarget
from potstill.models.forward import LayerStates
from potstill.targets import TargetStore
from potstill.targets.codecs.registry import CrossingCodec
from potstill.targets.codecs.spans import SpanCodec
from potstill.targets.span_collator import NUMBERS, SpanCollator
from potstill.targets.span_slices import SpanSlices
from potstill.targets.turn_collator import CapturedTurnsCollator


class CapturedSpans:
    """A captured teacher of another tokenizer, in the place of a live one (``across_tokenizers.TeacherAcross``).

    Args:
        store: the store, of spans or of turns.
        ours: the bytes of the student's tokens.
        theirs: the bytes of the teacher's tokens, by which turns are aligned; None where they are not known.
    """

    gives_whole_distributions = False
    vocabulary: int | None = None
    config: Any = None
    embeddings = 0
    head = None
    longest: int | None = None
    """What is too long for the teacher was left out when it was captured."""

    def __init__(self, store: TargetStore, ours: TokenBytes, theirs: TokenBytes | None = None) -> None:
        self.store, self.ours, self._theirs = store, ours, theirs
        self._begins = torch.from_numpy(ours.begins_word)
        self._ends: tuple[Tensor, int] | None = None

    @property
    def theirs(self) -> TokenBytes:
        """The bytes of the teacher's tokens.

        Raises:
            UserError: they are not known.
        """
        if self._theirs is None:
            raise UserError(
                f"{self.store.path} was captured of turns, which are aligned by the teacher's tokens; give its "
                "tokenizer as `teacher_tokenizer`"
            )
        return self._theirs

    def match_ends(self, ours: int, theirs: int | None) -> None:
        """As :meth:`TeacherAcross.match_ends`."""
        one = torch.arange(len(self.ours.each), device=self._begins.device) == ours
        self._ends = one, -1 if theirs is None else theirs

    def to(self, device: torch.device) -> None:
        """Give targets on this device."""
        self._begins = self._begins.to(device)
        self._ends = None if self._ends is None else (self._ends[0].to(device), self._ends[1])

    def shard(self, device: torch.device) -> None:
        """As :meth:`to`: each rank reads the records of its own batches."""
        self.to(device)

    def check_documents(self) -> None:
        """Nothing: a document was read alone."""

    def collator(self, collate: Collate, field: str = "text") -> SpanCollator:
        """A collator that adds the store's numbers to the batches of another.

        Args:
            collate: the other collator.
            field: the column of the samples' text.

        Raises:
            UserError: the store is of turns, and the samples are texts.
        """
        if not isinstance(self.store.codec, SpanCodec):
            raise UserError(
                f"{self.store.path} was captured of conversations or questions, and the samples are texts; give the "
                "samples that were captured"
            )
        return SpanCollator(collate, self.ours, SpanSlices(self.store), field)

    def turns(self, collate: Collate, number: int) -> CapturedTurnsCollator:
        """The same of samples that are turns or answers.

        Args:
            collate: the other collator.
            number: the teacher's place in the columns of a sample.

        Raises:
            UserError: the store is of texts.
        """
        if isinstance(self.store.codec, SpanCodec):
            raise UserError(
                f"{self.store.path} was captured of texts, and the samples are conversations or questions; capture "
                "these (`potstill capture`)"
            )
        return CapturedTurnsCollator(TurnsCollator(collate, self.ours, self.theirs, number), self.store)

    def target(self, batch: Mapping[str, Tensor], temperature: float = 1.0) -> SpanTarget:
        """What the teacher says of the spans of a batch, whose columns are those of :class:`SpanCollator` or
        :class:`CapturedTurnsCollator`, without their prefix."""
        spans, numbers = batch[SPANS], TokenNumbers(*batch[NUMBERS].unbind(1))
        theirs, opens, follows = spans[:, 2:4], spans[:, 4].bool(), spans[:, 5].bool()
        own, closes = None, None
        if self._ends is not None:
            own, end = self._ends
            closes = supervised_labels(batch)[theirs[:, 1]] == end
        groups = joined(theirs, opens, follows, numbers, closes)
        return SpanTarget(
            spans[:, :2], opens, *groups, begins_word=self._begins, tokens=len(batch[SAME_BYTE]), ends_turn=own
        )

    def targets(self, batches: Iterable[Mapping[str, Tensor]]) -> Iterator[SpanTarget]:
        """:meth:`target` of each batch."""
        return map(self.target, batches)

    def read(
        self, batch: Mapping[str, Tensor], layers: Collection[int], temperature: float = 1.0
    ) -> tuple[SpanTarget, LayerStates]:
        """:meth:`target`, and no layers."""
        assert not layers, "`across_tokenizers` refuses hidden_match"
        return self.target(batch), {}


def captured_alike(store: TargetStore, tokenizer: Any) -> bool:
    """Whether the teacher of a store has this tokenizer."""
    return store.header.provenance.tokenizer == tokenizer_fingerprint(tokenizer)


def check_spans(store: TargetStore, kinds: Sequence[str]) -> None:
    """Refuse a store that losses across tokenizers cannot read.

    Args:
        store: the store.
        kinds: the kinds of all losses.

    Raises:
        UserError: it has other targets than spans, or a loss needs more than spans.
    """
    crossing = next(kind for kind in kinds if kind != "cross_entropy")
    if not isinstance(store.codec, CrossingCodec):
        raise UserError(
            f"{crossing} is for a teacher of another tokenizer, and {store.path} has the targets of one tokenizer's "
            f"tokens (`keep: {store.codec.mode}`); capture with `keep: spans`, or use forward_kl with a student of "
            "that tokenizer"
        )
    if more := [kind for kind in kinds if kind not in ("alm", "cross_entropy")]:
        raise UserError(
            f"{more[0]} needs whole distributions, and {store.path} keeps spans, which serve alm alone; use alm, or "
            "let the teacher run beside the student"
        )


def captured_spans(store: TargetStore, ours: TokenBytes, theirs: TokenBytes | None) -> CapturedSpans:
    """The teacher of a store, for losses across tokenizers.

    Args:
        store: the store.
        ours: the bytes of the student's tokens.
        theirs: the bytes of the teacher's tokens; None where they are not known.

    Raises:
        UserError: the teacher's tokenizer is another one than that of the store.
    """
    if theirs is not None and not captured_alike(store, theirs.tokenizer):
        raise UserError(f"`teacher_tokenizer` is not the tokenizer with which {store.path} was captured; give that one")
    return CapturedSpans(store, ours, theirs)
