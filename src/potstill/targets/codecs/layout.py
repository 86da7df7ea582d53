"""Fields of a record: where each stands among its bytes, and how numbers become bytes."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

RANGE = 48.0
LINEAR = 0.1
"""The quantiser's curve, see :func:`quantise`."""


@dataclass(frozen=True)
class Layout:
    """The fields of a record, in order, with their sizes in bytes."""

    sizes: Mapping[str, int]

    @property
    def record_bytes(self) -> int:
        """The size of a record."""
        return sum(self.sizes.values())

    def split(self, packed: UInt8[Tensor, "N record_bytes"]) -> dict[str, Tensor]:
        """The fields of N records, by name."""
        return dict(zip(self.sizes, packed.split(list(self.sizes.values()), dim=1), strict=True))

    def join(self, **fields: Tensor) -> UInt8[Tensor, "N record_bytes"]:
        """N records of their fields."""
        for name, size in self.sizes.items():
            assert fields[name].shape[1] == size, (name, fields[name].shape, size)
        return torch.cat([fields[name] for name in self.sizes], dim=1)


def to_bytes(numbers: Tensor) -> UInt8[Tensor, "N bytes"]:
    """The little-endian bytes of [N, ...] numbers of any type."""
    return numbers.contiguous().view(torch.uint8).flatten(1)


def from_bytes(packed: UInt8[Tensor, "N bytes"], dtype: torch.dtype) -> Tensor:
    """What :func:`to_bytes` was given."""
    # A copy even of what is contiguous: a slice may start where no number of this size may.
    return packed.clone(memory_format=torch.contiguous_format).view(dtype)


def quantise(shape: Float[Tensor, "N K"], bits: int) -> UInt8[Tensor, "N bytes"]:
    """Log-probabilities relative to the row's greatest (so at most 0), in 8, 16 or 32 bits each.

    A code ``c`` below the last stands for ``-RANGE * (LINEAR * u + (1 - LINEAR) * u * u)`` with
    ``u = c / (2**bits - 2)``: finest at the top, where an error weighs most in the divergence (0.02 nats at 8 bits),
    coarser where probabilities are small (0.16 nats, ten nats down). The last code stands for ``-inf``. 32 bits are the
    float itself.
    """
    if bits == 32:
        return to_bytes(shape.float())
    last = 2**bits - 1
    y = (shape / -RANGE).clamp(0, 1)
    u = ((LINEAR**2 + 4 * (1 - LINEAR) * y).sqrt() - LINEAR) / (2 * (1 - LINEAR))
    codes = (u * (last - 1)).round().masked_fill(shape == -torch.inf, last)
    return to_bytes(codes.to(torch.int32).to(torch.uint8 if bits == 8 else torch.uint16))


def dequantise(packed: UInt8[Tensor, "N bytes"], bits: int) -> Float[Tensor, "N K"]:
    """What the codes of :func:`quantise` stand for, in float32."""
    if bits == 32:
        return from_bytes(packed, torch.float32)
    last = 2**bits - 1
    codes = packed if bits == 8 else from_bytes(packed, torch.uint16)
    u = codes.float() / (last - 1)
    return (-RANGE * u * (LINEAR + (1 - LINEAR) * u)).masked_fill_(u > 1, -torch.inf)
