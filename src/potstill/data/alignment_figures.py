"""Alignment figures: how much of some text a teacher of another tokenizer can be compared on."""

from dataclasses import dataclass

from potstill.data.aligned_texts import AlignedTexts

MOST_LOST = 0.01
"""The greatest share of a text's bytes that a tokenizer may not give back. Of those, a model has not read the text."""


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

    def add(self, found: AlignedTexts) -> None:
        """Count some texts."""
        spans = found.spans
        self.bytes += sum(map(len, found.contents))
        self.bytes_in_spans += spans.bytes_in_spans
        self.spans += len(spans.ours)
        self.student_tokens += int((spans.ours[:, 1] - spans.ours[:, 0]).sum())
        self.teacher_tokens += int((spans.theirs[:, 1] - spans.theirs[:, 0]).sum())
        self.lost_by_student += sum(one.lost_bytes for one in found.ours)
        self.lost_by_teacher += sum(one.lost_bytes for one in found.theirs)
