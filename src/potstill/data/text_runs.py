"""Text runs: which bytes of which document the tokens of a sample are.

What a teacher says of a document is kept by the document's text (``targets/span_slices.py``). A sample holds a part of
a document, or parts of several, as its student's tokenizer has cut them. So a sample says of its tokens where their
bytes are from:

    run = (the document's hash, its bytes from `begin` to `end`, the sample's tokens from `token` on, their number)

A run ends where the document ends, where the sample ends, and at tokens that do not give back the document's bytes, as
with unknown tokens or a normaliser that changes the text. Those tokens are in no run.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from potstill.data.stored_texts import hash_of
from potstill.data.token_bytes import TokenBytes, TokenEnds
from potstill.errors import UserError

TEXT_RUNS = "text_runs"
"""The column of a sample with its runs, as the bytes of an array of RUN."""

RUN = np.dtype([("document", "V16"), ("begin", "<u8"), ("end", "<u8"), ("token", "<u4"), ("tokens", "<u4")])
"""A run: bytes from `begin` to `end` of a document, which are `tokens` tokens of a sample, from its token `token` on.
Where a tokenizer puts a space before a document, the tokens have one byte more than the run."""


@dataclass(frozen=True)
class DocumentTokens:
    """Where the tokens of a document end in its text."""

    document: bytes
    """The document's hash (``stored_texts.hash_of``)."""
    ends: Int[np.ndarray, "n"]
    lost: Bool[np.ndarray, "n"]
    """Both as in :class:`TokenEnds`."""
    before: int
    """The number of tokens before the text, as of a separator."""

    @classmethod
    def of(cls, text: str, tokens: TokenEnds, before: int) -> "DocumentTokens":
        """Those of a text with some tokens before it."""
        return cls(hash_of(text), tokens.ends, tokens.lost, before)

    def runs(self, first: int, last: int, at: int) -> np.ndarray:
        """The runs among the document's tokens from `first` to `last`, as RUN.

        Args:
            first: the first token, those before the text included.
            last: the token after the last.
            at: the place of the first token in a sample.
        """
        begin, end = (max(number - self.before, 0) for number in (first, last))
        whole = np.concatenate([[False], ~self.lost[begin:end], [False]]).astype(np.int8)
        turns = np.flatnonzero(np.diff(whole)).reshape(-1, 2) + begin
        starts = np.concatenate([[0], self.ends])
        found = np.zeros(len(turns), RUN)
        found["document"] = np.void(self.document)
        found["begin"], found["end"] = starts[turns[:, 0]], starts[turns[:, 1]]
        found["token"] = at + turns[:, 0] + self.before - first
        found["tokens"] = turns[:, 1] - turns[:, 0]
        # A space that is the tokenizer's own is no byte of the text.
        return found[found["end"] > found["begin"]]


def column_of(runs: Iterable[np.ndarray]) -> bytes:
    """Runs as the value of a sample's column."""
    return np.concatenate([np.zeros(0, RUN), *runs]).tobytes()


def runs_of_sample(sample: Mapping[str, Any], ids: Int[np.ndarray, "T"], ours: TokenBytes, field: str) -> np.ndarray:
    """The runs of a sample, as RUN.

    A sample of text is the beginning of a document, which is its text; of a prompt with a completion, both together.

    Args:
        sample: the sample, with a column of runs or with a text.
        ids: its tokens.
        ours: the bytes of the student's tokens.
        field: the column of the text.

    Raises:
        UserError: the sample has neither, or its tokens are not those of its text.
    """
    given = sample.get(TEXT_RUNS)
    if given is not None:
        return np.frombuffer(bytes(given), RUN)
    text = sample.get(field)
    if text is None and sample.get("prompt") is not None:
        text = f"{sample['prompt']}{sample.get('completion') or ''}"
    if not isinstance(text, str) or sample.get("input_ids") is not None:
        raise UserError(
            f"captured spans are found by a sample's text, and a sample has tokens and no `{TEXT_RUNS}`; give samples "
            f"of `{field}`, or the samples of a run's corpus"
        )
    (found,) = ours.read([text])
    (of_text,) = np.nonzero(ours.lengths[ids])
    before, count = (int(of_text[0]), int(of_text[-1]) + 1 - int(of_text[0])) if len(of_text) else (0, 0)
    if not np.array_equal(ids[before : before + count], found.ids[:count]):
        raise UserError(
            "captured spans are found by a sample's text, and a sample's tokens are not those of its text; leave "
            "`data_collator` out"
        )
    return DocumentTokens.of(text, found, before).runs(0, before + count, 0)
