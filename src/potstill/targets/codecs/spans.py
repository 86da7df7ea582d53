"""The codec of spans: two numbers for each token of a teacher whose tokenizer is not the student's.

They serve approximate likelihood matching (``losses/span_likelihood.py``) with students of every tokenizer. For that, a
record also says where its token ends in the text.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from potstill.errors import UserError
from potstill.losses.teacher_target import TeacherTarget
from potstill.models.head import Head
from potstill.targets.codecs.layout import Layout, from_bytes, to_bytes

STEP_BITS, NUMBER_BITS = 12, 21
LARGEST_BLOCK = (1 << STEP_BITS) - 1
_MANTISSA = 15
_DROPPED = 23 - _MANTISSA
"""The bits of a float32's mantissa that are not kept."""
_LEAST = (127 - 41) << _MANTISSA
"""The kept bits of 2^-41, the least number above 0 that has a code."""
_INFINITE = (1 << NUMBER_BITS) - 1


@dataclass(frozen=True)
class SpanNumbers:
    """What a teacher says of some text, for each of its N tokens."""

    log_p: Float[Tensor, "N"]
    """The log-probability of the token."""
    log_mass: Float[Tensor, "N"]
    """The log of the probability that the token after it begins with a space."""
    step: Int[Tensor, "N"]
    """The bytes of the text from the end of the token before it, or from the beginning of its block, to its end."""
    lost: Bool[Tensor, "N"]
    """Whether it belongs to bytes that the teacher's tokens do not give back."""

    def __len__(self) -> int:
        return len(self.log_p)


@dataclass(frozen=True)
class SpanCodec:
    """Two numbers for each token of the teacher, and where the token ends: 7 bytes.

    Each number is at most 0. Its absolute value is kept as a float without a sign, with an exponent of 6 bits and a
    mantissa of 15: with a relative error of at most 2^-16 (1.5e-5), from 2^-41 to 2^22. Smaller values are 0.

    Args:
        block: a sample of the store is this number of bytes of a document, or its last bytes.
        context: the teacher reads this number of its tokens before those of a block, where the document has as many.
        longest: the greatest number of tokens that the teacher reads at once.
        opens: whether the teacher reads a token before a document, so that it predicts the document's first token.
    """

    block: int
    context: int
    longest: int
    opens: bool = True
    mode: ClassVar[str] = "spans"

    def __post_init__(self) -> None:
        if not 1 <= self.block <= LARGEST_BLOCK:
            raise UserError(f"a block of {self.block} bytes cannot be captured: it must have 1 to {LARGEST_BLOCK}.")
        if self.context < 0 or self.longest < self.context + 3:
            raise UserError(
                f"a teacher that reads {self.longest} tokens cannot read {self.context} before those of a block: spans "
                "need at least 3 more."
            )

    @cached_property
    def layout(self) -> Layout:
        """The fields of a record."""
        return Layout({"numbers": 7})

    def encode(
        self, target: TeacherTarget | SpanNumbers, uniforms: Float[Tensor, "N"]
    ) -> UInt8[Tensor, "N record_bytes"]:
        """Encode N tokens as records; only the sampling codecs use ``uniforms``.

        Raises:
            UserError: a number is none (NaN).
        """
        assert isinstance(target, SpanNumbers), "spans are made of a document's tokens (teachers/capture_spans.py)"
        check_numbers(target.log_p, target.log_mass)
        assert target.step.amax() <= LARGEST_BLOCK if len(target) else True, "a token ends in its own block"
        whole = target.step | target.lost.long() << STEP_BITS
        for number, at in ((target.log_mass, STEP_BITS + 1), (target.log_p, STEP_BITS + 1 + NUMBER_BITS)):
            whole = whole | code_of(number) << at
        return self.layout.join(numbers=to_bytes(whole[:, None])[:, :7])

    def decode(
        self, packed: UInt8[Tensor, "N record_bytes"], temperature: float = 1.0, head: Head | None = None
    ) -> SpanNumbers:
        """Decode N records, on the device of ``packed``."""
        (whole,) = from_bytes(torch.cat([packed, packed.new_zeros(len(packed), 1)], 1), torch.int64).unbind(1)
        log_mass, log_p = (number_of(whole >> at) for at in (STEP_BITS + 1, STEP_BITS + 1 + NUMBER_BITS))
        return SpanNumbers(log_p, log_mass, whole & LARGEST_BLOCK, (whole >> STEP_BITS & 1).bool())


def check_numbers(log_p: Float[Tensor, "N"], log_mass: Float[Tensor, "N"]) -> None:
    """Refuse what is no number.

    Raises:
        UserError: there is one.
    """
    if log_p.isnan().any() or log_mass.isnan().any():
        raise UserError("the teacher's log-probabilities are not all numbers (NaN): run it in float32.")


def code_of(numbers: Float[Tensor, "N"]) -> Int[Tensor, "N"]:
    """The codes of NUMBER_BITS bits of numbers that are at most 0."""
    size = numbers.float().abs()
    # The next number up has the next bits, also across powers of two. So half a unit is added, and the rest cut off.
    bits = (size.view(torch.int32).long() + (1 << _DROPPED - 1)) >> _DROPPED
    return (bits - _LEAST + 1).clamp(0, _INFINITE - 1).masked_fill(size.isinf(), _INFINITE)


def number_of(codes: Int[Tensor, "N"]) -> Float[Tensor, "N"]:
    """The numbers of codes, of which the lowest NUMBER_BITS bits count."""
    codes = codes & _INFINITE
    bits = (codes + (_LEAST - 1) << _DROPPED).to(torch.int32)
    size = bits.view(torch.float32).masked_fill(codes == 0, 0.0).masked_fill(codes == _INFINITE, torch.inf)
    return -size
