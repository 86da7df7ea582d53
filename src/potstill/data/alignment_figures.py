"""Alignment figures: how much of some text a teacher of another tokenizer can be compared on."""

from collections.abc import Iterable
from dataclasses import dataclass

from potstill.data.aligned_texts import AlignedTexts
from potstill.data.token_alignment import Spans
from potstill.data.token_bytes import TokenEnds
from potstill.errors import UserError

MOST_LOST = 0.01
"""The greatest share of a text's bytes that a tokenizer may not give back. Of those, a model has not read the text."""

HELD_OUT_TEXT = "the held-out text"
"""What the figures of a corpus of text are of, in messages."""


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

    def told(self, text: str, teacher: str = "the teacher") -> str:
        """The figures in a sentence without its full stop.

        Args:
            text: what was read, such as `the held-out text`.
            teacher: the teacher's name.
        """
        spans = max(self.spans, 1)
        ours, theirs = self.student_tokens / spans, self.teacher_tokens / spans
        return (
            f"{self.share:.1%} of {text} is compared with {teacher}, in {self.spans:,} spans of {ours:.2f} tokens of "
            f"the student and {theirs:.2f} of the teacher{self.lost}"
        )

    @property
    def lost(self) -> str:
        """What the tokens do not give back, as the end of a sentence; empty if they give back everything."""
        both = {"student": self.lost_by_student, "teacher": self.lost_by_teacher}
        lost = [f"the {who}'s tokens do not give back {count:,}" for who, count in both.items() if count]
        return f", and of {self.bytes:,} bytes {' and '.join(lost)}" if lost else ""

    def check_lost(self, student: str, teacher: str, text: str) -> None:
        """Refuse a tokenizer that does not give back more of the text than can be left out.

        Args:
            student: the student's name.
            teacher: the teacher's name.
            text: what was read, such as `the held-out text`.

        Raises:
            UserError: names the model of such a tokenizer, with the bytes.
        """
        for name, lost in ((student, self.lost_by_student), (teacher, self.lost_by_teacher)):
            if lost > MOST_LOST * self.bytes:
                raise UserError(
                    f"the tokens of {name} do not give back {lost / self.bytes:.1%} of {text} ({lost:,} of "
                    f"{self.bytes:,} bytes), and at most {MOST_LOST:.0%} can be left out: the tokenizer changes the "
                    "text or does not know some of its characters, so the model reads another text; use another "
                    "tokenizer, or other text"
                )

    def add(self, found: AlignedTexts) -> None:
        """Count some texts."""
        self.add_spans(found.spans)
        self.add_bytes(sum(map(len, found.contents)), found.ours, found.theirs)

    def add_spans(self, spans: Spans) -> None:
        """Count some spans, and the tokens in them."""
        self.bytes_in_spans += spans.bytes_in_spans
        self.spans += len(spans.ours)
        self.student_tokens += int((spans.ours[:, 1] - spans.ours[:, 0]).sum())
        self.teacher_tokens += int((spans.theirs[:, 1] - spans.theirs[:, 0]).sum())

    def add_bytes(self, count: int, ours: Iterable[TokenEnds], theirs: Iterable[TokenEnds]) -> None:
        """Count the bytes of some texts, and those that the tokens of student and teacher do not give back."""
        self.bytes += count
        self.lost_by_student += sum(one.lost_bytes for one in ours)
        self.lost_by_teacher += sum(one.lost_bytes for one in theirs)
