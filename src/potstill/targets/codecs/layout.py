"""The layout of a record: the order and sizes of its fields, and the conversion of numbers to bytes."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

RANGE = 48.0
LINEAR = 0.1
"""The parameters of the quantiser's curve; see :func:`quantise`."""


@dataclass(frozen=True)
class Layout:
    """The fields of a record in order, with their sizes in bytes."""

    sizes: Mapping[str, int]

    @property
    def record_bytes(self) -> int:
        """The size of a record."""
        return sum(self.sizes.values())

    def split(self, packed: UInt8[Tensor, "N record_bytes"]) -> dict[str, Tensor]:
        """The fields of N records, by name."""
        return dict(zip(self.sizes, packed.split(list(self.sizes.values()), dim=1), strict=True))

    def join(self, **fields: Tensor) -> UInt8[Tensor, "N record_bytes"]:
        """N records, from their fields."""
        for name, size in self.sizes.items():
            assert fields[name].shape[1] == size, (name, fields[name].shape, size)
        return torch.cat([fields[name] for name in self.sizes], dim=1)


def to_bytes(numbers: Tensor) -> UInt8[Tensor, "N bytes"]:
    """The little-endian bytes of numbers [N, ...] of any type."""
    return numbers.contiguous().view(torch.uint8).flatten(1)


def from_bytes(packed: UInt8[Tensor, "N bytes"], dtype: torch.dtype) -> Tensor:
    """The inverse of :func:`to_bytes`."""
    # Copied even if contiguous: a slice may start at an address that is not aligned for this type.
    return packed.clone(memory_format=torch.contiguous_format).view(dtype)


def quantise(shape: Float[Tensor, "N K"], bits: int) -> UInt8[Tensor, "N bytes"]:
    """Encode log-probabilities, relative to the greatest of their row (so at most 0), in 8, 16 or 32 bits each.

    A code ``c`` below the last means ``-RANGE * (LINEAR * u + (1 - LINEAR) * u * u)`` with ``u = c / (2**bits - 2)``.
    Steps are finest at the top (0.02 nats at 8 bits), where an error weighs most in the divergence, and coarser for
    small probabilities (0.16 nats, ten nats down). The last code means ``-inf``. With 32 bits, a code is the float
    itself.
    """
    if bits == 32:
        return to_bytes(shape.float())
    last = 2**bits - 1
    y = (shape / -RANGE).clamp(0, 1)
    u = ((LINEAR**2 + 4 * (1 - LINEAR) * y).sqrt() - LINEAR) / (2 * (1 - LINEAR))
    codes = (u * (last - 1)).round().masked_fill(shape == -torch.inf, last)
    return to_bytes(codes.to(torch.int32).to(torch.uint8 if bits == 8 else torch.uint16))


def dequantise(packed: UInt8[Tensor, "N bytes"], bits: int) -> Float[Tensor, "N K"]:
    """Decode the codes of :func:`quantise`, in float32."""
    if bits == 32:
        return from_bytes(packed, torch.float32)
    last = 2**bits - 1
    codes = packed if bits == 8 else from_bytes(packed, torch.uint16)
    u = codes.float() / (last - 1)
    return (-RANGE * u * (LINEAR + (1 - LINEAR) * u)).masked_fill_(u > 1, -torch.inf)
