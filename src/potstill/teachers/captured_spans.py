"""Captured spans: a teacher of another tokenizer, from a store of two numbers for each of its tokens."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from potstill.data.collators import Collate
from potstill.data.text_of_batch import SAME_BYTE, SPANS
from potstill.data.token_bytes import TokenBytes
from potstill.data.tokenizers import tokenizer_fingerprint
from potstill.errors import UserError
from potstill.losses.span_likelihood import TokenNumbers, joined
from potstill.losses.teacher_target import SpanTarget
from potstill.models.forward import LayerStates
from potstill.targets import TargetStore
from potstill.targets.span_collator import NUMBERS, SpanCollator
from potstill.targets.span_slices import SpanSlices


class CapturedSpans:
    """A captured teacher of another tokenizer, in the place of a live one (``across_tokenizers.TeacherAcross``).

    Args:
        slices: the store.
        ours: the bytes of the student's tokens.
    """

    gives_whole_distributions = False
    vocabulary: int | None = None
    config: Any = None
    embeddings = 0
    head = None

    def __init__(self, slices: SpanSlices, ours: TokenBytes) -> None:
        self.slices, self._ours = slices, ours
        self._begins = torch.from_numpy(ours.begins_word)

    def to(self, device: torch.device) -> None:
        """Give targets on this device."""
        self._begins = self._begins.to(device)

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
        """
        return SpanCollator(collate, self._ours, self.slices, field)

    def target(self, batch: Mapping[str, Tensor], temperature: float = 1.0) -> SpanTarget:
        """What the teacher says of the spans of a batch, whose columns are those of :class:`SpanCollator`, without
        their prefix."""
        spans, numbers = batch[SPANS], TokenNumbers(*batch[NUMBERS].unbind(1))
        opens, follows = spans[:, 4].bool(), spans[:, 5].bool()
        groups = joined(spans[:, 2:4], opens, follows, numbers)
        return SpanTarget(spans[:, :2], opens, *groups, begins_word=self._begins, tokens=len(batch[SAME_BYTE]))

    def targets(self, batches: Iterable[Mapping[str, Tensor]]) -> Iterator[SpanTarget]:
        """:meth:`target` of each batch."""
        return map(self.target, batches)

    def read(
        self, batch: Mapping[str, Tensor], layers: Collection[int], temperature: float = 1.0
    ) -> tuple[SpanTarget, LayerStates]:
        """:meth:`target`, and no layers."""
        assert not layers, "`across_tokenizers` refuses hidden_match"
        return self.target(batch), {}


def captured_spans(store: TargetStore, kinds: Sequence[str], tokenizer: Any) -> CapturedSpans:
    """The teacher of a store, for losses across tokenizers.

    Args:
        store: the store.
        kinds: the kinds of all losses.
        tokenizer: the student's tokenizer, or None.

    Raises:
        UserError: the store has other targets than spans, a loss needs more than spans, or the student's tokenizer is
            missing, or is the teacher's own.
    """
    crossing = next(kind for kind in kinds if kind != "cross_entropy")
    if store.codec.mode != "spans":
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
    if tokenizer is None:
        raise UserError("alm reads the text of both models; give `processing_class`")
    if store.header.provenance.tokenizer == tokenizer_fingerprint(tokenizer):
        raise UserError(
            f"alm is for a teacher of another tokenizer, but that of {store.path} has the student's own; use "
            "forward_kl, which compares every token of both distributions"
        )
    return CapturedSpans(SpanSlices(store), TokenBytes(tokenizer, "the student"))
