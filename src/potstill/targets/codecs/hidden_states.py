"""The exact codec: the teacher's last hidden states; its head is stored once for all of them."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from potstill.errors import UserError
from potstill.losses.teacher_target import HiddenTarget, TeacherTarget
from potstill.models.head import Head
from potstill.targets.codecs.checks import check_vocabulary
from potstill.targets.codecs.layout import Layout, from_bytes, to_bytes

DTYPES = {16: torch.bfloat16, 32: torch.float32}


@dataclass(frozen=True)
class HiddenCodec:
    """Hidden states in bfloat16 (16 bits) or float32 (32 bits): they give all logits, at any temperature."""

    vocabulary: int
    hidden_size: int
    bits: int = 16
    mode: ClassVar[str] = "hidden"

    def __post_init__(self) -> None:
        check_vocabulary(self.vocabulary)
        if self.bits not in DTYPES:
            raise UserError(f"capture.bits is {self.bits}: hidden states are kept in 16 or 32 bits.")
        if self.hidden_size < 1:
            raise UserError(f"a teacher's hidden size cannot be {self.hidden_size}.")

    @cached_property
    def layout(self) -> Layout:
        """The fields of a record."""
        return Layout({"hidden": self.hidden_size * self.bits // 8})

    def encode(self, target: TeacherTarget, uniforms: Float[Tensor, "N"]) -> UInt8[Tensor, "N record_bytes"]:
        """Encode N tokens as records, on the target's device; only the sampling codecs use ``uniforms``.

        Raises:
            UserError: the target has no hidden states, or they have another size, or some are not finite.
        """
        if not isinstance(target, HiddenTarget):
            raise UserError(
                f"capture.keep: hidden needs hidden states, and the teacher gave a {type(target).__name__}."
            )
        if target.hidden.shape[1] != self.hidden_size:
            raise UserError(
                f"the teacher's hidden states have {target.hidden.shape[1]} numbers, the store was made for "
                f"{self.hidden_size}."
            )
        hidden = target.hidden.to(DTYPES[self.bits])
        if not torch.isfinite(hidden).all():
            raise UserError("the teacher's hidden states are not all numbers (NaN or infinite): run it in float32.")
        return to_bytes(hidden)

    def decode(
        self, packed: UInt8[Tensor, "N record_bytes"], temperature: float = 1.0, head: Head | None = None
    ) -> HiddenTarget:
        """Decode N records, on the device of ``packed``, with the store's head."""
        assert head is not None, "hidden states need their head"
        return HiddenTarget(from_bytes(packed, DTYPES[self.bits]), head)
