"""Span collator: adds to a batch what a store of spans says of its samples' text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from potstill.data.collators import Collate
from potstill.data.labels import starts_document, supervised_mask
from potstill.data.prompts.collator import TEACHER
from potstill.data.text_of_batch import columns, rows_of_predictions
from potstill.data.text_runs import runs_of_sample
from potstill.data.token_alignment import NOWHERE, TextAxis, TextReading, align
from potstill.data.token_bytes import SPACE, TokenBytes
from potstill.errors import UserError
from potstill.targets.span_slices import SpanSlice, SpanSlices

NUMBERS = "span_numbers"
"""The teacher's column with the numbers of its tokens: Float[M, 2], for each place between them. A row has the
log-probability of the token that follows, and the log of the probability that a space follows."""


@dataclass(frozen=True)
class SpanCollator:
    """A collator that adds a captured teacher's numbers and the spans of the text to each batch.

    It makes the columns of :class:`TextCollator` that say where student and teacher stand at the same byte, and the
    column NUMBERS in the place of the teacher's tokens.

    Args:
        collate: the collator of the student's batches.
        ours: the bytes of the student's tokens.
        slices: the store.
        field: the column of the samples' text, where they have no runs.

    Raises:
        UserError: a sample does not say which text it is of, its text was not captured, or a batch has other tokens
            than its samples.
    """

    collate: Collate
    ours: TokenBytes
    slices: SpanSlices
    field: str = "text"

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """The collator's batch, with the teacher's columns."""
        batch = self.collate(samples)
        return batch | {f"{TEACHER}{name}": value for name, value in self.columns(batch, samples).items()}

    def columns(self, batch: Mapping[str, Tensor], samples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """The teacher's columns of a batch of samples, without their prefix."""
        ids, width = batch["input_ids"].numpy(), batch["input_ids"].shape[1]
        runs = [
            runs_of_sample(sample, self._own(sample, row, batch), self.ours, self.field)
            for row, sample in enumerate(samples)
        ]
        row_of = np.repeat(np.arange(len(runs)), [len(own) for own in runs])
        every = np.concatenate(runs)
        places = row_of * width + every["token"].astype(np.int64)
        begins, stops = every["begin"].astype(np.int64).tolist(), every["end"].astype(np.int64).tolist()
        parts = [slice(at, at + count) for at, count in zip(places.tolist(), every["tokens"].tolist(), strict=True)]
        read = [self._read(ids.reshape(-1)[part], *of) for part, *of in zip(parts, begins, stops, strict=True)]
        axis = TextAxis.of([content for content, _ in read])
        ends = np.full(ids.size, NOWHERE, np.int64)
        for part, at, (_, own) in zip(parts, axis.openings.tolist(), read, strict=True):
            ends[part] = at + 1 + own
        opened = self._openings(batch, places) & (every["begin"] == 0)
        ends[places[opened] - 1] = axis.openings[opened]
        found = self.slices.read(
            [(one["document"].tobytes(), begin, stop) for one, begin, stop in zip(every, begins, stops, strict=True)]
        )
        theirs, numbers = self._theirs(found, axis, np.array(begins))
        spans = align(axis, TextReading(ends, np.zeros(ids.size, bool), rows_of_predictions(batch)), theirs)
        return columns(spans, int(supervised_mask(batch).sum())) | {NUMBERS: torch.from_numpy(numbers)}

    def _own(self, sample: Mapping[str, Any], row: int, batch: Mapping[str, Tensor]) -> Int[np.ndarray, "T"]:
        """The tokens of a sample, which its row must begin with."""
        ids = batch["input_ids"][row].numpy()
        given = sample.get("input_ids")
        if given is not None and not np.array_equal(np.asarray(given), ids[: len(given)]):
            raise UserError(
                "captured spans are found by the places of a sample's tokens, and `data_collator` moves or changes "
                "them; pad on the right, or leave `data_collator` out"
            )
        return ids if "attention_mask" not in batch else ids[: int(batch["attention_mask"][row].sum())]

    def _read(self, ids: Int[np.ndarray, "n"], begin: int, end: int) -> tuple[bytes, Int[np.ndarray, "n"]]:
        """The bytes of a run, and where its tokens end in them."""
        content, ends = self.ours.joined(ids), self.ours.lengths[ids].cumsum()
        if len(content) == end - begin + 1 and content[:1] == SPACE and begin == 0:
            content, ends = content[1:], np.maximum(ends - 1, 0)
        if len(content) != end - begin:
            raise UserError(
                f"`text_runs` of a sample say that {len(ids)} tokens are {end - begin} bytes of a document, but they "
                f"have {len(content)}; make the samples again with this tokenizer"
            )
        return content, ends

    def _openings(self, batch: Mapping[str, Tensor], places: Int[np.ndarray, "pieces"]) -> np.ndarray:
        """Whether a token without bytes, of the same document, stands right before each of these places in its row."""
        if not self.slices.codec.opens:
            return np.zeros(len(places), bool)
        ids, starts = batch["input_ids"].numpy().reshape(-1), starts_document(batch).numpy().reshape(-1)
        inside = places % batch["input_ids"].shape[1] > 0
        return inside & ~starts[places] & (self.ours.lengths[ids[places - inside]] == 0)

    def _theirs(
        self, found: Sequence[SpanSlice], axis: TextAxis, begins: Int[np.ndarray, "pieces"]
    ) -> tuple[TextReading, np.ndarray]:
        """The teacher's reading, and its numbers. Before the tokens of each piece stands one without a text."""
        sizes = np.array([len(one.ends) for one in found], np.int64)
        last = (sizes + 1).cumsum()
        ends = np.full(int(last[-1]) if len(last) else 0, NOWHERE, np.int64)
        lost, numbers = np.zeros(len(ends), bool), np.zeros((len(ends), 2), np.float32)
        records = np.concatenate(
            [np.zeros((0, self.slices.codec.layout.record_bytes), np.uint8), *(one.records for one in found)]
        )
        decoded = self.slices.codec.decode(torch.from_numpy(records))
        own = np.ones(len(ends), bool)
        own[last - sizes - 1] = False
        (at,) = np.nonzero(own)
        shift = np.repeat(axis.openings + 1 - begins, sizes)
        ends[at] = shift + np.concatenate([np.zeros(0, np.int64), *(one.ends for one in found)])
        lost[at] = decoded.lost.numpy()
        numbers[at - 1, 0], numbers[at, 1] = decoded.log_p.numpy(), decoded.log_mass.numpy()
        opens = self.slices.codec.opens & (begins == 0)
        ends[(last - sizes - 1)[opens]] = axis.openings[opens]
        return TextReading(ends, lost, np.arange(len(ends))), numbers
