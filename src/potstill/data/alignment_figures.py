"""Alignment figures: how much of some text a teacher of another tokenizer can be compared on."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

import numpy as np

from potstill.data.token_alignment import TextAxis, TextReading, align
from potstill.data.token_bytes import TokenBytes, TokenEnds

MOST_LOST = 0.01
"""The greatest share of a text's bytes that a tokenizer may not give back. Of those, a model has not read the text."""

_AT_ONCE = 256


@dataclass
class AlignmentFigures:
    """Counts of some text, read by the tokenizers of student and teacher."""

    bytes: int = 0
    bytes_in_spans: int = 0
    spans: int = 0
    student_tokens: int = 0
    """The student's tokens in spans."""
    teacher_tokens: int = 0
    """The teacher's tokens in spans."""
    lost_by_student: int = 0
    """The bytes that the student's tokens do not give back."""
    lost_by_teacher: int = 0

    @property
    def share(self) -> float:
        """The share of the bytes that lie in spans."""
        return self.bytes_in_spans / max(self.bytes, 1)

    def __str__(self) -> str:
        spans = max(self.spans, 1)
        ours, theirs = self.student_tokens / spans, self.teacher_tokens / spans
        return (
            f"{self.share:.1%} of the held-out text is compared with the teacher, in {self.spans:,} spans of "
            f"{ours:.2f} tokens of the student and {theirs:.2f} of the teacher"
        )

    def add(self, texts: list[str], ours: TokenBytes, theirs: TokenBytes) -> None:
        """Count some texts, each with the tokens that stand before it."""
        axis = TextAxis.of([text.encode() for text in texts])
        own, others = ours.read(texts), theirs.read(texts)
        spans = align(axis, _reading(axis, own), _reading(axis, others))
        self.bytes += sum(len(text.encode()) for text in texts)
        self.bytes_in_spans += spans.bytes_in_spans
        self.spans += len(spans.ours)
        self.student_tokens += int((spans.ours[:, 1] - spans.ours[:, 0]).sum())
        self.teacher_tokens += int((spans.theirs[:, 1] - spans.theirs[:, 0]).sum())
        self.lost_by_student += sum(one.lost_bytes for one in own)
        self.lost_by_teacher += sum(one.lost_bytes for one in others)


def alignment_figures(texts: Iterable[str], ours: TokenBytes, theirs: TokenBytes) -> AlignmentFigures:
    """The figures of texts, which are read some at a time."""
    found, texts = AlignmentFigures(), iter(texts)
    while some := list(islice(texts, _AT_ONCE)):
        found.add(some, ours, theirs)
    return found


def _reading(axis: TextAxis, texts: list[TokenEnds]) -> TextReading:
    ends = [np.append(at, at + 1 + one.ends) for at, one in zip(axis.openings, texts, strict=True)]
    lost = np.concatenate([np.append(False, one.lost) for one in texts])
    return TextReading(np.concatenate(ends), lost, np.arange(len(lost)))
