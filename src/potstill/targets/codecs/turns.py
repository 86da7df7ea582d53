"""The codec of turns: two numbers for each learned token of a teacher that reads turns or answers in tokens of its own.

They serve approximate likelihood matching (``losses/span_likelihood.py``) with students of every tokenizer. A sample of
the store is what the teacher reads: its prompt and its words, whose tokens say where they end.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from potstill.losses.span_likelihood import TokenNumbers
from potstill.losses.teacher_target import TeacherTarget
from potstill.models.head import Head
from potstill.targets.codecs.layout import Layout, from_bytes, to_bytes
from potstill.targets.codecs.spans import NUMBER_BITS, check_numbers, code_of, number_of


@dataclass(frozen=True)
class TurnCodec:
    """The log-probability of a token and the log of the word mass before it, as ``spans`` keeps them: 6 bytes.

    Where the token ends a turn, the word mass is the token's own probability.
    """

    mode: ClassVar[str] = "turns"

    @cached_property
    def layout(self) -> Layout:
        """The fields of a record."""
        return Layout({"numbers": 6})

    def encode(
        self, target: TeacherTarget | TokenNumbers, uniforms: Float[Tensor, "N"]
    ) -> UInt8[Tensor, "N record_bytes"]:
        """Encode N tokens as records; only the sampling codecs use ``uniforms``.

        Raises:
            UserError: a number is none (NaN).
        """
        assert isinstance(target, TokenNumbers), "turns are made of a teacher's numbers (teachers/capture_turns.py)"
        check_numbers(*target)
        whole = code_of(target.log_mass) | code_of(target.log_p) << NUMBER_BITS
        return self.layout.join(numbers=to_bytes(whole[:, None])[:, :6])

    def decode(
        self, packed: UInt8[Tensor, "N record_bytes"], temperature: float = 1.0, head: Head | None = None
    ) -> TokenNumbers:
        """Decode N records, on the device of ``packed``."""
        (whole,) = from_bytes(torch.cat([packed, packed.new_zeros(len(packed), 2)], 1), torch.int64).unbind(1)
        return TokenNumbers(number_of(whole >> NUMBER_BITS), number_of(whole))
